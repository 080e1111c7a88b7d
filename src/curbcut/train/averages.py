"""A running mean of the masters (EMA), which is evaluated and exported in the last ones' place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from curbcut.train import norm, precision

PREFIX = "ema."


class Averages:
    """fp32 means by name, each laid out as its master.

    mean <- mean + (1 - d) (master - mean) with d = min(decay, (1 + step) / (10 + step)): young
    means follow faster, so the random first weights are soon forgotten.
    """

    def __init__(self, masters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.masters, self.decay = masters, decay
        self.means = {name: master.detach().clone() for name, master in masters.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Takes up the masters after optimiser step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([norm.local(mean) for mean in self.means.values()],
                             [norm.local(self.masters[name]).detach() for name in self.means],
                             1 - decay)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of it: "ema.NAME"."""
        return {f"{PREFIX}{name}": mean for name, mean in self.means.items()}

    @torch.no_grad()
    def restore(self, named: Mapping[str, torch.Tensor]) -> None:
        """The reverse of `tensors`; a checkpoint without means leaves them at the masters."""
        for name, mean in self.means.items():
            key = f"{PREFIX}{name}"
            mean.copy_(named[key] if key in named else self.masters[name])

    @torch.no_grad()
    def exchange(self) -> None:
        """Masters become means and means masters, in place."""
        for name, mean in self.means.items():
            ours, theirs = norm.local(mean), norm.local(self.masters[name].detach())
            aside = ours.clone()
            ours.copy_(theirs)
            theirs.copy_(aside)


@contextmanager
def standing_in(averages: Averages | None, weights: precision.Weights) -> Iterator[None]:
    """While the block lasts, the model computes with the means; nothing where there are none.

    Collective where publishing masters is.
    """
    if averages is None:
        yield
        return
    averages.exchange()
    precision.publish_masters(weights)
    try:
        yield
    finally:
        averages.exchange()
        precision.publish_masters(weights)
