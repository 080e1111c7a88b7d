"""The norm of a gradient that is spread over ranks, and clipping to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from curbcut.train.world import World


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies on this rank; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def copies(tensor: torch.Tensor, world: World, owners: int = 1) -> int:
    """Ranks that hold the very same elements of a master: its squares are counted once in all.

    `owners`: ranks among which masters are dealt out whole (ZeRO-1). A pipeline stage's weights
    are on that stage alone.
    """
    held = world.size // world.degree("pp") // owners
    if isinstance(tensor, DTensor):
        for axis, placement in enumerate(tensor.placements):
            if not placement.is_replicate():  # FSDP's strided shards say is_shard() = False
                held //= tensor.device_mesh.size(axis)
    return held


def square_sum(masters: Mapping[str, nn.Parameter], world: World, owners: int,
               twice: Iterable[str] = ()) -> float:
    """This rank's part of the squared gradient norm: parts of all ranks add up to the whole.

    `twice` names masters that another stage holds too (a tied embedding on a pipeline).
    """
    doubled, total = set(twice), 0.0
    by_copies: dict[int, list[torch.Tensor]] = {}
    for name, master in masters.items():
        if master.grad is not None:
            count = copies(master, world, owners) * (2 if name in doubled else 1)
            by_copies.setdefault(count, []).append(local(master.grad))
    for count, grads in by_copies.items():
        norms = torch._foreach_norm(grads, 2.0)
        total += float(torch.stack([n.double() for n in norms]).square().sum()) / count
    return total


def scale(masters: Mapping[str, nn.Parameter], norm: float, limit: float) -> None:
    """Scales gradients so that their norm is at most `limit` (0 for no limit)."""
    if not limit or not norm > limit:
        return
    grads = [local(m.grad) for m in masters.values() if m.grad is not None]
    torch._foreach_mul_(grads, limit / (norm + 1e-6))
