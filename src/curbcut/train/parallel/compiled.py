"""torch.compile of each block.

A trap: the result of torch's functional collectives is a tensor that waits when it is first
touched. Where one enters a compiled region, as the output of an embedding split by
`parallelize_module` does, the gradient of what made it is lost without an error (torch 2.13.0,
tensor parallelism under FSDP; without FSDP it crashes). No such tensor exists here: see
`collectives`.
"""

from __future__ import annotations

from torch import nn

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.world import World

BACKEND = "inductor"
"""What makes code of a block's graph."""


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, each block compiled in place: one graph, reused by every layer of a shape."""
    del world
    if recipe.compile:
        for block in model.model.layers:
            assert isinstance(block, nn.Module)
            block.compile(backend=BACKEND)
    return model
