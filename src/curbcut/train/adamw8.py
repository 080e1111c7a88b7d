"""AdamW with 8-bit moments (Dettmers et al. 2022, arXiv:2110.02861).

Each moment is kept as one byte an element and one fp32 scale a block of 256. A byte means a value
of a code that is fine near zero: every tenth of the scale has its own steps, so that second moments
seven orders of magnitude apart fit into a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 256
LEAST_ELEMENTS = 4096
"""Smaller tensors keep fp32 moments: they are few, and norms' gains react to noise."""
DECADES = 7


class AdamW8(torch.optim.Optimizer):
    """AdamW whose moments rest in 8 bits; the arithmetic of a step is fp32."""

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float],
                 eps: float = 1e-8) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), grad, lr = group["betas"], parameter.grad, group["lr"]
        assert grad is not None
        moments = self.opened(parameter)
        count = moments["step"] + 1
        first = moments["exp_avg"].lerp_(grad, 1 - beta1)
        second = moments["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        done = float(count)
        root = (second / (1 - beta2 ** done)).sqrt_().add_(group["eps"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(first, root, value=-lr / (1 - beta1 ** done))
        self.take(parameter, {"step": count, "exp_avg": first, "exp_avg_sq": second})

    def opened(self, parameter: Tensor) -> dict[str, Tensor]:
        """Step and moments of a parameter in fp32; zeros before its first step."""
        state = self.state[parameter]
        if not state:
            zero = torch.zeros_like(parameter)
            return {"step": torch.zeros(()), "exp_avg": zero, "exp_avg_sq": zero.clone()}
        found = {"step": state["step"]}
        for key in ("exp_avg", "exp_avg_sq"):
            kept, scale = state[key], state.get(f"{key}_scale")
            found[key] = kept.clone() if scale is None else decoded(
                kept, scale, parameter.shape, signed=key == "exp_avg")
        return found

    def take(self, parameter: Tensor, moments: dict[str, Tensor]) -> None:
        """The reverse of `opened`: to the bit where what is given was opened."""
        state = self.state[parameter]
        state["step"] = moments["step"]
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter.numel() < LEAST_ELEMENTS:
                state[key] = moments[key]
            else:
                state[key], state[f"{key}_scale"] = coded(moments[key], signed=key == "exp_avg")


@lru_cache(maxsize=8)
def code(signed: bool, device: torch.device) -> Tensor:
    """The values that bytes stand for, ascending within [-1, 1] or [0, 1]: dynamic tree
    quantisation. The ends are in it, so a block that is opened and kept again is the same.
    """
    values = [0.0, 1.0]
    # A sign takes one of the eight bits: half the steps, and the lowest decade has none left.
    for decade in range(1 if signed else 0, DECADES):
        steps = 2 ** (decade if signed else decade + 1)
        edges = torch.linspace(0.1, 1, steps + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - DECADES + 1)
        values += middles.tolist()
    if signed:
        values += [-value for value in values if value]
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)


@lru_cache(maxsize=8)
def _borders(signed: bool, device: torch.device) -> Tensor:
    """Halfway between neighbours of the code."""
    values = code(signed, device)
    return (values[1:] + values[:-1]) / 2


def coded(values: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """fp32 of any shape -> bytes [blocks, 256] (the last block filled up with zeros) and scales
    [blocks, 1]: the nearest of the code to each element over its block's largest.
    """
    flat = values.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True)
    unit = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.bucketize(unit, _borders(signed, values.device), out_int32=True).to(
        torch.uint8), scale


def decoded(kept: Tensor, scale: Tensor, size: torch.Size, *, signed: bool) -> Tensor:
    """The reverse of `coded`."""
    values = code(signed, kept.device)[kept.int()] * scale
    return values.flatten()[:size.numel()].view(size)
