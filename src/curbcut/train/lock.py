"""One trainer a run folder: the lock dies with its process, so a kill leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from curbcut.errors import InputError, RunBusy

LAUNCHER = "CURBCUT_LAUNCHER"
"""Environment of a rank that a launcher started as a fresh process: the launcher's process id."""
_held: set[Path] = set()
"""Folders that this process holds, or the launcher that it was forked from."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; raises RunBusy when another one does.

    A rank takes part in the lock of the launcher that started it: the folder is held over all
    attempts of a run, also while no rank runs.
    """
    path = folder.resolve()
    if path in _held or launched():
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusy("another process is training this run", where=str(folder),
                      mend="wait for it, stop it, or give this run another --name") from None
    except OSError as error:
        raise InputError(f"cannot write here ({error.strerror})", where=str(folder),
                         mend="choose another --runs folder") from None
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        lock.release()


def launched() -> bool:
    """Whether this process is a rank that a launcher of ours started, and still watches."""
    return os.environ.get(LAUNCHER) == str(os.getppid())
