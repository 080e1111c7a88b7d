"""A server in a process of its own, so that client and server share no interpreter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from curbcut.errors import CurbcutError, InputError
from curbcut.ledger import FILE_NAME, access, open_ledger
from curbcut.serve.engine.watch import watched

END_SECONDS = 20.0
"""How long the server may take to end."""


@dataclass(frozen=True)
class Started:
    """A server that answers."""

    url: str
    model: str
    seconds: float
    """From the start of its process until it listened."""
    key: str = ""
    """The key that it wants, if it wants one."""


@contextmanager
def started(folder: Path, options: Sequence[str] = (), *, keyed: bool = False
            ) -> Iterator[Started]:
    """Runs `curbcut serve FOLDER` with `options` on a free port while the block runs; `keyed` has
    it want a key.

    Its ledger is one of its own that goes with it: what is asked here is nobody's use. Raises
    InputError with what the server says where it does not start.
    """
    with _terminable(), tempfile.TemporaryDirectory(prefix="curbcut-bench-") as aside, \
            (Path(aside) / "errors").open("w+b") as errors:
        command = [sys.executable, "-m", "curbcut.cli.main", "serve", str(folder), "--port", "0",
                   "--json", "--runs", aside, *options]
        key = ""
        if keyed:
            with open_ledger(Path(aside) / FILE_NAME) as ledger:
                key = access.issue_key(ledger, "bench", actor="bench")
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors,
                                   start_new_session=True)
        watch = watched(process.pid, END_SECONDS)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait()
                errors.seek(0)
                raise _refused(errors.read().decode(errors="replace"), process.returncode, folder)
            said = json.loads(line)
            yield Started(said["url"], said["model"], time.perf_counter() - began, key)
        finally:
            _end(process)
            watch.kill()
            watch.communicate()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that no server is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refused(said: str, code: int, folder: Path) -> CurbcutError:
    """The server's own error as ours."""
    text = said.strip().removeprefix("curbcut: ")
    what, _, mend = text.rpartition("\n  help: ")
    if code == InputError.exit_code and what:
        return InputError(what, mend=mend)
    return CurbcutError(f"the server did not start: {text[-1000:] or f'exit code {code}'}",
                        where=str(folder), mend="try `curbcut serve` with the same options")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and makes it where it does not."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
