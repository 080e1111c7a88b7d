"""Collectives on plain tensors that autograd and torch.compile see through.

Each is finished before its result is handed on. torch's own functional collectives hand out a
tensor that waits when it is first touched: where such a tensor enters a compiled region, the
gradient of whatever made it is lost without an error (`compiled`). Groups go by their name, so
that a module that keeps one can be copied and compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_wire = torch.ops._c10d_functional
"""The operators under `torch.distributed._functional_collectives`: named as torch.compile names
them, without its tensor that waits."""


def summed(x: Tensor, group: str, how: str = "sum") -> Tensor:
    """`x` added up over the ranks of `group` (or "max"), on each; no gradient."""
    done: Tensor = _wire.wait_tensor(_wire.all_reduce(x.contiguous(), how, group))
    return done


def gathered(x: Tensor, group: str, size: int) -> Tensor:
    """`x` [n, ...] of the `size` ranks one below the other, [size * n, ...]; no gradient."""
    done: Tensor = _wire.wait_tensor(_wire.all_gather_into_tensor(x.contiguous(), size, group))
    return done


def scattered(x: Tensor, group: str, size: int) -> Tensor:
    """The sum over ranks of `x` [size * n, ...], of which each gets its [n, ...]; no gradient."""
    done: Tensor = _wire.wait_tensor(
        _wire.reduce_scatter_tensor(x.contiguous(), "sum", size, group))
    return done


def exchanged(x: Tensor, group: str) -> Tensor:
    """`x` [ranks, ...]: part i goes to rank i, and part i of the result came from it; no gradient.
    """
    each = [1] * x.shape[0]
    done: Tensor = _wire.wait_tensor(_wire.all_to_all_single(x.contiguous(), each, each, group))
    return done


def _gather_tokens(x: Tensor, group: str, size: int) -> Tensor:
    """[b, s / size, width] -> [b, s, width]."""
    b, s, width = x.shape
    parts = gathered(x, group, size).view(size, b, s, width)
    return parts.transpose(0, 1).reshape(b, size * s, width)


def _scatter_tokens(x: Tensor, group: str, size: int) -> Tensor:
    """[b, s, width] of each rank -> this rank's [b, s / size, width] of their sum."""
    b, s, width = x.shape
    parts = x.view(b, size, s // size, width).transpose(0, 1)
    return scattered(parts.reshape(size * b, s // size, width), group, size)


class _SumGradient(torch.autograd.Function):
    """See `sum_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return summed(grads[0], ctx.group), None


class _Sum(torch.autograd.Function):
    """See `sum_over`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        return summed(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _GatherTokens(torch.autograd.Function):
    """See `gather_tokens`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str, size: int) -> Tensor:
        ctx.group, ctx.size = group, size
        return _gather_tokens(x, group, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _scatter_tokens(grads[0], ctx.group, ctx.size), None, None


class _ScatterTokens(torch.autograd.Function):
    """See `scatter_tokens`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str, size: int) -> Tensor:
        ctx.group, ctx.size = group, size
        return _scatter_tokens(x, group, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _gather_tokens(grads[0], ctx.group, ctx.size), None, None


class _Exchange(torch.autograd.Function):
    """See `exchange`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return exchanged(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return exchanged(grads[0], ctx.group), None


def sum_gradient(x: Tensor, group: str) -> Tensor:
    """`x`, the same on all ranks; its gradient is the sum of theirs ("f" of arXiv:1909.08053)."""
    out: Tensor = _SumGradient.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def sum_over(x: Tensor, group: str) -> Tensor:
    """The sum of the ranks' `x`, on each; its gradient is theirs as it is ("g", the same paper)."""
    out: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return out


def gather_tokens(x: Tensor, group: str, size: int) -> Tensor:
    """[b, s / size, width] of each rank -> [b, s, width]; gradients are summed and scattered."""
    out: Tensor = _GatherTokens.apply(x, group, size)  # type: ignore[no-untyped-call]
    return out


def scatter_tokens(x: Tensor, group: str, size: int) -> Tensor:
    """The ranks' [b, s, width] summed -> this rank's [b, s / size, width] (arXiv:2205.05198)."""
    out: Tensor = _ScatterTokens.apply(x, group, size)  # type: ignore[no-untyped-call]
    return out


def exchange(x: Tensor, group: str) -> Tensor:
    """`x` [ranks, ...]: part i to rank i, and part i of the result is from rank i."""
    out: Tensor = _Exchange.apply(x, group)  # type: ignore[no-untyped-call]
    return out
