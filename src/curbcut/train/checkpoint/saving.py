"""Saving with all ranks: complete and verified, or absent; at once or while training goes on.

A checkpoint is written aside. Each rank streams its own pieces into its own file, waits until it is
on the disk and reads it again; when all have, rank 0 writes the manifest, gives the folder its name
and only then prunes older ones. A crash at any instant leaves the previous one whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from curbcut.errors import CurbcutError, InputError
from curbcut.train import faults
from curbcut.train.checkpoint import manifest, shards
from curbcut.train.checkpoint.manifest import Manifest
from curbcut.train.checkpoint.pieces import Piece, dealt, on_rank, pieces
from curbcut.train.checkpoint.progress import Progress
from curbcut.train.world import World

SPARE = 1.05
"""Room asked for, over the bytes of the tensors."""
Held = Sequence[tuple[Piece, torch.Tensor]]


@dataclass
class Writing:
    """A checkpoint that is being written: this rank's part of it."""

    progress: Progress
    aside: Path
    facts: shards.Facts | None = None
    """What this rank wrote, once it is verified; None where it holds nothing."""
    error: Exception | None = None
    thread: threading.Thread | None = None

    @property
    def done(self) -> bool:
        """Whether this rank has nothing left to write."""
        return self.thread is None or not self.thread.is_alive()


@dataclass
class Saver:
    """Writes checkpoints of one run into `root` and keeps the newest `keep`. One a rank; all
    methods but `bytes` are collective.
    """

    root: Path
    run: str
    """`identity` of the run."""
    keep: int
    world: World
    _dealt: tuple[list[Piece], set[str]] = field(default_factory=lambda: ([], set()))
    _staging: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def staging_bytes(self) -> int:
        """Host memory that copies of the last background save take; kept for the next."""
        return sum(t.numel() * t.element_size() for t in self._staging.values())

    def save(self, progress: Progress, tensors: Mapping[str, torch.Tensor]) -> Path:
        """Writes and returns `root/step-N/`; raises InputError on all ranks when the disk refuses
        on any: what was there stays.
        """
        return self.commit(self.begin(progress, tensors))

    def begin(self, progress: Progress, tensors: Mapping[str, torch.Tensor], *,
              background: bool = False) -> Writing:
        """Writes this rank's file, or copies its tensors and lets a thread do it.

        Raises InputError where there is no room; other errors wait for `commit`.
        """
        held = self._held(tensors)
        needed = sum(self.world.sums([sum(t.numel() * t.element_size() for _, t in held)]))
        writing = Writing(progress, manifest.aside_folder(self.root, progress.step))
        self._reach("save: before aside", progress.step)
        self._everywhere(writing, lambda: self._make_room(writing.aside, needed))
        if background:
            held = self._staged(held)
            writing.thread = threading.Thread(target=self._write, args=(writing, held),
                                              name="checkpoint", daemon=True)
            writing.thread.start()
        else:
            self._write(writing, held)
        return writing

    def commit(self, writing: Writing) -> Path:
        """Waits for all ranks' files and makes them a checkpoint; see `save`."""
        if writing.thread is not None:
            writing.thread.join()
        if writing.error is not None and not isinstance(writing.error, (OSError, CurbcutError)):
            raise writing.error  # a fault of the program, not of the disk
        mine = asdict(writing.facts) if writing.facts else None
        told = self.world.everybody([mine, str(writing.error) if writing.error else ""])
        self._refuse(writing, [error for _, error in told])
        files = tuple(shards.Facts(**facts) for facts, _ in told if facts)
        final = manifest.step_folder(self.root, writing.progress.step)
        self._everywhere(writing, lambda: self._name(writing, files, final))
        return final

    def _held(self, tensors: Mapping[str, torch.Tensor]) -> Held:
        """What this rank writes. Who writes what is settled anew only when the tensors change."""
        mine = pieces(tensors)
        if self.world.most([float(mine != self._dealt[0])])[0]:
            sizes = {name: tensor.element_size() for name, tensor in tensors.items()}
            self._dealt = (mine, dealt(mine, sizes, self.world))
        return [(piece, on_rank(tensors[piece.name])) for piece in mine
                if piece.name in self._dealt[1]]

    def _staged(self, held: Held) -> Held:
        """Copies in host memory that stand still while training goes on."""
        copies = []
        for piece, tensor in held:
            kept = self._staging.get(piece.name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                kept = torch.empty(tensor.shape, dtype=tensor.dtype,
                                   pin_memory=tensor.device.type == "cuda")
                self._staging[piece.name] = kept
            kept.copy_(tensor, non_blocking=True)
            copies.append((piece, kept))
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        return copies

    def _make_room(self, aside: Path, needed: float) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        manifest.sweep(self.root)
        if manifest.free_bytes(self.root) < needed * SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        aside.mkdir()

    def _write(self, writing: Writing, held: Held) -> None:
        """Writes and verifies this rank's file; an error is kept for `commit`."""
        step = writing.progress.step
        try:
            if held:
                path = writing.aside / f"rank-{self.world.rank:05d}.safetensors"
                facts = shards.write(path, held, lambda point: self._reach(point, step))
                shards.check(path, held)
                writing.facts = facts
            self._reach("save: after shard", step)
        except Exception as error:
            writing.error = error

    def _name(self, writing: Writing, files: tuple[shards.Facts, ...], final: Path) -> None:
        """Rank 0 says what is there, gives it its name and prunes."""
        step = writing.progress.step
        for facts in files:
            if not (writing.aside / facts.name).exists():
                raise FileNotFoundError(errno.ENOENT, "not seen by rank 0: all nodes need one "
                                        "shared folder", facts.name)
        self._reach("save: before manifest", step)
        manifest.write(writing.aside, Manifest(self.run, writing.progress, self.world.size,
                                               dict(self.world.degrees), files))
        self._reach("save: before rename", step)
        manifest.put_in_place(writing.aside, final)
        self._reach("save: after rename", step)
        manifest.prune(self.root, self.keep, lambda point: self._reach(point, step))
        self._reach("save: done", step)

    def _everywhere(self, writing: Writing, work: Callable[[], None]) -> None:
        """Has rank 0 do something with files; all ranks raise where the disk refuses it."""
        told = ""
        if self.world.main:
            try:
                work()
            except OSError as error:
                told = str(error)
        self._refuse(writing, [self.world.from_main(told)])

    def _refuse(self, writing: Writing, errors: Sequence[str]) -> None:
        told = [(rank, error) for rank, error in enumerate(errors) if error]
        if not told:
            return
        if self.world.main:
            shutil.rmtree(writing.aside, ignore_errors=True)
        rank, error = told[0]
        whose = f"rank {rank}: " if len(errors) > 1 else ""
        found = manifest.complete(self.root)
        last = found[-1].name if found else "the start"
        raise InputError(
            f"the checkpoint of step {writing.progress.step} could not be written "
            f"({whose}{error})", where=str(self.root), mend="free space or mend the permissions, "
            f"then run the same command: it goes on from {last}")

    def _reach(self, point: str, step: int) -> None:
        faults.reach(point, self.world.rank, step)
