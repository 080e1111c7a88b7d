"""The barrier map: what a budget buys follows from physics and accounts, and from nothing else."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts.energy import energy
from curbcut.accounts.money import money
from curbcut.errors import InputError
from curbcut.physics import memory, time
from curbcut.plan import rules
from curbcut.plan.trend import barrier, capability, hardware
from curbcut.plan.trend import ladder as rungs
from curbcut.plan.trend.outlook import outlook
from curbcut.spec import checks
from curbcut.spec import given as exactly

NO_PROGRESS = exactly(1.0, "today")


@pytest.fixture(scope="module")
def ladder():
    return rungs.ladder()


@pytest.fixture(scope="module")
def rent():
    return hardware.pace(hardware.paces(), "16-bit", "rent").line


def today(ladder, usd):
    return barrier.reach(ladder, usd, ladder.year, None, NO_PROGRESS)


def test_larger_rungs_cost_more(ladder):
    assert len(ladder.rungs) > 20
    assert (np.diff(ladder.log_cost) > 0).all() and (np.diff(ladder.log_size) > 0).all()
    for rung in ladder.rungs:
        assert rung.tokens == rules.TOKENS_PER_PARAMETER * rung.shape.parameters
        assert rung.seconds.value <= rungs.LONGEST_SECONDS
        assert rung.usd.low <= rung.usd.value <= rung.usd.high


def test_a_rung_is_what_its_recipe_takes_by_the_physics_of_one_run(ladder):
    for rung in ladder.rungs[::6]:
        step = time.step_seconds(rung.shape, rung.recipe, rung.machine)
        steps = rung.tokens / rung.recipe.step_tokens
        # The table adds checkpoints, faults, evaluation and start to the steps.
        assert 0.97 < rung.seconds.value / (steps * step.value) < 1.5
        peak = memory.training(rung.shape, rung.recipe, rung.machine.kind)["peak"]
        assert peak <= memory.available(rung.machine)
        assert rung.recipe.ranks == rung.machine.accelerators


def test_a_rung_costs_what_accounts_say_of_its_seconds(ladder):
    rung = ladder.rungs[len(ladder.rungs) // 2]
    place = rungs.PLACE
    kwh = energy(rung.machine, place, rung.seconds)["facility"]
    total = money(rung.machine, place, rung.seconds, kwh)["total"]
    assert rung.usd.value == pytest.approx(total.value, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(1.0, 9.0), st.floats(0.01, 1.0))
def test_more_money_never_buys_less(power, more):
    found = barrier_ladder()
    less, larger = today(found, 10 ** power), today(found, 10 ** (power + more))
    assert larger.parameters.value >= less.parameters.value
    assert less.parameters.low <= less.parameters.value <= less.parameters.high


def barrier_ladder(kept: list = []):  # noqa: B006
    if not kept:
        kept.append(rungs.ladder())
    return kept[0]


def test_the_rule_of_thumb_is_of_the_same_order(ladder):
    for usd in barrier.BUDGETS_USD[:-1]:
        found = today(ladder, usd)
        assert 0.6 < found.parameters.value / found.rule_of_thumb < 1.6


def test_cards_without_a_network_stay_in_one_node(ladder):
    alone = [rung for rung in ladder.rungs if "pcie" in rung.machine.accelerator]
    assert all(rung.machine.accelerators <= rungs.NODE for rung in alone)


def test_too_little_money_says_what_the_smallest_costs(ladder):
    found = today(ladder, 1e-4)
    assert found.parameters.value is None and found.rung is None
    assert "smallest shape" in found.parameters.source


def test_beyond_the_last_rung_time_binds(ladder):
    found = today(ladder, 1e12)
    assert found.time_binds
    assert found.parameters.value == pytest.approx(ladder.rungs[-1].shape.parameters)
    assert found.seconds <= rungs.LONGEST_SECONDS


def test_another_year_is_another_budget_and_says_so(ladder, rent):
    past = barrier.reach(ladder, 1e5, 2022.0, rent, capability.algorithms(ladder.year, 2022.0))
    worth = rent.factor(ladder.year, 2022.0)
    assert past.basis == "trend of rents"
    assert past.parameters.value == pytest.approx(
        today(ladder, 1e5 * worth.value).parameters.value)
    ahead = barrier.reach(ladder, 1e5, 2032.0, rent, capability.algorithms(ladder.year, 2032.0))
    now = today(ladder, 1e5)
    assert ahead.basis == "extrapolated"
    assert past.parameters.value < now.parameters.value < ahead.parameters.value
    assert ahead.as_good_as.value > ahead.parameters.value > past.as_good_as.value
    spread = math.log(ahead.parameters.high / ahead.parameters.low)
    assert spread > math.log(now.parameters.high / now.parameters.low)


def test_todays_price_of_arithmetic_is_on_the_ladder(ladder):
    rung = ladder.rungs[10]
    assert ladder.usd(rung.flops).value == pytest.approx(rung.usd.value)
    assert ladder.usd(1e40).value is None


def test_the_dearest_price_of_one_machine_is_not_paid_where_another_is_cheaper(ladder):
    for rung in ladder.rungs:
        assert rung.usd.high / rung.usd.value < 4.0


@pytest.mark.parametrize(("arguments", "said"), [
    ({"year": 1950.0}, "nearest: 2010"), ({"year": math.nan}, "--year"),
    ({"budgets_usd": [0.0]}, "--budget"), ({"budgets_usd": [math.inf]}, "--budget")])
def test_questions_without_an_answer(arguments, said):
    with pytest.raises(InputError) as error:
        outlook(**arguments)
    assert said in str(error.value)


def test_an_outlook_has_its_year_among_all(ladder):
    found = outlook([5000.0], 2030)
    assert found.year == 2030 and found.reaches[0].budget_usd == 5000.0
    years = [row[0].year for row in found.by_year]
    assert years == sorted(years) and {2030.0, ladder.year} <= set(years)
    assert outlook([5000.0], math.floor(ladder.year)).year == ladder.year


def test_the_same_question_has_the_same_answer():
    first, second = outlook([1e4]), outlook([1e4])
    assert dataclasses.astuple(first.reaches[0].parameters) == dataclasses.astuple(
        second.reaches[0].parameters)


def test_a_rung_runs_in_a_precision_that_its_machine_has(ladder):
    """As a plan on that machine would: a chip without bf16 is not priced at another one's rate."""
    for one in ladder.rungs:
        assert one.recipe.precision in checks.precisions(one.machine)
        assert one.recipe.precision == rules.precision(one.machine)[0]
