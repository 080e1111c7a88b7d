"""The ranks of a run: who this process is among them, and how they are laid out.

We say *axis* for a dimension of the layout of ranks and *dim* for one of a tensor. Ranks are laid
out with pipeline stages outermost and tensor-parallel ranks innermost, so that those who talk most
are neighbours. Two meshes of the same ranks are used:

    dense    ("pp", "dp_replicate", "shares", "tp")           shares = dp_shard x cp
    sparse   ("pp", "dp_replicate", "expert_shares", "ep", "tp")   expert_shares x ep = shares

Context-parallel ranks share states as data-parallel ones do, and experts are spread within them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from curbcut.errors import InputError
from curbcut.spec import Recipe

DENSE = ("pp", "dp_replicate", "shares", "tp")
SPARSE = ("pp", "dp_replicate", "expert_shares", "ep", "tp")
TIMEOUT_SECONDS = 600.0
"""How long a rank waits for another in one collective before it gives up."""


@dataclass(frozen=True)
class World:
    """This process among the ranks of its run. Without arguments: one process alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank within its node."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    degrees: Mapping[str, int] = field(default_factory=dict)
    """Recipe degrees by name: dp_replicate, dp_shard, tp, pp, cp, ep."""
    mesh: DeviceMesh | None = None
    """The dense mesh; None alone."""
    sparse: DeviceMesh | None = None
    """The sparse mesh; None where no expert is spread."""
    cp_group: dist.ProcessGroup | None = None
    """The ranks that share this rank's sequences; None where sequences are whole."""

    @property
    def alone(self) -> bool:
        """Whether there are no other ranks."""
        return self.size == 1

    @property
    def main(self) -> bool:
        """Whether this rank keeps the run's record and talks to people."""
        return self.rank == 0

    def degree(self, axis: str) -> int:
        """Ranks along an axis: a degree of the recipe, or one of the meshes."""
        if axis == "shares":
            return self.degree("dp_shard") * self.degree("cp")
        if axis == "expert_shares":
            return self.degree("shares") // self.degree("ep")
        return self.degrees.get(axis, 1)

    def coordinate(self, axis: str) -> int:
        """This rank's place along an axis, from 0."""
        place = self.rank
        inner = {"tp": (), "cp": ("tp",), "dp_shard": ("tp", "cp"), "shares": ("tp",),
                 "dp_replicate": ("tp", "shares"), "pp": ("tp", "shares", "dp_replicate"),
                 "ep": ("tp",), "expert_shares": ("tp", "ep")}[axis]
        for one in inner:
            place //= self.degree(one)
        return place % self.degree(axis)

    @property
    def data_ranks(self) -> int:
        """Groups of ranks that read different sequences."""
        return self.degree("dp_replicate") * self.degree("dp_shard")

    @property
    def data_rank(self) -> int:
        """Which of them this rank is in."""
        return (self.coordinate("dp_replicate") * self.degree("dp_shard")
                + self.coordinate("dp_shard"))

    def group(self, axis: str) -> dist.ProcessGroup | None:
        """The ranks along an axis of either mesh, or "cp"; None where there is one only."""
        if self.degree(axis) == 1:
            return None
        if axis == "cp":
            return self.cp_group
        mesh = self.sparse if axis in ("ep", "expert_shares") else self.mesh
        assert mesh is not None
        return mesh.get_group(axis)

    def axis(self, *names: str) -> DeviceMesh:
        """The part of the mesh along `names` (of one mesh, in its order)."""
        mesh = self.sparse if set(names) & {"ep", "expert_shares"} else self.mesh
        assert mesh is not None
        return mesh[names if len(names) > 1 else names[0]]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of a few numbers over all ranks, in fp64 on the CPU; the same on each."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each number over all ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        if self.alone:
            return [float(value) for value in values]
        # Backends are "cpu:gloo,cuda:nccl": small words among ranks never wait for a GPU.
        told = torch.tensor(list(values), dtype=torch.float64)
        with _waiting():
            dist.all_reduce(told, op=how)
        return told.tolist()

    def everybody(self, value: Any) -> list[Any]:
        """One small plain value of each rank, in rank order (JSON-like values only)."""
        if self.alone:
            return [value]
        with _waiting():
            return _exchanged(value, self.size)

    def from_main(self, value: Any) -> Any:
        """What rank 0 passed; the others' argument is not looked at."""
        return self.everybody(value if self.main else None)[0]

    def barrier(self) -> None:
        """Waits for all ranks."""
        if not self.alone:
            self.sums([0.0])


_waits = 0


def waits() -> bool:
    """Whether this process is in an agreement, waiting for the others: not the one that hangs."""
    return _waits > 0


@contextmanager
def _waiting() -> Iterator[None]:
    global _waits
    _waits += 1
    try:
        yield
    finally:
        _waits -= 1


def _exchanged(value: Any, size: int) -> list[Any]:
    """All ranks' values as JSON text in tensors: object collectives would pickle them."""
    import json

    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([text.numel()], dtype=torch.int64))
    longest = max(int(length) for length in lengths)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[:text.numel()] = text
    parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(parts, padded)
    return [json.loads(bytes(part[:int(length)].tolist()))
            for part, length in zip(parts, lengths, strict=True)]


def degrees_of(recipe: Recipe) -> dict[str, int]:
    """The degrees of a recipe by name."""
    return {name: getattr(recipe, name)
            for name in ("pp", "dp_replicate", "dp_shard", "cp", "tp", "ep")}


def join(recipe: Recipe, device: torch.device, rank: int, size: int, local_rank: int,
         store: Any = None, timeout_seconds: float = TIMEOUT_SECONDS) -> World:
    """Meets the other ranks and lays them out as `recipe` says; collective.

    `store` is where the ranks find each other (None: the process group stands already). Raises
    InputError where the processes are not as many as the recipe's ranks.
    """
    if recipe.ranks != size:
        raise InputError(f"the recipe is for {recipe.ranks} ranks and {size} were started",
                         where="recipe", mend=f"start {recipe.ranks} processes, or let "
                         "`curbcut train` start them")
    if size == 1:
        return World(device=device)
    if store is not None:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size,
                                timeout=timedelta(seconds=timeout_seconds))
    degrees = degrees_of(recipe)
    plain = World(rank, size, local_rank, device, degrees)
    mesh = init_device_mesh(device.type, tuple(plain.degree(axis) for axis in DENSE),
                            mesh_dim_names=DENSE)
    sparse = None
    if recipe.ep > 1:
        sparse = init_device_mesh(device.type, tuple(plain.degree(axis) for axis in SPARSE),
                                  mesh_dim_names=SPARSE)
    return World(rank, size, local_rank, device, degrees, mesh, sparse, _cp_group(plain))


def _cp_group(world: World) -> dist.ProcessGroup | None:
    """The group of this rank's context-parallel neighbours; every rank makes all of them."""
    cp, tp = world.degree("cp"), world.degree("tp")
    if cp == 1:
        return None
    mine = None
    for first in range(0, world.size, cp * tp):
        for lane in range(tp):
            ranks = [first + lane + place * tp for place in range(cp)]
            group = dist.new_group(ranks)
            if world.rank in ranks:
                mine = group
    return mine


def leave(world: World) -> None:
    """Ends the process group."""
    if not world.alone and dist.is_initialized():
        dist.destroy_process_group()
