"""Pipeline parallelism."""

from __future__ import annotations

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.passes import Passes
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, cut to the layers of this rank."""
    del world, recipe
    return model


def passes(model: Decoder, weights: precision.Weights, recipe: Recipe, world: World) -> Passes:
    """What takes micro-batches through this rank's stages in the recipe's order."""
    raise NotImplementedError
