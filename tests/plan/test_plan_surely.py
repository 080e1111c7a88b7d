from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import InputError
from curbcut.physics import memory
from curbcut.plan import machines, rules, space
from curbcut.plan.forecast import forecast
from curbcut.plan.offers import offer
from curbcut.plan.recipes import fastest
from curbcut.plan.resolve import resolve
from curbcut.plan.search_draft import base_of
from curbcut.plan.surely import fastest_surely
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import Place
from plan.backwards_samples import shapes

SPREAD = memory.MEMORY_SPREAD["gpu"]


def offered(parameters, name="8xH100"):
    shape = min(shapes(), key=lambda one: abs(one.parameters / parameters - 1))
    machine = machines.build(machines.from_facts(name))
    base = replace(base_of(shape, machine, 10**10, {}), global_batch=512)
    return offer(space.Space(shape, machine, base, frozenset({"precision"})), Place(tenure="rent"))


@pytest.mark.parametrize("parameters", [5e8, 2e9, 6e9, 1.2e10])
def test_a_sure_recipe_is_taken_where_it_costs_little(parameters):
    one = offered(parameters)
    best, found = fastest(one), fastest_surely(one, SPREAD)
    assert found.seconds.value <= best.seconds.value * rules.UNSURE_MEMORY
    room = rules.sure_bytes(one.machine, SPREAD)
    if best.peak_bytes.value <= room:
        assert found.recipe == best.recipe
    elif found.recipe != best.recipe:
        assert found.peak_bytes.value <= room
        assert found.peak_bytes.high <= one.machine.memory_bytes * (1 + 1e-9)


def test_some_model_is_moved_to_surely_fitting_and_an_exact_memory_moves_none():
    moved = 0
    for parameters in (3e8, 1e9, 2e9, 4e9, 6e9, 8e9):
        one = offered(parameters)
        moved += fastest_surely(one, SPREAD).recipe != fastest(one).recipe
        assert fastest_surely(one, 1.0).recipe == fastest(one).recipe
    assert moved


def test_experts_on_a_fleet_get_a_recipe_where_the_plain_rules_find_no_room():
    draft = Draft().with_raw({"model": {"preset": "deepseek-v3"}, "train": {"tokens": "1T"},
                              "machine": {"name": "256xH100"}}, "test")
    found = resolve(draft)
    recipe = found.run.recipe
    assert recipe.ranks == 256 and recipe.tp * recipe.pp * recipe.ep > 1
    assert recipe.offload == "none" and recipe.precision == "bf16"
    assert "plain rules find no room" in found.origins["recipe.pp"]
    peak = forecast(found.run).memory_bytes["peak"]
    assert peak.value <= memory.available(found.run.machine)
    again = resolve(found.draft if hasattr(found, "draft") else draft)
    assert again.run == found.run


def test_what_fits_nowhere_still_says_what_would():
    draft = Draft().with_raw({"model": {"preset": "deepseek-v3"}, "train": {"tokens": "1T"},
                              "machine": {"name": "8xH100"}, "recipe": {"offload": "none"}}, "test")
    with pytest.raises(InputError, match="a rank"):
        resolve(draft)


def test_a_field_that_was_given_is_kept():
    draft = Draft().with_raw({"model": {"preset": "deepseek-v3"}, "train": {"tokens": "1T"},
                              "machine": {"name": "512xH100"}, "recipe": {"tp": 8}}, "test")
    found = resolve(draft)
    assert found.run.recipe.tp == 8 and found.origins["recipe.tp"] == "test"
