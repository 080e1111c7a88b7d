"""Files that are whole or as they were: written aside, synced, renamed; and their hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a crash at any instant leaves the old or the new one.

    Raises OSError; nothing is left aside then.
    """
    put_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def put_whole(path: Path, write: Callable[[Path], object]) -> None:
    """The same for whatever `write(aside)` puts into the file that it is given."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.touch()
        usual = aside.stat().st_mode  # some writers make files that only their owner can read
        write(aside)
        aside.chmod(usual)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk. Raises OSError."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
