"""Pipeline parallelism: each rank holds some layers, and micro-batches pass from rank to rank.

Which layers a rank has is said in `stages`, its part of the model in `part`, the order of
micro-batches in `schedules`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from curbcut.model.decoder import Decoder
from curbcut.model.loss import IGNORED
from curbcut.spec import Recipe
from curbcut.train import norm, precision
from curbcut.train.parallel import context
from curbcut.train.parallel.part import Part, tied_apart
from curbcut.train.parallel.schedules import hidden_size, schedule
from curbcut.train.parallel.stages import stages
from curbcut.train.sums import settled
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, cut to the layers of this rank's stages."""
    if world.degree("pp") == 1:
        return model
    mine = world.coordinate("pp")
    return Part(model, tuple(one for one in stages(model.shape, recipe) if one.rank == mine))


def passes(model: Decoder, weights: precision.Weights, recipe: Recipe, world: World) -> Pipelined:
    """What takes micro-batches through this rank's stages in the recipe's order."""
    assert isinstance(model, Part)
    return Pipelined(model, weights, recipe, world)


class Pipelined:
    """Micro-batches through the stages of this rank and of its neighbours (see `Passes`)."""

    def __init__(self, model: Part, weights: precision.Weights, recipe: Recipe,
                 world: World) -> None:
        self.model, self.weights, self.recipe, self.world = model, weights, recipe, world
        self.group = world.group("pp")
        self.holders = [one.rank for one in stages(model.shape, recipe)]
        self.twice = tied_apart(model, recipe)
        self.schedule = schedule(model, weights, recipe, world)

    def gradients(self, inputs: Tensor, targets: Tensor) -> float:
        """Adds up the gradients; the loss is the last stage's to say, the others return 0."""
        inputs, targets, positions = context.share(inputs, targets, self.world)
        losses: list[Tensor] = []
        # Told to all stages of this rank, of which each takes what it needs.
        told: dict[str, Any] = {"targets": targets} | _rows(positions, inputs)
        enters = (inputs,) if self.model.held[0].first else ()
        self.schedule.step(*enters, target=targets, losses=losses, return_outputs=False, **told)
        for name in self.twice:
            self._add_other_end(name)
        return float(torch.stack([one.detach() for one in losses]).sum()) if losses else 0.0

    def _add_other_end(self, name: str) -> None:
        """Adds the other end's gradient of a weight that both ends hold: the same sum on both."""
        sums, parameter = self.weights.sums.tensors, self.weights.compute[name]
        grad = sums[name] if self.weights.split else parameter.grad
        assert grad is not None
        mine = norm.local(settled(grad, parameter))
        theirs = torch.empty_like(mine)
        peer = self._peer(self.holders[-1] if self.model.held[0].first else self.holders[0])
        both = [dist.P2POp(dist.isend, mine, peer, self.group),
                dist.P2POp(dist.irecv, theirs, peer, self.group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        mine.add_(theirs)

    def _peer(self, place: int) -> int:
        """Rank in the world of a place along the pipeline."""
        assert self.group is not None
        return dist.get_global_rank(self.group, place)

    @torch.no_grad()
    def nats(self, inputs: Tensor, targets: Tensor) -> float:
        """Sum of nats of this rank's tokens on the last stage, 0 on the others (see `Passes`)."""
        inputs, targets, positions = context.share(inputs, targets, self.world)
        total, sent = 0.0, list[tuple[dist.Work | None, Tensor]]()
        for start in range(0, inputs.shape[0], self.recipe.micro_batch):
            rows = slice(start, start + self.recipe.micro_batch)
            total += self._forward(inputs[rows], targets[rows], positions, sent)
        for work, _ in sent:
            assert work is not None
            work.wait()
        return total

    def _forward(self, tokens: Tensor, targets: Tensor, positions: Tensor | None,
                 sent: list[tuple[dist.Work | None, Tensor]]) -> float:
        """One micro-batch through this rank's stages; nats where the last one is among them."""
        nats, hidden = 0.0, tokens
        for part in self.model.parts:
            stage = part.held[0]
            if not stage.first and self.holders[stage.index - 1] != stage.rank:
                hidden = torch.empty(hidden_size(tokens, self.model.shape.width, self.recipe),
                                     dtype=precision.dtype_of(self.recipe.precision),
                                     device=tokens.device)
                dist.recv(hidden, self._peer(self.holders[stage.index - 1]), self.group)
            hidden = part(hidden, positions, targets=targets)
            if stage.last:
                nats = float(hidden) * int((targets != IGNORED).sum())
            elif self.holders[stage.index + 1] != stage.rank:
                hidden = hidden.contiguous()
                sent.append((dist.isend(hidden, self._peer(self.holders[stage.index + 1]),
                                        self.group), hidden))
        return nats


def _rows(positions: Tensor | None, inputs: Tensor) -> dict[str, Tensor]:
    """Positions with a row for each sequence, as the schedule deals out rows."""
    return {} if positions is None else {"positions": positions.expand(inputs.shape[0], -1)}
