"""Weights in two precisions: what the matmuls read, and the fp32 masters the optimiser moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from curbcut.errors import InputError
from curbcut.spec import Precision

_DTYPE: dict[str, torch.dtype] = {
    "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
}


class Exchange(Protocol):
    """What a data-parallel method does with gradients and masters besides what autograd does."""

    def expect(self, *, last: bool) -> None:
        """Before a micro-batch's passes: whether it is the step's last one."""

    def reduce(self) -> None:
        """After the last one: masters' gradients become the mean over all data-parallel ranks."""

    def publish(self) -> None:
        """After an update: compute weights become the rounded masters, on all ranks."""


@dataclass(frozen=True)
class Weights:
    """Parameters of a model by name: `compute` (what forward reads) and `masters` (fp32).

    In fp32 both are the same tensors, so nothing is copied. Under FSDP both are the fp32 shards of
    this rank, which FSDP itself rounds as it gathers them.
    """

    compute: dict[str, nn.Parameter]
    masters: dict[str, nn.Parameter]
    exchange: Exchange | None = None
    """Set by the data-parallel method that needs it."""
    owners: int = 1
    """Ranks among which masters are dealt out whole (ZeRO-1)."""
    twice: tuple[str, ...] = ()
    """Masters that another pipeline stage holds too: the tied embedding."""

    @property
    def split(self) -> bool:
        """Whether masters are tensors of their own."""
        first = next(iter(self.masters))
        return self.compute[first] is not self.masters[first]


def dtype_of(precision: Precision) -> torch.dtype:
    """What the matmuls' weights are held in; InputError for a precision that is not run."""
    if precision not in _DTYPE:
        raise InputError(f"precision {precision!r} can be planned but not run by this version",
                         where="recipe.precision", mend="choose 'bf16' or 'fp32'")
    return _DTYPE[precision]


def split_weights(model: nn.Module, precision: Precision) -> Weights:
    """Casts `model` to the compute dtype of `precision` and keeps fp32 masters beside it.

    Raises InputError for a precision that this version plans but does not run.
    """
    dtype = dtype_of(precision)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if dtype == torch.float32:
        same = dict(model.named_parameters())
        return Weights(same, same)
    masters = {name: nn.Parameter(p.detach().float().clone())
               for name, p in model.named_parameters()}
    model.to(dtype)
    return Weights(dict(model.named_parameters()), masters)


def collect_gradients(weights: Weights, *, first: bool) -> None:
    """Adds the compute gradients into the fp32 masters' and frees them; `first` overwrites.

    Accumulation over micro-batches happens in fp32: bf16 has 8 bits of mantissa, and the small
    terms of a long sum would be lost.
    """
    if not weights.split:
        return
    sums, parts = [], []
    for name, parameter in weights.compute.items():
        if parameter.grad is None:
            continue
        master = weights.masters[name]
        if master.grad is None:
            master.grad = torch.empty_like(master)
        sums.append(master.grad)
        parts.append(parameter.grad)
    if first:
        torch._foreach_copy_(sums, parts)
    else:
        torch._foreach_add_(sums, [part.float() for part in parts])
    for parameter in weights.compute.values():
        parameter.grad = None


def expect(weights: Weights, *, last: bool) -> None:
    """Says before a micro-batch's passes whether it is the step's last one."""
    if weights.exchange is not None:
        weights.exchange.expect(last=last)


def reduce_gradients(weights: Weights) -> None:
    """Makes the masters' gradients the mean over all data-parallel ranks."""
    if weights.exchange is not None:
        weights.exchange.reduce()


def publish_masters(weights: Weights) -> None:
    """Copies the masters into the compute weights, rounding once."""
    if weights.exchange is not None:
        weights.exchange.publish()
    elif weights.split:
        with torch.no_grad():
            torch._foreach_copy_(list(weights.compute.values()), list(weights.masters.values()))
