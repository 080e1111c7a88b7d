"""Replicas (DDP): whole weights, masters and moments on each rank, gradients averaged."""

from __future__ import annotations

from dataclasses import replace

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.parallel.exchange import Whole
from curbcut.train.world import World


def applies(world: World, recipe: Recipe) -> bool:
    """Whether ranks read different sequences and share no state."""
    del recipe  # whatever it shares, there is nobody to share with
    return world.degree("dp_replicate") > 1 and world.degree("shares") == 1


def weights(model: Decoder, world: World, recipe: Recipe) -> precision.Weights:
    """All masters on each rank; their gradients are averaged, once a step."""
    plain = precision.split_weights(model, recipe.precision,
                                    resting=recipe.offload == "optimiser")
    exchange = Whole(plain.compute, plain.masters, plain.sums, {}, world)
    exchange.hold()
    return replace(plain, exchange=exchange)
