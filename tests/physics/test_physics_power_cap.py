"""What a power cap costs in time and saves in watts holds together at any draw and family."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import physics
from curbcut.physics import power_cap
from curbcut.physics.numbers import Columns
from curbcut.physics.power_cap import cap_constants, capped
from curbcut.spec.estimate import modelled
from tiny import tiny_machine, tiny_run

FAMILIES = ("", *power_cap.families())
GPU = {"kind": "gpu", "accelerator": "h100-sxm-80gb", "watts": {"max": 700.0}}
LIMITS = np.linspace(0.2, 1.0, 161)


def test_without_a_cap_nothing_changes():
    for family in FAMILIES:
        found = capped(1.0, 0.74, cap_constants(family))
        assert (found.seconds, found.watts, found.energy) == pytest.approx((1, 1, 1))


@settings(max_examples=50)
@given(draw=st.floats(0.02, 1.0), limit=st.floats(0.05, 1.0), lower=st.floats(0.5, 1.0),
       family=st.sampled_from(FAMILIES))
def test_a_lower_cap_is_never_faster_and_never_draws_more(draw, limit, lower, family):
    constants = cap_constants(family)
    one, other = capped(limit, draw, constants), capped(limit * lower, draw, constants)
    assert other.seconds >= one.seconds - 1e-9 >= 1 - 2e-9
    assert other.watts <= one.watts + 1e-9 <= 1 + 2e-9
    assert other.watts > 0


@settings(max_examples=30)
@given(draw=st.floats(0.3, 1.0), family=st.sampled_from(FAMILIES))
def test_a_cap_that_holds_is_hardly_overstepped(draw, family):
    constants = cap_constants(family)
    for limit in (0.5, 0.7, 0.9):
        drawn = draw * capped(limit, draw, constants).watts
        assert drawn <= max(limit * constants.over, constants.stays) + 1e-9 or drawn <= draw


def test_energy_has_a_minimum_between_a_deep_cap_and_none():
    for family in FAMILIES:
        energy = capped(LIMITS, 0.8, cap_constants(family)).energy
        least = int(np.argmin(energy))
        assert 0.45 < LIMITS[least] < 0.85
        assert energy[0] > energy[least] + 0.05 and energy[least] < 0.95
        assert (np.diff(energy[:least + 1]) <= 1e-9).all()
        assert (np.diff(energy[least:]) >= -1e-9).all()


def test_an_a40_at_42_percent_takes_more_energy_than_without_a_cap():
    found = capped(0.417, 0.68, cap_constants("a40"))
    assert found.energy > 1.0 and found.seconds > 1.5
    assert capped(0.667, 0.68, cap_constants("a40")).energy < 0.95


def test_one_formula_for_numbers_and_arrays():
    constants = cap_constants("v100")
    many = capped(LIMITS, 0.74, constants)
    for place in (0, 60, 120, 160):
        one = capped(float(LIMITS[place]), 0.74, constants)
        assert (many.seconds[place], many.watts[place]) == pytest.approx((one.seconds, one.watts))


def test_families_go_by_the_start_of_a_name():
    assert cap_constants("v100-sxm2-32gb") == cap_constants("v100") != cap_constants("")
    assert cap_constants("h100-sxm-80gb") == cap_constants("") == cap_constants("a4000")


def test_constants_without_a_family_have_not_seen_it():
    for family in power_cap.families():
        assert cap_constants(family, without=family) != cap_constants(family)
        assert cap_constants(family, without=family) != cap_constants("")


def test_a_card_that_was_never_measured_is_less_certain():
    own, other = power_cap.slowdown_spread("a40"), power_cap.slowdown_spread("h100")
    assert own[0] <= 1 <= own[2] and other[0] <= 1 <= other[2]
    assert other[2] > own[2]


def test_every_family_has_every_constant():
    rows = {(one.accelerator, one.name) for one in physics.constants(power_cap.FILE)
            if not one.without}
    for family in FAMILIES:
        for name in (*power_cap.NAMES, "slowdown"):
            assert (family, name) in rows


def test_a_capped_recipe_lengthens_its_step_by_no_less_than_its_interval_says():
    machine = tiny_machine(**GPU)
    free = modelled(2.0, 1.1, "a step")
    run = tiny_run(recipe={"power_limit": 0.6})
    found = power_cap.stretched(free, run.recipe, machine)
    factor = power_cap.seconds_factor(run.recipe, machine)
    assert found.value == pytest.approx(2.0 * factor) and factor > 1.03
    assert found.high / found.value > free.high / free.value
    assert "60%" in found.source


def test_no_cap_and_no_accelerator_leave_a_step_as_it_is():
    free = modelled(2.0, 1.1, "a step")
    assert power_cap.stretched(free, tiny_run().recipe, tiny_machine(**GPU)) is free
    recipe = tiny_run(recipe={"power_limit": 0.5}).recipe
    assert power_cap.stretched(free, recipe, tiny_machine()) is free


def test_a_column_of_limits_gives_a_column_of_factors():
    recipes = Columns(power_limit=np.array([1.0, 0.8, 0.5]))
    found = power_cap.seconds_factor(recipes, tiny_machine(**GPU))
    assert found[0] == pytest.approx(1) and found[0] <= found[1] <= found[2]


def test_the_draw_without_a_cap_is_the_machines_own_where_it_is_known():
    assert power_cap.draw_share(tiny_machine(**GPU)) == pytest.approx(0.74)
    busy = tiny_machine(**(GPU | {"watts": {"max": 700.0, "typical": 630.0}}))
    assert power_cap.draw_share(busy) == pytest.approx(0.9)
    recipe = tiny_run(recipe={"power_limit": 0.6}).recipe
    assert power_cap.seconds_factor(recipe, busy) > power_cap.seconds_factor(
        recipe, tiny_machine(**GPU))
