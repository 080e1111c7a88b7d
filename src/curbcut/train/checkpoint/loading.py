"""The newest checkpoint that verifies, read in the layout that asks for it.

A checkpoint is boxes of named tensors, whoever wrote them. A rank reads, of each box, what lies in
its own part: so one saved on any layout is taken up on any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor

from curbcut.errors import DamagedFile
from curbcut.train.checkpoint import manifest, shards
from curbcut.train.checkpoint.manifest import Manifest
from curbcut.train.checkpoint.pieces import Piece, piece_of
from curbcut.train.checkpoint.progress import Progress
from curbcut.train.world import World


class Stored:
    """An open checkpoint: any box of any of its tensors, put together from all ranks' files."""

    def __init__(self, folder: Path, content: Manifest) -> None:
        """Opens the files of a verified checkpoint; raises DamagedFile where they do not fit."""
        self.folder, self.manifest = folder, content
        self._boxes: dict[str, list[tuple[Any, Piece]]] = {}
        for facts in content.files:
            try:
                file = shards.opened(folder / facts.name)
                for piece in shards.places(file):
                    self._boxes.setdefault(piece.name, []).append((file, piece))
            except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
                raise DamagedFile(f"is no file of a checkpoint ({error})",
                                  where=str(folder / facts.name)) from None
        for name, boxes in self._boxes.items():
            if sum(piece.elements for _, piece in boxes) != prod(boxes[0][1].whole):
                raise DamagedFile(f"parts of {name} are missing", where=str(folder))

    @property
    def progress(self) -> Progress:
        """Where the run stood."""
        return self.manifest.progress

    @property
    def names(self) -> list[str]:
        """All tensors, sorted."""
        return sorted(self._boxes)

    def size(self, name: str) -> tuple[int, ...]:
        """Size of a whole tensor."""
        return self._boxes[name][0][1].whole

    def read(self, name: str, offset: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """The box of `size` at `offset` of a whole tensor, on the CPU."""
        wanted = Piece(name, self.size(name), tuple(offset), tuple(size))
        parts = [(file, piece, *common) for file, piece in self._boxes[name]
                 if (common := _common(piece, wanted)) is not None]
        if len(parts) == 1 and parts[0][3] == wanted.size:
            return shards.read(*parts[0])
        first = shards.read(*parts[0]) if parts else self._empty(name)
        whole = torch.empty(wanted.size, dtype=first.dtype)
        for place, (file, piece, begin, length) in enumerate(parts):
            box = tuple(slice(b - o, b - o + n)
                        for b, o, n in zip(begin, wanted.offset, length, strict=True))
            whole[box] = first if place == 0 else shards.read(file, piece, begin, length)
        return whole

    def _empty(self, name: str) -> torch.Tensor:
        """No elements, in the dtype of a tensor: what a rank reads that holds nothing of it."""
        file, piece = self._boxes[name][0]
        part: torch.Tensor = file.get_slice(name)[:0] if piece.size else file.get_tensor(name)
        return part


class Laid(Mapping[str, torch.Tensor]):
    """A checkpoint's tensors by name, each read when it is asked for, in the layout of `masters`.

    "KIND.NAME" of the size of master NAME comes as that master lies (a DTensor where it is one);
    all else (a step count, say) comes whole.
    """

    def __init__(self, stored: Stored, masters: Mapping[str, torch.Tensor]) -> None:
        self.stored, self.masters = stored, masters
        self._names = set(stored.names)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Raises DamagedFile where the checkpoint has no such tensor, or one of another size."""
        if name not in self._names:
            raise DamagedFile(f"the checkpoint has no {name}", where=str(self.stored.folder),
                              mend="resume from an earlier one")
        kind, _, bare = name.partition(".")
        size, like = self.stored.size(name), self.masters.get(bare)
        if like is not None and kind == "master" and size != tuple(like.shape):
            raise DamagedFile(f"{bare} has size {list(size)} there and {list(like.shape)} in this "
                              "run", where=str(self.stored.folder))
        if not isinstance(like, DTensor) or size != tuple(like.shape):
            return self.stored.read(name, (0,) * len(size), size)
        piece = piece_of(bare, like)
        part = self.stored.read(name, piece.offset, piece.size).to(like.device)
        return DTensor.from_local(part, like.device_mesh, like.placements, run_check=False,
                                  shape=like.shape, stride=like.stride())

    def get(self, name: str, default: Any = None) -> Any:
        """A tensor, or `default` where the checkpoint has none of that name."""
        return self[name] if name in self._names else default

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored.names)

    def __len__(self) -> int:
        return len(self._names)


def newest(root: Path, run: str, world: World | None = None,
           say: Callable[[str], None] | None = None) -> Stored | None:
    """The newest checkpoint of `run` in `root` that verifies, or None when there is none at all.

    Each that does not is named through `say`, and the one before it is tried. Collective: ranks
    share the work of hashing. Raises DamagedFile when checkpoints exist and none can be used: a
    run never starts anew unasked.
    """
    world = world or World()
    if world.main and root.is_dir():
        manifest.sweep(root)
    trouble: list[str] = []
    for name in world.from_main([p.name for p in reversed(manifest.complete(root))]):
        stored, complaint = None, ""
        try:
            content = manifest.read(root / name, run)
            manifest.check(root / name, content.files[world.rank::world.size])
            stored = Stored(root / name, content)
        except DamagedFile as error:
            complaint = f"{error.where}: {error.what}"
        complaints = [told for told in world.everybody(complaint) if told]
        if not complaints:
            return stored
        trouble.append(complaints[0])
        if say is not None:
            say(f"damaged checkpoint {name}, trying the one before it: {complaints[0]}")
    if trouble:
        raise DamagedFile("no checkpoint of this run can be used: " + "; ".join(trouble),
                          where=str(root), mend="restore one from a copy, or delete the folder "
                          "to train from the start")
    return None


def verify(folder: Path, run: str) -> Manifest:
    """Checks all files of one checkpoint of `run`; raises DamagedFile naming the bad one."""
    content = manifest.read(folder, run)
    manifest.check(folder, content.files)
    return content


def _common(one: Piece, other: Piece) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where two boxes overlap: offset in the whole, and size; None where they do not."""
    begin, size = [], []
    for a, m, b, n in zip(one.offset, one.size, other.offset, other.size, strict=True):
        first, last = max(a, b), min(a + m, b + n)
        if first >= last:
            return None
        begin.append(first)
        size.append(last - first)
    return tuple(begin), tuple(size)
