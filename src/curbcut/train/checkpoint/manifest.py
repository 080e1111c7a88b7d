"""What a checkpoint says of itself, written last: where it stands, all the rest does.

    checkpoints/step-00000012/
    ├── rank-00000.safetensors   one for each rank that writes
    └── manifest.json            {"sha256": of the rest, "manifest": {...}}
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import DamagedFile
from curbcut.files import sha256_of, sync
from curbcut.train.checkpoint.progress import Progress, from_plain
from curbcut.train.checkpoint.shards import Facts

MANIFEST = "manifest.json"
FORMAT = 2
"""1 was one file of whole tensors, by versions that knew one process only."""


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's content."""

    run: str
    """`identity` of the run that wrote it."""
    progress: Progress
    ranks: int
    degrees: Mapping[str, int]
    """The layout that wrote it, for people: any other may read it."""
    files: tuple[Facts, ...]


def write(folder: Path, manifest: Manifest) -> None:
    """Puts `manifest.json` into `folder` and waits for both; raises OSError."""
    plain = {"format": FORMAT} | asdict(manifest)
    whole = {"sha256": _digest(plain), "manifest": plain}
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1))
    sync(folder / MANIFEST)
    sync(folder)


def read(folder: Path, run: str) -> Manifest:
    """The manifest of a checkpoint of `run`; raises DamagedFile saying why it cannot be used."""
    path = folder / MANIFEST
    try:
        whole = json.loads(path.read_bytes())
        plain, said = whole.get("manifest", whole), whole.get("sha256")
        version = int(plain["format"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedFile("its manifest is missing or unreadable", where=str(folder)) from None
    if version != FORMAT:
        age = "a newer" if version > FORMAT else "an older"
        raise DamagedFile(f"has format {version}, of {age} version; this one knows {FORMAT}",
                          where=str(path))
    if said != _digest(plain):
        raise DamagedFile("does not match its own sha256", where=str(path))
    if plain["run"] != run:
        raise DamagedFile(f"is of another run ({plain['run'][:12]}, not {run[:12]}): its model, "
                          "text, seed or optimisation differs", where=str(path))
    return Manifest(run, from_plain(plain["progress"]), plain["ranks"], plain["degrees"],
                    tuple(Facts(**facts) for facts in plain["files"]))


def check(folder: Path, files: Sequence[Facts]) -> None:
    """Reads each file and compares size and sha256; raises DamagedFile naming the bad one."""
    for facts in files:
        path = folder / facts.name
        if path.parent != folder:  # a manifest names plain files, never paths
            raise DamagedFile(f"names {facts.name!r}, which is no plain file name",
                              where=str(folder / MANIFEST))
        try:
            if path.stat().st_size != facts.bytes:
                raise DamagedFile(f"has {path.stat().st_size} bytes, not {facts.bytes}",
                                  where=str(path))
            if sha256_of(path) != facts.sha256:
                raise DamagedFile("does not match its sha256", where=str(path))
        except FileNotFoundError:
            raise DamagedFile("is missing", where=str(path)) from None
        except OSError as error:
            raise DamagedFile(f"cannot be read ({error.strerror})", where=str(path)) from None


def complete(root: Path) -> list[Path]:
    """Checkpoints in `root`, oldest first; half-written ones do not have this name."""
    return sorted(p for p in root.glob("step-*") if p.is_dir())


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies once it is complete."""
    return root / f"step-{step:08d}"


def put_in_place(aside: Path, final: Path) -> None:
    """Gives a written checkpoint its name; one that had it before waits aside until then."""
    replaced = final.with_name(f".replaced-{final.name}")
    if final.exists():
        final.rename(replaced)
    aside.rename(final)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def prune(root: Path, keep: int, reached: Callable[[str], None]) -> None:
    """Leaves the newest `keep` checkpoints. An old one loses its name first, so what a crash
    leaves of it is no checkpoint.
    """
    for old in complete(root)[:-keep]:
        gone = old.with_name(f".pruned-{old.name}")
        shutil.rmtree(gone, ignore_errors=True)
        old.rename(gone)
        reached("save: in prune")
        shutil.rmtree(gone, ignore_errors=True)


def sweep(root: Path) -> None:
    """Tidies what a crash left in `root`: only this run's trainer writes here (see lock.py)."""
    for replaced in root.glob(".replaced-*"):
        final = root / replaced.name.removeprefix(".replaced-")
        if not final.exists():
            replaced.rename(final)
    for pattern in (".writing-*", ".pruned-*", ".replaced-*"):
        for stale in root.glob(pattern):
            shutil.rmtree(stale, ignore_errors=True)


def free_bytes(root: Path) -> int:
    """Bytes that may still be written where `root` is."""
    return shutil.disk_usage(root).free


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def aside_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is written: the same on all ranks of an attempt."""
    return root / f".writing-{step:08d}"
