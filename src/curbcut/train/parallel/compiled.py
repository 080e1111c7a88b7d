"""torch.compile of each block."""

from __future__ import annotations

from torch import nn

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, each block compiled in place: one graph, reused by every layer of a shape."""
    del world
    if recipe.compile:
        for block in model.model.layers:
            assert isinstance(block, nn.Module)
            block.compile()
    return model
