"""Whole tensors from those that are spread over ranks, one at a time: for export and for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate

from curbcut.train.world import World

_DTYPES = {str(d): d for d in (torch.float32, torch.bfloat16, torch.float64, torch.float16)}


def whole(named: Mapping[str, torch.Tensor], world: World) -> Iterator[tuple[str, torch.Tensor]]:
    """Each name that any rank holds, once, with its whole tensor on the CPU of rank 0.

    Collective: all ranks must go through it to the end. Other ranks get empty tensors. Names come
    in the order of their sorted union.
    """
    if world.alone:
        for name, tensor in named.items():
            yield name, tensor.detach().cpu()
        return
    told = world.everybody({name: [list(tensor.shape), str(tensor.dtype)]
                            for name, tensor in named.items()})
    holders: dict[str, list[int]] = {}
    for rank, names in enumerate(told):
        for name in names:
            holders.setdefault(name, []).append(rank)
    for name in sorted(holders):
        mine = named.get(name)
        full = torch.empty(0)
        if mine is not None:
            full = _full(mine).detach().cpu()
        first = holders[name][0]
        if first != 0:
            size, dtype = told[first][name]
            if world.rank == first:
                dist.send(full.contiguous(), 0)
            elif world.main:
                full = torch.empty(size, dtype=_DTYPES[dtype])
                dist.recv(full, first)
        yield name, full if world.main else torch.empty(0)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, on every rank that holds a part of it; collective among those.

    One axis of the mesh after another: asked for all at once, torch does the same and warns of it
    on every rank where a dimension is cut twice (FSDP over tensor parallelism).
    """
    if not isinstance(tensor, DTensor):
        return tensor
    placements = list(tensor.placements)
    for axis, placement in enumerate(placements):
        if not placement.is_replicate():
            placements[axis] = Replicate()
            tensor = tensor.redistribute(placements=placements)
    return tensor.to_local()
