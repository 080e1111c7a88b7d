"""ZeRO-1: whole weights on each rank, masters and moments dealt out among them."""

from __future__ import annotations

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.world import World


def applies(world: World, recipe: Recipe) -> bool:
    """Whether masters are dealt out among ranks."""
    return recipe.shard == "optimiser" and world.degree("shares") > 1


def weights(model: Decoder, world: World, recipe: Recipe) -> precision.Weights:
    """Compute weights of all parameters and the masters that this rank owns."""
    raise NotImplementedError
