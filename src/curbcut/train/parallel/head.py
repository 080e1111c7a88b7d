"""The head's loss as the recipe wants it: by chunks or all scores at once, with z-loss or without.

Tensor parallelism has its own (`vocabulary`).
"""

from __future__ import annotations

import functools

from curbcut.model.decoder import Decoder
from curbcut.model.loss import CHUNK_TOKENS, head_loss
from curbcut.spec import Recipe
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model with the recipe's loss in its place."""
    del world
    if recipe.z_loss or not recipe.chunked_loss:
        model.head_loss = functools.partial(
            head_loss, chunk_tokens=CHUNK_TOKENS if recipe.chunked_loss else 0,
            z_loss=recipe.z_loss)
    return model
