"""Checkpoints without a run: a few tensors, saved and read back."""

from __future__ import annotations

import torch

from curbcut.train import checkpoint
from curbcut.train.world import World

RUN = "a" * 64


def progress(step=3, **changes):
    plain = {"step": step, "tokens": 32 * step, "recent_losses": (2.5, 2.25), "skips_in_a_row": 1,
             "seconds": {"steps": 1.5}, "joules": None, "threads": 2}
    return checkpoint.Progress(**(plain | changes))


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"master.a": torch.randn(64, 32, generator=generator),
            "master.b": torch.randn(7, generator=generator).bfloat16(),
            "step.a": torch.tensor(3.0), "codes.a": torch.arange(5, dtype=torch.uint8)}


def saver(root, keep=2, run=RUN):
    return checkpoint.Saver(root, run, keep, World())


def whole(stored):
    return {name: stored.read(name, (0,) * len(stored.size(name)), stored.size(name))
            for name in stored.names}


def names(root):
    return sorted(path.name for path in root.iterdir())
