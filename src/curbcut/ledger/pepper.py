"""The pepper: 32 random bytes that hashes of keys need, kept apart from the ledger.

Beside a ledger that is a file it lies as FILE.pepper (mode 0600); `CURBCUT_PEPPER` names another
file, and is needed for a ledger that is a URL.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from curbcut.errors import DamagedFile, InputError

VARIABLE = "CURBCUT_PEPPER"
_BYTES = 32


def place(ledger: str) -> Path:
    """The file of the pepper of a ledger (a path or a URL); raises InputError where it must be
    named.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    if "://" in ledger:
        raise InputError("keys in a database need a pepper outside of it", where=VARIABLE,
                         mend=f"set {VARIABLE} to a file that only the server may read; it is made "
                              "with the first key")
    return Path(f"{ledger}.pepper")


def read(ledger: str, *, create: bool = False) -> bytes:
    """The pepper; made where there is none yet and `create` is said.

    Raises InputError where it is missing or cannot be written, DamagedFile where it is none.
    """
    path = place(ledger)
    if create and not path.exists():
        _make(path)
    try:
        found = path.read_bytes()
    except OSError as error:
        raise InputError(f"the pepper of the keys cannot be read ({error.strerror})",
                         where=str(path), mend=f"bring it back, or name its place in {VARIABLE}; "
                         "without it, issue new keys") from None
    if len(found) != _BYTES:
        raise DamagedFile("is no pepper", where=str(path), mend="restore it from a copy")
    return found


def _make(path: Path) -> None:
    """Whole or not at all, and never over one that is there: two may come at once."""
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(whole, path)
        except FileExistsError:
            pass
        finally:
            whole.unlink()
    except OSError as error:
        raise InputError(f"the pepper of the keys cannot be written ({error.strerror})",
                         where=str(path), mend=f"name another place in {VARIABLE}") from None
