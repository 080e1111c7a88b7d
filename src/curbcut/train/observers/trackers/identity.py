"""Which tracked run a folder's attempts all belong to."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

from curbcut.files import write_whole

FILE = "tracked.json"
_ID = re.compile(r"[A-Za-z0-9._-]{1,120}")


def of(folder: Path) -> str:
    """The id of the run in `folder`: its name and eight hex digits, made once and kept there.

    A run that is deleted and begun anew is another one. Raises OSError.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))["id"]
        if isinstance(found, str) and _ID.fullmatch(found):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = f"{folder.name}-{secrets.token_hex(4)}"
    write_whole(folder / FILE, json.dumps({"id": made}))
    return made
