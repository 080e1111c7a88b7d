"""Which part of each tensor lies on this rank, and which of those that hold a part writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch.distributed.tensor import DTensor

from curbcut.train.norm import local
from curbcut.train.world import World


@dataclass(frozen=True)
class Piece:
    """A box of a tensor: where it begins in the whole, and how far it goes. All in elements."""

    name: str
    whole: tuple[int, ...]
    """Size of the whole tensor."""
    offset: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Elements in the box; 0 where this rank holds nothing of the tensor."""
        return prod(self.size)


def piece_of(name: str, tensor: torch.Tensor) -> Piece:
    """The part of `tensor` on this rank: all of it unless it is a DTensor."""
    whole = tuple(tensor.shape)
    if not isinstance(tensor, DTensor):
        return Piece(name, whole, (0,) * len(whole), whole)
    # Private, and what torch's own distributed checkpoint asks: only it knows where the shards of
    # a dim lie that is cut along two axes (FSDP on top of tensor parallelism).
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    size, offset = compute_local_shape_and_global_offset(whole, tensor.device_mesh,
                                                         tensor.placements)
    return Piece(name, whole, tuple(offset), tuple(size))


def pieces(tensors: Mapping[str, torch.Tensor]) -> list[Piece]:
    """This rank's part of each tensor; what it holds nothing of is left out."""
    found = (piece_of(name, tensor) for name, tensor in tensors.items())
    return [piece for piece in found if piece.elements]


def dealt(held: Iterable[Piece], itemsize: Mapping[str, int], world: World) -> set[str]:
    """Names of the pieces that this rank writes: each is written by one of its holders, so that
    ranks write about as many bytes. Collective.
    """
    held = list(held)
    if world.alone:
        return {piece.name for piece in held}
    mine = [[piece.name, list(piece.offset), piece.elements * itemsize[piece.name]]
            for piece in held]
    holders: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    size: dict[tuple[str, tuple[int, ...]], int] = {}
    for rank, told in enumerate(world.everybody(mine)):
        for name, offset, length in told:
            key = (name, tuple(offset))
            holders.setdefault(key, []).append(rank)
            size[key] = length
    load = [0] * world.size
    chosen = set()
    # Those with one holder first: the others then even out what these leave uneven.
    for key in sorted(holders, key=lambda k: (len(holders[k]) > 1, -size[k], k)):
        writer = min(holders[key], key=lambda rank: (load[rank], rank))
        load[writer] += size[key]
        if writer == world.rank:
            chosen.add(key[0])
    return chosen


def on_rank(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a piece, on the device where they are."""
    found = local(tensor.detach())
    # A collective that has not been waited for would be copied as it stands.
    wait = getattr(found, "wait", None)
    return wait() if callable(wait) else found
