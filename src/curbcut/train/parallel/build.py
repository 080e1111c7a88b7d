"""A run's model on this rank: built, spread as the recipe says, filled from the seed.

Each method is a function `(model, world, recipe) -> model` in a file of its own beside this one,
and does nothing where its degree is 1. They fit into each other in one order only: a rank's stage
is cut, its matrices and experts are split, its sequence is shared, its activations are dropped or
moved, its blocks are compiled; what is then left on the rank is shared by data parallelism.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from curbcut.model.decoder import Decoder
from curbcut.model.initial import initial
from curbcut.spec import ModelShape, Recipe, Run
from curbcut.train import precision, transfer
from curbcut.train.parallel import (
    compiled,
    context,
    experts,
    fp8,
    head,
    offload,
    part,
    pipeline,
    recompute,
    replicated,
    sharded,
    tensor,
    zero1,
)
from curbcut.train.passes import Accumulated, Passes
from curbcut.train.world import World


def build(run: Run, world: World) -> tuple[Decoder, precision.Weights, Passes]:
    """This rank's part of the model of `run`, its masters, and what takes passes through it."""
    recipe = run.recipe
    with torch.device("meta"):
        model = Decoder(run.model, attention=recipe.attention)
    model = spread(model, world, recipe)
    fill(model, run.model, run.seed, world.device, transfer.ratio(run.model, recipe))
    model.train()
    weights = masters(model, world, recipe)
    if world.degree("pp") > 1:
        weights = replace(weights, twice=part.tied_apart(model, recipe))
        return model, weights, pipeline.passes(model, weights, recipe, world)
    return model, weights, Accumulated(model, weights, recipe, world)


def masters(model: Decoder, world: World, recipe: Recipe) -> precision.Weights:
    """Compute weights and masters, as data parallelism keeps them."""
    if zero1.applies(world, recipe):
        return zero1.weights(model, world, recipe)
    if replicated.applies(world, recipe):
        return replicated.weights(model, world, recipe)
    if sharded.applies(world, recipe):
        return sharded.weights(model, recipe)
    return precision.split_weights(model, recipe.precision,
                                   resting=recipe.offload == "optimiser")


def spread(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """All methods of `recipe`, innermost first."""
    model = head.apply(model, world, recipe)
    model = pipeline.apply(model, world, recipe)
    model = tensor.apply(model, world, recipe)
    model = experts.apply(model, world, recipe)
    model = context.apply(model, world, recipe)
    model = fp8.apply(model, world, recipe)
    model = recompute.apply(model, world, recipe)
    model = offload.apply(model, world, recipe)
    model = compiled.apply(model, world, recipe)
    return sharded.apply(model, world, recipe)


@torch.no_grad()
def fill(model: nn.Module, shape: ModelShape, seed: int, device: torch.device,
         width_ratio: float = 1.0) -> None:
    """Gives the model memory on `device` and its first weights: this rank's part of each.

    A weight depends on its name and the seed alone, so no layout of ranks changes it. With muP it
    is scaled by `width_ratio` (see `transfer`).
    """
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        first = initial(name, parameter.shape, shape, seed)
        first = first * transfer.first_factor(name, first.ndim, width_ratio)
        if isinstance(parameter, DTensor):
            # Every rank makes the same whole tensor, so none has to send it.
            parameter.copy_(distribute_tensor(first.to(device), parameter.device_mesh,
                                              parameter.placements, src_data_rank=None))
        else:
            parameter.copy_(first)
