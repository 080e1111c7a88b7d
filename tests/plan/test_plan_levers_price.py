from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.levers import price
from curbcut.plan.levers.case import Case, Factor
from plan.plan_lever_samples import fleet

USD = price.unit("usd")


@pytest.fixture(scope="module")
def before():
    return price.start(Case(fleet()), USD)


def after(case, unit=USD):
    return price.priced(case, unit)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(1.05, 20.0), wide=st.floats(1.0, 3.0))
def test_a_saving_lies_in_its_interval_and_is_its_share_of_the_whole(before, gain, wide):
    factor = Factor("x", "tokens", gain, gain / wide, gain * wide)
    found = price.saved(before, after(before.case.with_factor(factor)))
    share = price.saved_share(before, after(before.case.with_factor(factor)))
    assert found.low <= found.value <= found.high <= before.value
    assert found.value == pytest.approx(share.value * before.value)


def test_what_both_have_in_common_cancels(before):
    """A tenth fewer tokens of the same run at the same price: the price's own interval is wide,
    the saving's is not."""
    fewer = after(before.case.with_factor(Factor("x", "tokens", 1.1, 1.1, 1.1)))
    share = price.saved_share(before, fewer)
    whole = before.estimate
    assert whole.high / whole.low > 1.5
    assert share.high - share.low < 0.01


def test_the_ends_of_a_factor_are_the_ends_of_the_saving(before):
    factor = Factor("x", "tokens", 2.0, 1.0, 4.0)
    share = price.saved_share(before, after(before.case.with_factor(factor)))
    assert share.low == pytest.approx(0.0, abs=0.02)
    assert share.value == pytest.approx(0.5, abs=0.01)
    assert share.high == pytest.approx(0.75, abs=0.01)


def test_a_change_of_operations_is_believed_as_far_as_pairs_of_runs_bear_it_out(before):
    from curbcut.facts import constants

    compiled = after(before.case.with_recipe(compile=True))
    share = price.saved_share(before, compiled)
    ratio = math.log(compiled.value / before.value)
    spread = constants.constant("lever_step_ratio_share").value
    assert math.log((1 - share.low) / (1 - share.value)) == pytest.approx(
        1.645 * spread * abs(ratio), rel=0.1)


def test_a_layout_that_is_predicted_alike_is_uncertain_all_the_same(before):
    recipe = before.case.run.recipe
    other = after(before.case.with_recipe(micro_batch=max(1, recipe.micro_batch // 2)))
    share = price.saved_share(before, other)
    assert share.high - share.low > 0.1


def test_another_chip_is_less_sure_than_another_recipe(before):
    run = before.case.run
    chip = replace(run.machine, accelerator="h200-sxm-141gb", name="16xh200")
    apart = price.saved_share(before, after(before.case.with_run(replace(run, machine=chip))))
    near = price.saved_share(before, after(before.case.with_recipe(compile=True)))
    assert apart.high - apart.low > near.high - near.low


def test_what_only_one_side_has_is_not_cancelled():
    """Another grid has an interval of its own."""
    unit = price.unit("kg")
    first = price.start(Case(fleet()), unit)
    moved = price.priced(first.case.with_place(zone="FRA"), unit)
    share = price.saved_share(first, moved)
    assert share.low < share.value < share.high < 1


def test_nothing_changed_saves_exactly_nothing(before):
    share = price.saved_share(before, after(before.case))
    assert (share.low, share.value, share.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("name", "key"), [
    ("usd", "usd"), ("money", "usd"), ("kWh", "kwh"), ("energy", "kwh"), ("kg", "kg"),
    ("kgco2e", "kg"), ("hours", "hours"), ("time", "hours"), ("litres", "litres")])
def test_units_by_their_names(name, key):
    assert price.unit(name).name == key


def test_the_end_is_as_uncertain_as_the_factors_that_led_to_it(before):
    wide = after(before.case.with_factor(Factor("x", "tokens", 2.0, 1.0, 8.0)))
    sure = after(before.case.with_factor(Factor("x", "tokens", 2.0, 2.0, 2.0)))
    assert price.end_of(before, sure) == sure.estimate
    found = price.end_of(before, wide)
    assert found.value == sure.value
    assert found.low < 0.6 * sure.estimate.low and found.high > 1.1 * sure.estimate.high


def test_more_and_fewer_checkpoints_are_as_unsure_as_the_disk(before):
    every = before.case.run.recipe.checkpoint_every_steps
    share = price.saved_share(before, after(before.case.with_recipe(
        checkpoint_every_steps=20 * every)))
    assert 0 < share.low < 0.7 * share.value and share.high > 1.5 * share.value


@pytest.mark.parametrize("name", ["usd", "kwh", "hours"])
def test_what_a_power_limit_costs_has_an_interval(name):
    wanted = price.unit(name)
    first = price.start(Case(fleet()), wanted)
    share = price.saved_share(first, after(first.case.with_recipe(power_limit=0.6), wanted))
    back = price.saved_share(after(first.case.with_recipe(power_limit=0.6), wanted), first)
    for one in (share, back):
        assert one.low < one.value < one.high


def test_the_projects_uncertainty_stays_when_less_is_searched(before):
    """Half of the experiments are as unsure, one by one, as all of them."""
    half = after(before.case.with_factor(Factor("x", "search", 2.0, 2.0, 2.0)))
    key = "development.multiplier"
    old, new = (one.sheet[key].estimate for one in (before, half))
    assert [new.low - 1, new.value - 1, new.high - 1] == pytest.approx(
        [(old.low - 1) / 2, (old.value - 1) / 2, (old.high - 1) / 2])
