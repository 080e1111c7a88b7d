"""Sums of gradients over the micro-batches of a step, in fp32.

bf16 has 8 bits of mantissa: the small terms of a long sum would be lost in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from curbcut.train.norm import local


def settled(gradient: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The gradient laid out as its parameter: sums that tensor-parallel ranks hold parts of are
    completed (collective among them).
    """
    if (isinstance(gradient, DTensor) and isinstance(parameter, DTensor)
            and gradient.placements != parameter.placements):
        return gradient.redistribute(placements=parameter.placements)
    return gradient


def shaped(part: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This rank's `part` as a tensor that is laid out as `parameter`."""
    if isinstance(parameter, DTensor):
        return DTensor.from_local(part, parameter.device_mesh, parameter.placements,
                                  shape=parameter.shape, stride=parameter.stride())
    return part


@dataclass
class Sums:
    """fp32 sums by parameter name; memory is kept from step to step."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Names that have something of the current step."""

    @torch.no_grad()
    def add(self, compute: Mapping[str, nn.Parameter], names: Iterable[str]) -> None:
        """Takes the gradients of `names` in, and frees them."""
        fresh: list[tuple[torch.Tensor, torch.Tensor]] = []
        more: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name in names:
            parameter = compute[name]
            if parameter.grad is None:
                continue
            gradient = local(settled(parameter.grad, parameter))
            if name not in self.tensors:
                self.hold(name, parameter, torch.empty_like(gradient, dtype=torch.float32))
            pair = (local(self.tensors[name]), gradient)
            (more if name in self.begun else fresh).append(pair)
            self.begun.add(name)
            parameter.grad = None
        if fresh:
            torch._foreach_copy_([total for total, _ in fresh], [part for _, part in fresh])
        if more:
            # bf16 terms are widened one by one: widened copies of all would be as large as the sums
            torch._foreach_add_([total for total, _ in more], [part for _, part in more])

    def hold(self, name: str, parameter: torch.Tensor, part: torch.Tensor) -> None:
        """Makes `part` the memory of this rank's sum of a parameter."""
        self.tensors[name] = shaped(part, parameter)
