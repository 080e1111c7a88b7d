"""The orders in which a pipeline's ranks take micro-batches: torch's, on our stages.

Shapes and dtypes of what is sent are known beforehand, so that nothing is asked of other ranks:
torch would ask with pickles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    PipelineScheduleMulti,
    PipelineScheduleSingle,
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.parallel import context
from curbcut.train.parallel.part import Part
from curbcut.train.parallel.tensor import residual_tokens
from curbcut.train.world import World

Schedule = PipelineScheduleSingle | PipelineScheduleMulti


class Collecting(PipelineStage):
    """A stage whose micro-batches' gradients are added up in fp32, each as soon as it is made.

    Hooks on parameters would not do: torch's split backward pass never calls them.
    """

    weights: precision.Weights
    names: tuple[str, ...]
    """Parameters of this stage."""

    def backward_one_chunk(self, bwd_chunk_id: int, loss: Tensor | None = None,
                           full_backward: bool = True, last_backward: bool = False) -> None:
        """The backward pass of a micro-batch, or its first half: gradients of the inputs."""
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)
        if full_backward:
            self._collect()

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        """The other half: gradients of the weights."""
        super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        self._collect()

    def _collect(self) -> None:
        if self.weights.split:
            self.weights.sums.add(self.weights.compute, self.names)


def order(recipe: Recipe) -> type[Schedule]:
    """torch's schedule of the recipe's name.

    Zero-bubble is ZB-H1 (arXiv:2401.10241): torch's interleaved one with a single stage a rank.
    1F1B with fewer micro-batches than stages is all warm-up on the first stage, so that GPipe's
    order takes as long; torch's 1F1B refuses them.
    """
    few = recipe.accumulation < recipe.pp
    kinds: dict[str, type[Schedule]] = {
        "gpipe": ScheduleGPipe, "1f1b": ScheduleGPipe if few else Schedule1F1B,
        "interleaved": ScheduleInterleaved1F1B, "zero-bubble": ScheduleInterleavedZeroBubble,
        "dualpipev": ScheduleDualPipeV,
    }
    return kinds[recipe.pipeline]


def schedule(model: Part, weights: precision.Weights, recipe: Recipe, world: World) -> Schedule:
    """The recipe's schedule over this rank's stages. Its losses add up to the mean."""
    count, kind = recipe.accumulation, order(recipe)
    made: list[Any] = [_stage(part, weights, recipe, world) for part in model.parts]

    def share(loss: Tensor, targets: Tensor) -> Tensor:
        del targets
        return loss / count

    if issubclass(kind, PipelineScheduleSingle):
        return kind(made[0], count, loss_fn=share, scale_grads=False)
    return kind(made, count, loss_fn=share, scale_grads=False)


def _stage(part: Part, weights: precision.Weights, recipe: Recipe, world: World) -> Collecting:
    """torch's stage of a part, with what goes in and out known beforehand."""
    stage = part.held[0]
    whole = torch.zeros(recipe.micro_batch, recipe.sequence_tokens, dtype=torch.int64)
    tokens = context.share(whole, whole, world)[0].to("meta")
    hidden = torch.empty(hidden_size(tokens, part.shape.width, recipe), device="meta",
                         dtype=precision.dtype_of(recipe.precision), requires_grad=True)
    loss = torch.empty((), device="meta", requires_grad=True)
    made = Collecting(part, stage.index, stage.count, world.device, group=world.group("pp"),
                      input_args=tokens if stage.first else hidden,
                      output_args=loss if stage.last else hidden)
    made.weights, made.names = weights, tuple(name for name, _ in part.named_parameters())
    return made


def hidden_size(tokens: Tensor, width: int, recipe: Recipe) -> tuple[int, int, int]:
    """Size of what a stage sends of tokens [b, s]."""
    return tokens.shape[0], residual_tokens(tokens.shape[1], recipe), width
