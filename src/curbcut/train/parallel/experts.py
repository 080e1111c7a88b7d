"""Expert parallelism: each rank holds some experts of every layer, and tokens travel to them.

Rows sorted by expert are sorted by rank as well, so a rank hands each other one piece of them: one
exchange of counts, one of rows, and after the matmuls one back (GShard, arXiv:2006.16668). Backward
the rows' gradients go the same ways. Nothing is padded and no token is dropped.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from curbcut.model.decoder import Decoder
from curbcut.model.experts import Experts, sparse
from curbcut.spec import Recipe
from curbcut.train.norm import local
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its experts spread over the ranks of "ep" and its balance loss weighed.

    Each rank's micro-batches are a share of 1 / accumulation of its gradient, and data parallelism
    takes the mean over ranks; ranks that share sequences count their tokens together, and
    tensor-parallel ranks, which all say the same, add up the router's gradients.
    """
    for _, layer in sparse(model):
        layer.gate.balance = recipe.balance_loss / recipe.accumulation / recipe.tp
        group = world.group("cp")
        if group is not None:
            layer.gate.together = partial(_summed, group=group)
        if world.degree("ep") > 1:
            _spread(layer.experts, world)
            layer.meet = partial(_meet_elsewhere, world=world)
    return model


def shard(model: Decoder, world: World, **options: Any) -> None:
    """FSDP of the experts alone, before that of the blocks they are in: over the ranks that hold
    the same experts. `options` are those of `fully_shard`, without `mesh`.
    """
    if world.degree("ep") == 1:
        return
    mesh = (world.axis("dp_replicate", "expert_shares") if world.degree("dp_replicate") > 1
            else world.axis("expert_shares"))
    for _, layer in sparse(model):
        fully_shard(layer.experts, mesh=mesh,
                    shard_placement_fn=partial(_cut, world.degree("expert_shares")), **options)


def _cut(shares: int, parameter: nn.Parameter) -> Shard:
    """Along the inside of each expert where that is even: whole experts are spread already."""
    return Shard(next((dim for dim in (1, 2) if parameter.shape[dim] % shares == 0), 0))


def _spread(experts: Experts, world: World) -> None:
    """Makes this rank's experts of each stack, still without memory, its parameters."""
    mesh, count = world.axis("ep"), world.degree("ep")
    for name, whole in list(experts.named_parameters()):
        mine = whole.new_empty((whole.shape[0] // count, *whole.shape[1:]))
        piece = DTensor.from_local(mine, mesh, [Shard(0)], run_check=False)
        experts.register_parameter(name, nn.Parameter(piece))
    experts.own = partial(_own, share=1 / count)


class _Share(torch.autograd.Function):
    """Hands a weight through; its gradient is multiplied by `share` on the way back."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, share: float) -> torch.Tensor:
        ctx.share = share
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0] * ctx.share, None


def _own(weight: torch.Tensor, share: float) -> torch.Tensor:
    """The experts of this rank. They see the tokens of all ep ranks, so their gradient is those
    ranks' sum already where data parallelism wants the mean: FSDP divides by the others only.
    (FSDP's own divide factor is not used: with one share it is applied twice in torch 2.13.)
    """
    out: torch.Tensor = _Share.apply(local(weight), share)  # type: ignore[no-untyped-call]
    return out


def _summed(counts: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Counts over the ranks of a group, a new tensor."""
    total = counts.clone()
    dist.all_reduce(total, group=group)
    return total


def _meet_elsewhere(experts: Experts, rows: torch.Tensor, counts: torch.Tensor,
                    world: World) -> torch.Tensor:
    """See `model.experts.Meet`: rows meet their experts on the ranks that hold them."""
    group = world.group("ep")
    assert group is not None
    sent = counts.view(world.degree("ep"), -1)
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent.contiguous(), group=group)
    away, here = sent.sum(1).tolist(), got.sum(1).tolist()
    rows = exchange(rows, away, here, group)
    # What came is sorted by rank, then expert; an expert wants its rows of all ranks together.
    expert = torch.arange(got.shape[1], device=rows.device).repeat(got.shape[0])
    order = expert.repeat_interleave(got.flatten()).argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    rows = experts(_ordered(rows, order, inverse), got.sum(0))
    return exchange(_ordered(rows, inverse, order), here, away, group)


class _Exchange(torch.autograd.Function):
    """See `exchange`."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, away: list[int], here: list[int],
                group: dist.ProcessGroup) -> torch.Tensor:
        ctx.away, ctx.here, ctx.group = away, here, group
        return _exchanged(rows, away, here, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _exchanged(grads[0], ctx.here, ctx.away, ctx.group), None, None, None


def _exchanged(rows: torch.Tensor, away: list[int], here: list[int],
               group: dist.ProcessGroup) -> torch.Tensor:
    out = rows.new_empty(sum(here), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), here, away, group=group)
    return out


def exchange(rows: torch.Tensor, away: list[int], here: list[int],
             group: dist.ProcessGroup) -> torch.Tensor:
    """rows [sum(away), width], a piece for each rank of `group` in order -> [sum(here), width]."""
    out: torch.Tensor = _Exchange.apply(  # type: ignore[no-untyped-call]
        rows, away, here, group)
    return out


class _Ordered(torch.autograd.Function):
    """Rows in another order; the way back is a gather too, never a sum."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, order: torch.Tensor,
                inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def _ordered(rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Ordered.apply(  # type: ignore[no-untyped-call]
        rows, order, inverse)
    return out
