"""Weights in two precisions: what the matmuls read, and the fp32 masters the optimiser moves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from curbcut.errors import InputError
from curbcut.spec import Precision
from curbcut.train.norm import local
from curbcut.train.sums import Sums, settled

_DTYPE: dict[str, torch.dtype] = {
    "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
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
    sums: Sums = field(default_factory=Sums)
    """Where split weights add up gradients."""

    @property
    def resting(self) -> bool:
        """Whether masters are in host memory and compute weights on a GPU."""
        return any(master.device != self.compute[name].device
                   for name, master in self.masters.items())

    @property
    def split(self) -> bool:
        """Whether masters are tensors of their own."""
        return any(self.compute[name] is not master for name, master in self.masters.items())


def dtype_of(precision: Precision) -> torch.dtype:
    """What the matmuls' weights are held in; InputError for a precision that is not run."""
    if precision not in _DTYPE:
        raise InputError(f"precision {precision!r} can be planned but not run by this version",
                         where="recipe.precision", mend="choose 'bf16' or 'fp32'")
    return _DTYPE[precision]


def split_weights(model: nn.Module, precision: Precision,
                  owned: Collection[str] | None = None, *, resting: bool = False) -> Weights:
    """Casts `model` to the compute dtype of `precision` and keeps fp32 masters beside it: of the
    names in `owned`, or of all; in host memory, and so the optimiser's states, where `resting`.

    Raises InputError for a precision that this version plans but does not run.
    """
    dtype = dtype_of(precision)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    shared = any(isinstance(one, FSDPModule) for one in model.modules())
    if shared or (dtype == torch.float32 and not resting):
        same = dict(model.named_parameters())
        return Weights(same, {n: p for n, p in same.items() if owned is None or n in owned})
    copied = _on_host if resting else torch.clone
    masters = {name: nn.Parameter(copied(p.detach().float()))
               for name, p in model.named_parameters() if owned is None or name in owned}
    model.to(dtype)
    return Weights(dict(model.named_parameters()), masters)


def collect_gradients(weights: Weights) -> None:
    """Adds the compute gradients of a micro-batch into the step's fp32 sums and frees them."""
    if weights.split:
        weights.sums.add(weights.compute, weights.compute)


def expect(weights: Weights, *, last: bool) -> None:
    """Says before a micro-batch's passes whether it is the step's last one."""
    if weights.exchange is not None:
        weights.exchange.expect(last=last)


def reduce_gradients(weights: Weights) -> None:
    """Ends the sums of a step: masters' gradients are the mean over all data-parallel ranks."""
    if weights.exchange is not None:
        weights.exchange.reduce()
    for name, master in weights.masters.items():
        if weights.split:
            total = weights.sums.tensors[name] if name in weights.sums.begun else None
            master.grad = total if total is None else _brought(total, master)
        elif master.grad is not None:
            master.grad = settled(master.grad, master)
    weights.sums.begun.clear()
    if weights.resting:
        torch.cuda.current_stream().synchronize()  # the host's optimiser reads what was copied


def publish_masters(weights: Weights) -> None:
    """Copies the masters into the compute weights, rounding once."""
    if weights.exchange is not None:
        weights.exchange.publish()
    elif weights.split:
        with torch.no_grad():
            torch._foreach_copy_([local(one) for one in weights.compute.values()],
                                 [local(one) for one in weights.masters.values()],
                                 non_blocking=weights.resting)


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, pinned where a GPU will fetch it."""
    if tensor.device.type == "cuda":
        return tensor.cpu().pin_memory()
    return tensor.clone()


def _brought(total: torch.Tensor, master: nn.Parameter) -> torch.Tensor:
    """A sum where its master is: itself, or its copy in host memory, on the way there."""
    if total.device == master.device:
        return total
    kept = torch.empty_like(master, pin_memory=True) if master.grad is None else master.grad
    return kept.detach().copy_(total, non_blocking=True)
