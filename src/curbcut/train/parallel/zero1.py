"""ZeRO-1: whole weights on each rank, masters and moments dealt out among them.

Whole tensors are dealt, so an optimiser that needs a matrix whole (Muon) has it, and no rank talks
while it updates. Rajbhandari et al. 2020, arXiv:1910.02054, stage 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from curbcut.errors import InputError
from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.norm import local
from curbcut.train.parallel.exchange import Whole
from curbcut.train.world import World


def applies(world: World, recipe: Recipe) -> bool:
    """Whether masters are dealt out among ranks."""
    return recipe.shard == "optimiser" and world.degree("shares") > 1


def weights(model: Decoder, world: World, recipe: Recipe) -> precision.Weights:
    """Compute weights of all parameters and the masters that this rank owns.

    Raises InputError where there are fewer tensors than ranks to own them.
    """
    count, place = world.degree("shares"), world.coordinate("shares")
    owners = deal({name: local(p).numel() for name, p in model.named_parameters()}, count)
    if len(set(owners.values())) < count:
        raise InputError(f"a model of {len(owners)} tensors cannot be dealt out whole among "
                         f"{count} ranks", where="recipe.shard",
                         mend='set shard = "parameters", which cuts tensors')
    plain = precision.split_weights(model, recipe.precision,
                                    {name for name, owner in owners.items() if owner == place},
                                    resting=recipe.offload == "optimiser")
    exchange = Whole(plain.compute, plain.masters, plain.sums, owners, world)
    exchange.hold()
    return replace(plain, exchange=exchange, owners=count)


def deal(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Owner (from 0) of each tensor, by its elements: the largest first, each to whoever has
    least. The same on every rank.
    """
    load = [0] * count
    owners = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owners[name] = load.index(min(load))
        load[owners[name]] += sizes[name]
    return {name: owners[name] for name in sizes}
