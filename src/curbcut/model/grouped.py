"""Rows in groups: moved to their groups and back, and each group multiplied by its own matrix.

All gradients are gathers and matmuls: nothing is added up in an order that may change.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNED = 8
"""16-bit elements in the 16 bytes that the library's grouped kernel wants rows to begin at."""


class _GroupedLinear(torch.autograd.Function):
    """See `grouped_linear`: one matmul a group, each written into its part of the result."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.sizes = sizes
        out = rows.new_empty(rows.shape[0], weight.shape[1])
        for one, part, target in zip(weight.unbind(), torch.split(rows, sizes),
                                     torch.split(out, sizes), strict=True):
            if len(part):
                torch.mm(part, one.T, out=target)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_rows, grad_weight = torch.empty_like(rows), torch.empty_like(weight)
        cut = [torch.split(one, ctx.sizes) for one in (rows, grad, grad_rows)]
        parts = zip(weight.unbind(), *cut, grad_weight.unbind(), strict=True)
        for one, part, slope, to_rows, to_weight in parts:
            if not len(part):
                to_weight.zero_()
                continue
            torch.mm(slope, one, out=to_rows)
            torch.mm(slope.T, part, out=to_weight)
        return grad_rows, grad_weight, None


def grouped_linear(rows: Tensor, weight: Tensor, counts: Tensor, sizes: list[int] | None) -> Tensor:
    """rows [m, inner] sorted by group, weight [groups, outer, inner], counts [groups] that sum to
    m -> [m, outer]. `sizes` are the counts as plain numbers, None where `fused` said so.
    """
    if sizes is None:
        ends = counts.cumsum(0).to(torch.int32)
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    out: Tensor = _GroupedLinear.apply(rows, weight, sizes)  # type: ignore[no-untyped-call]
    return out


def fused(rows: Tensor, weight: Tensor) -> bool:
    """Whether the library's one kernel for all groups is right here: bf16 on CUDA from SM 8.0 on,
    rows that begin at 16 bytes. On a CPU it is a loop as well (equal time: 8 groups of 512 rows,
    256 to 704, 14.2 against 14.5 ms in bf16, 26.3 against 27.3 ms in fp32, 2 threads).
    """
    return (rows.is_cuda and rows.dtype == weight.dtype == torch.bfloat16 and len(rows) > 0
            and hasattr(F, "grouped_mm") and torch.cuda.get_device_capability() >= (8, 0)
            and rows.shape[1] % ALIGNED == 0 and weight.shape[1] % ALIGNED == 0)


class _Spread(torch.autograd.Function):
    """See `spread`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.tokens = x.shape[0]
        return x.index_select(0, order // (len(order) // max(x.shape[0], 1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        grad = grads[0]
        return grad[inverse].view(ctx.tokens, -1, grad.shape[1]).sum(1), None, None


def spread(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Each row of x [n, width] k times, in the `order` [n * k] of places (token * k + slot);
    `inverse` [n * k] says where a place went.
    """
    out: Tensor = _Spread.apply(x, order, inverse)  # type: ignore[no-untyped-call]
    return out


class _Mix(torch.autograd.Function):
    """See `mix`. Keeps the rows as they came, not in the order of tokens."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, order: Tensor,
                inverse: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights, order, inverse)
        wide = torch.promote_types(rows.dtype, torch.float32)
        out = torch.zeros(weights.shape[0], rows.shape[1], dtype=wide, device=rows.device)
        for slot, places in enumerate(inverse.view(weights.shape).unbind(1)):
            out.addcmul_(rows.index_select(0, places).to(wide), weights[:, slot, None].to(wide))
        return out.to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, weights, order, inverse = ctx.saved_tensors
        grad = grads[0]
        tokens = order // max(weights.shape[1], 1)
        grad_rows = grad.index_select(0, tokens)
        slopes = [(rows.index_select(0, places) * grad).sum(-1, dtype=weights.dtype)
                  for places in inverse.view(weights.shape).unbind(1)]
        grad_rows *= weights.flatten()[order].to(grad_rows.dtype)[:, None]
        return grad_rows, torch.stack(slopes, 1), None, None


def mix(rows: Tensor, weights: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """The reverse of `spread`, weighted: rows [n * k, width] in `order`, weights [n, k] ->
    [n, width], the sum over each token's k rows, taken in fp32.
    """
    out: Tensor = _Mix.apply(rows, weights, order, inverse)  # type: ignore[no-untyped-call]
    return out
