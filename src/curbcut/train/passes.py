"""Forward and backward passes of one step: how micro-batches become the masters' gradients.

`Accumulated` takes them one after the other through a model whose layers are all on this rank;
a pipeline has its own (`parallel.pipeline`).
"""

from __future__ import annotations

from typing import Protocol

import torch

from curbcut.model.decoder import Decoder
from curbcut.model.loss import IGNORED
from curbcut.spec import Recipe
from curbcut.train import faults, precision
from curbcut.train.parallel import context
from curbcut.train.world import World


class Passes(Protocol):
    """What the loop and evaluation ask of a model on one rank."""

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Adds up the gradients of the mean loss of this rank's [sequences, tokens] and returns
        that loss: nats a token over this rank's own tokens.
        """

    def nats(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Sum of nats of this rank's tokens, without gradients; `IGNORED` targets count nothing."""


class Accumulated:
    """One micro-batch after the other, gradients added up in fp32."""

    def __init__(self, model: Decoder, weights: precision.Weights, recipe: Recipe,
                 world: World) -> None:
        self.model, self.weights, self.recipe, self.world = model, weights, recipe, world

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """See `Passes`."""
        inputs, targets, positions = context.share(inputs, targets, self.world)
        micro = self.recipe.micro_batch
        loss_sum = torch.zeros((), dtype=torch.float32, device=inputs.device)
        for start in range(0, inputs.shape[0], micro):
            tokens, wanted = inputs[start:start + micro], targets[start:start + micro]
            last = start + micro >= inputs.shape[0]
            precision.expect(self.weights, last=last)
            loss = self.model(tokens, positions, targets=wanted)
            share = tokens.shape[0] / inputs.shape[0]
            torch.autograd.backward(loss * share)
            precision.collect_gradients(self.weights)
            loss_sum += loss.detach() * share
            if not last:
                faults.reach("step: in accumulation", self.world.rank)
        return float(loss_sum)

    @torch.no_grad()
    def nats(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """See `Passes`."""
        inputs, targets, positions = context.share(inputs, targets, self.world)
        counted = int((targets != IGNORED).sum())
        mean = float(self.model(inputs, positions, targets=targets))
        # A rank may have none of the counted tokens, and the mean of none is not a number.
        return mean * counted if counted else 0.0
