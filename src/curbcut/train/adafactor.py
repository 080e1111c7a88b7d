"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235): a second moment of rows and columns.

Without a first moment and without scaling by the parameter's size, so that its learning rate is
AdamW's; the update is clipped to a root mean square of 1 and beta2 grows as 1 - step^-0.8 (sections
6 and 7.2). Means over shared masters are taken over all ranks, so every layout takes the same step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

DECAY_POWER = 0.8
CLIP = 1.0
EPSILON = 1e-30


class Adafactor(torch.optim.Optimizer):
    """Keeps `row` [..., m] and `column` [..., n] of a matrix [..., m, n], whole on each rank, and
    `exp_avg_sq` of a vector.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; collective for shared ones."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])

    def _move(self, parameter: Tensor, rate: float, decay: float) -> None:
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        state.setdefault("step", torch.zeros(()))
        state["step"] = state["step"] + 1
        share = float(state["step"]) ** -DECAY_POWER
        square = grad.square() + EPSILON
        if parameter.ndim < 2:
            kept = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
            update = grad * kept.lerp_(square, share).rsqrt()
        else:
            row = self._mean(state, "row", square.mean(-1), share)
            column = self._mean(state, "column", square.mean(-2), share)
            upright = (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1)
            update = grad * _beside(upright, grad) * _beside(column.rsqrt().unsqueeze(-2), grad)
        size = float(_whole(update.square().mean())) ** 0.5
        parameter.mul_(1 - rate * decay)
        parameter.add_(update, alpha=-rate / max(1.0, size / CLIP))

    @staticmethod
    def _mean(state: dict[str, Tensor], key: str, new: Tensor, share: float) -> Tensor:
        """The running mean under `key`, with the whole of `new` in it."""
        new = _whole(new)
        return state.setdefault(key, torch.zeros_like(new)).lerp_(new, share)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _beside(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as one that the ranks of `like` all hold."""
    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
