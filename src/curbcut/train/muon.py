"""Muon on any layout: momentum, orthogonalised, for the matrices inside the blocks.

Newton-Schulz iterations need a matrix whole. Matrices that are whole on a rank, and stacks of
experts that are dealt out among ranks, are turned where they lie. Of equal matrices that ranks
share along one dim, each rank gathers one, turns it and gives the parts back, so the work is shared
too (two all-to-alls). What is shared along two dims is gathered by every rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""
TO_ADAMW = 0.2
"""Root mean square of AdamW's usual update, which Muon's is scaled to (arXiv:2502.16982)."""
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Moves this rank's parts of `masters`; nesterov momentum, decoupled weight decay.

    Updates are scaled to AdamW's root mean square (0.2 sqrt(max(m, n)), Liu et al. 2025, arXiv
    2502.16982), so that both share one learning rate. `masters` tells for each parameter (a local
    part) how it is spread; iterations run in `dtype`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], masters: Mapping[Tensor, Tensor],
                 dtype: torch.dtype = torch.bfloat16, momentum: float = MOMENTUM) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})
        self.masters, self.dtype = masters, dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            updates = [self._momentum(p, group["momentum"]) for p in moved]
            turned = orthogonalised(updates, [self.masters[p] for p in moved])
            for parameter, update in zip(moved, turned, strict=True):
                rows, columns = self.masters[parameter].shape[-2:]
                scale = TO_ADAMW * math.sqrt(max(rows, columns))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's look ahead, in the dtype of the iterations."""
        grad = parameter.grad
        assert grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum).to(self.dtype)


def newton_schulz(matrix: Tensor) -> Tensor:
    """[..., m, n] -> nearly U V' of its singular value decomposition, in the dtype given.

    Singular values come out between about 0.7 and 1.2 (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(STEPS):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def orthogonalised(updates: Sequence[Tensor], masters: Sequence[Tensor]) -> list[Tensor]:
    """This rank's parts of the orthogonalised updates; collective where masters are shared.

    `updates` are local parts, `masters` say how each is spread (plain: whole on this rank).
    """
    done: dict[int, Tensor] = {}
    shared: dict[tuple[Any, ...], list[int]] = {}
    for index, (update, master) in enumerate(zip(updates, masters, strict=True)):
        if not isinstance(master, DTensor) or not _cut(master):
            done[index] = newton_schulz(update)
        elif _one_dim(master) is not None:
            key = (id(master.device_mesh), master.placements, tuple(master.shape))
            shared.setdefault(key, []).append(index)
        else:
            done[index] = _gathered(update, master)
    for indices in shared.values():
        master = masters[indices[0]]
        assert isinstance(master, DTensor)
        size = _group(master).size()
        for start in range(0, len(indices), size):
            some = indices[start:start + size]
            parts = _dealt([updates[index] for index in some], master)
            done.update(zip(some, parts, strict=True))
    return [done[index] for index in range(len(updates))]


def _cut(master: DTensor) -> bool:
    """Whether a rank holds less than whole matrices: stacks may be shared along their first dim."""
    return any(not p.is_replicate() and (master.ndim == 2 or p.dim > 0)  # type: ignore[attr-defined]
               for p in master.placements)


def _one_dim(master: DTensor) -> int | None:
    """The mesh axis along which a matrix is shared, if it is plainly and by one axis only."""
    # A strided shard (of FSDP over tensor parallelism) says is_shard() = False.
    axes = [axis for axis, placement in enumerate(master.placements)
            if not placement.is_replicate()]
    plain = master.ndim == 2 and len(axes) == 1 and type(master.placements[axes[0]]) is Shard
    return axes[0] if plain else None


def _group(master: DTensor) -> dist.ProcessGroup:
    axis = _one_dim(master)
    assert axis is not None
    return master.device_mesh.get_group(axis)


def _dealt(parts: Sequence[Tensor], master: DTensor) -> list[Tensor]:
    """Up to one matrix a rank: gathered, turned and given back part by part."""
    group, axis = _group(master), _one_dim(master)
    assert axis is not None
    place, size = dist.get_rank(group), group.size()
    across = master.placements[axis].is_shard(1)
    flat = [(part.mT if across else part).contiguous() for part in parts]
    rows, columns = tuple(master.shape[::-1] if across else master.shape)
    each = -(-rows // size)  # torch.chunk's way of cutting
    lengths = [max(0, min(each, rows - rank * each)) * columns for rank in range(size)]
    given = [flat[rank].numel() if rank < len(flat) else 0 for rank in range(size)]
    taken = lengths if place < len(flat) else [0] * size
    whole = flat[0].new_empty(sum(taken))
    dist.all_to_all_single(whole, torch.cat([part.flatten() for part in flat]), taken, given, group)
    if place < len(flat):
        matrix = whole.view(rows, columns)
        whole = newton_schulz(matrix.mT if across else matrix)
        whole = (whole.mT if across else whole).flatten()
    back = flat[0].new_empty(sum(given))
    dist.all_to_all_single(back, whole.contiguous(), given, taken, group)
    turned = torch.split(back, given[:len(flat)])
    return [(one.view_as(part).mT if across else one.view_as(part))
            for one, part in zip(turned, flat, strict=True)]


def _gathered(update: Tensor, master: DTensor) -> Tensor:
    """The part of a matrix that every rank gathers and turns."""
    spread = DTensor.from_local(update, master.device_mesh, master.placements, run_check=False,
                                shape=master.shape, stride=master.stride())
    turned = newton_schulz(spread.full_tensor())
    again = distribute_tensor(turned, master.device_mesh, master.placements, src_data_rank=None)
    return again.to_local()
