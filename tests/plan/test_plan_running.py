"""What the plan may choose on the machine at hand is what training runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curbcut.plan import machines, running
from curbcut.plan.offers import offer
from curbcut.plan.recipes import search
from curbcut.plan.space import Space
from curbcut.spec import ModelShape, Place, Recipe
from tiny import tiny_machine

SHAPE = ModelShape(layers=8, width=512, heads=8, kv_heads=8, head_size=64, ffn=1408, vocab=4096)
EXPERTS = replace(SHAPE, experts=4, experts_per_token=2, expert_ffn=256)
RECIPE = Recipe(sequence_tokens=512, micro_batch=1, global_batch=8, precision="fp32",
                learning_rate=1e-3)
HERE = tiny_machine(cores=4, link_bytes_per_second=10**9)


def fleet(count: int, name: str = ""):
    built = machines.build(machines.from_here(HERE, f"{count}xhere"))
    return replace(built, name=name or built.name)


@pytest.mark.parametrize("shape", [SHAPE, EXPERTS])
def test_a_block_of_recipes_is_told_what_each_is_told(shape):
    machine = fleet(4, "4xother")
    refused = 0
    for block in Space(shape, machine, RECIPE).blocks:
        flags = np.broadcast_to(running.trained(shape, block.recipes, machine), block.shape)
        for place in np.ndindex(block.shape):
            recipe = block.recipe(place)
            assert flags[place] == (running.reason(shape, recipe, machine) == ""), recipe
            refused += not flags[place]
    assert refused


@pytest.mark.parametrize("count", [2, 4])
def test_here_only_what_training_runs_is_searched(count):
    here, other = Space(EXPERTS, fleet(count), RECIPE), Space(EXPERTS, fleet(count, "x"), RECIPE)
    assert 0 < here.count < other.count
    found = search([offer(here, Place())], threads=1)
    every = [found.best, *(up.priced for up in found.runners_up), *found.front]
    assert all(running.reason(EXPERTS, one.recipe, here.machine) == "" for one in every)
    assert found.priced == here.count
    assert found.best.recipe.ranks == count


def test_where_nothing_asked_for_runs_it_is_priced_all_the_same():
    base = replace(RECIPE, ep=2, tp=2)
    space = Space(EXPERTS, fleet(4), base, frozenset({"ep", "tp"}))
    found = search([offer(space, Place())], threads=1)
    assert "with ep = 2" in running.reason(EXPERTS, found.best.recipe, space.machine)


@pytest.mark.parametrize("count", [2, 4])
def test_on_shared_cores_no_layout_gains_much_on_ranks_that_share_states(count):
    """Cores and memory are shared, so nothing is to be had by cutting what every token needs."""
    offered = offer(Space(SHAPE, fleet(count), RECIPE), Place())
    plain = offer(Space(SHAPE, fleet(count), RECIPE, frozenset({"tp", "cp", "pp"})), Place())
    best, sharing = (search([one], threads=1).best for one in (offered, plain))
    assert best.recipe.pp == 1 and sharing.recipe.dp_shard > 1
    assert 0.98 * sharing.seconds.value < best.seconds.value <= sharing.seconds.value
