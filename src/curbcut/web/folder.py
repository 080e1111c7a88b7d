"""What lies in a run's folder: names and sizes, samples, documents. Nothing of it is handed out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_FILES = 500
MOST_DEPTH = 3
MOST_SAMPLES_BYTES = 1 << 20

_KINDS = {"run.toml": "configuration", "plan.json": "plan", "account.json": "account",
          "evaluation.json": "evaluation", "samples.json": "samples", "launches.json": "launches",
          "checkpoints": "checkpoint", "model": "model", "metrics": "record", "papers": "document",
          "ranks": "record"}
"""By the first part of a path, what a file is."""


def files(folder: Path | None) -> list[dict[str, Any]]:
    """Path, bytes and kind of each file, in the order of paths; the first `MOST_FILES`."""
    if folder is None:
        return []
    found = []
    for path, size in _walk(folder, "", MOST_DEPTH):
        found.append({"path": path, "bytes": size, "kind": _KINDS.get(path.split("/")[0], "other")})
        if len(found) == MOST_FILES:
            break
    return found


def documents(folder: Path | None) -> list[dict[str, Any]]:
    """Those of the files that are documents."""
    return [one for one in files(folder) if one["kind"] == "document"]


def samples(folder: Path | None) -> list[dict[str, Any]]:
    """What the final weights wrote; none where there is none yet, or it is damaged."""
    if folder is None:
        return []
    try:
        path = folder / "samples.json"
        if path.stat().st_size > MOST_SAMPLES_BYTES:
            return []
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(one) for one in found]
    except (OSError, ValueError, TypeError):
        return []


def _walk(folder: Path, before: str, depth: int) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")),
                           key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        try:
            if entry.is_file(follow_symlinks=False):
                yield before + entry.name, entry.stat(follow_symlinks=False).st_size
            elif entry.is_dir(follow_symlinks=False) and depth > 1:
                yield from _walk(Path(entry.path), f"{before}{entry.name}/", depth - 1)
        except OSError:
            continue
