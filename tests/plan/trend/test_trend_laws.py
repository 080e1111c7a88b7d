"""Laws of the trends: least squares by others' hands, and a map that grows with money and time."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.facts import capability as facts
from curbcut.plan.trend import barrier, capability, hardware, outlook
from curbcut.plan.trend import ladder as rungs
from curbcut.plan.trend.frontier import costs, frontier
from curbcut.plan.trend.hardware import Offer, Pace
from curbcut.plan.trend.line import fit, student, year_of
from curbcut.spec import given as exactly

VALUES = st.lists(st.floats(0.01, 1e9), min_size=5, max_size=25)
TABLE = {3: 3.1824, 4: 2.7764, 8: 2.3060, 18: 2.1009, 28: 2.0484, 60: 2.0003}
"""Two-sided 95% quantiles of Student's t by degrees of freedom, as any table has them."""


@pytest.fixture(scope="module")
def ladder():
    return rungs.ladder()


@pytest.fixture(scope="module")
def rent():
    return hardware.pace(hardware.paces(), "16-bit", "rent").line


def reached(ladder, usd, year, rent):
    progress = exactly(1.0, "today") if year == ladder.year else capability.algorithms(
        ladder.year, year)
    return barrier.reach(ladder, usd, year, rent, progress)


# The line.

@settings(max_examples=25, deadline=None)
@given(values=VALUES, start=st.floats(1990.0, 2020.0), step=st.floats(0.05, 3.0))
def test_slope_and_middle_are_those_of_polyfit(values, start, step):
    years = start + step * np.arange(len(values))
    line = fit(list(years), values)
    slope, height = np.polyfit(years - years.mean(), np.log10(values), 1)
    assert line.slope == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert line.intercept == pytest.approx(height, rel=1e-6, abs=1e-9)
    left = np.log10(values) - height - slope * (years - years.mean())
    assert line.residual == pytest.approx(math.sqrt(left @ left / (len(values) - 2)), rel=1e-6,
                                          abs=1e-9)
    assert -1e-9 <= line.r_squared <= 1 + 1e-9


@pytest.mark.parametrize("freedom", sorted(TABLE))
def test_the_interval_is_a_quantile_of_student_by_hand(freedom):
    count = freedom + 2
    years = np.arange(count, dtype=float) + 2000
    logs = 0.3 * (years - 2000) + 0.2 * (-1.0) ** np.arange(count)
    line = fit(list(years), list(10 ** logs))
    centred = years - years.mean()
    slope, height = np.polyfit(centred, logs, 1)
    left = logs - height - slope * centred
    error = math.sqrt(left @ left / freedom / (centred @ centred))
    assert line.slope - line.low == pytest.approx(TABLE[freedom] * error, rel=3e-3)
    assert line.high - line.slope == pytest.approx(TABLE[freedom] * error, rel=3e-3)
    # Of the line's own value away from the middle (any text book of regression).
    far = line.at(2000.0 + 3 * count)
    half = TABLE[freedom] * math.sqrt(left @ left / freedom) * math.sqrt(
        1 / count + (2000.0 + 3 * count - years.mean()) ** 2 / (centred @ centred))
    assert math.log10(far.high / far.value) == pytest.approx(half, rel=3e-3)
    assert math.log10(far.value / far.low) == pytest.approx(half, rel=3e-3)


@settings(max_examples=25, deadline=None)
@given(freedom=st.integers(3, 200), share=st.floats(0.6, 0.99))
def test_quantiles_fall_towards_the_normal_one_and_mirror(freedom, share):
    here = student(share, freedom)
    assert student(share, freedom + 1) < here
    assert student(1 - share, freedom) == pytest.approx(-here)
    assert student(share, 10**6) == pytest.approx(student(share, 10**7), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(values=VALUES, shift=st.floats(-300, 300))
def test_a_shift_of_all_years_moves_nothing_else(values, shift):
    years = [2000.0 + i for i in range(len(values))]
    line, moved = fit(years, values), fit([one + shift for one in years], values)
    assert (moved.slope, moved.low, moved.high) == pytest.approx(
        (line.slope, line.low, line.high), rel=1e-6, abs=1e-9)
    assert moved.at(2003.0 + shift).value == pytest.approx(line.at(2003.0).value, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(values=VALUES, first=st.floats(-5, 5), second=st.floats(-5, 5))
def test_growth_over_years_multiplies(values, first, second):
    line = fit([2000.0 + i for i in range(len(values))], values)
    whole = line.factor(2000.0, 2000.0 + first + second).value
    parts = (line.factor(2000.0, 2000.0 + first).value
             * line.factor(2000.0 + first, 2000.0 + first + second).value)
    assert whole == pytest.approx(parts, rel=1e-9)
    one = line.factor(2000.0, 2000.0 + first)
    assert one.low <= one.value * (1 + 1e-12) and one.value <= one.high * (1 + 1e-12)
    assert line.factor(2001.0, 2002.0).value == pytest.approx(line.growth.value)


def test_a_wider_confidence_is_a_wider_interval_around_the_same_slope():
    years, values = [2000.0 + i for i in range(9)], [1.0, 3.0, 2.0, 5.0, 9.0, 7.0, 20.0, 11.0, 40.0]
    lines = [fit(years, values, confidence) for confidence in (0.5, 0.9, 0.95, 0.99)]
    assert len({one.slope for one in lines}) == 1
    widths = [one.high - one.low for one in lines]
    assert widths == sorted(widths) and widths[0] > 0


def test_a_falling_line_halves_in_negative_years_and_a_level_one_never():
    years = [2000.0 + i for i in range(6)]
    falling = fit(years, [2.0 ** -i for i in range(6)])
    assert falling.doubling_years == pytest.approx(-1.0)
    level = fit(years, [1.0] * 6)
    assert level.slope == 0.0 and math.isinf(level.doubling_years)
    assert level.growth.value == 1.0 and level.r_squared == 1.0


@settings(max_examples=25, deadline=None)
@given(day=st.dates(date(1990, 1, 1), date(2050, 12, 30)))
def test_years_grow_by_the_day(day):
    later = day + timedelta(days=1)
    assert day.year <= year_of(day) < year_of(later) <= day.year + 1
    assert year_of(later) - year_of(day) == pytest.approx(1 / 365.5, rel=0.01)


# The map.

@settings(max_examples=25, deadline=None)
@given(power=st.floats(0.0, 9.0), year=st.floats(2018.0, 2034.0), later=st.floats(0.01, 6.0))
def test_a_later_year_never_buys_less(power, year, later):
    found, line = kept()
    now, then = (reached(found, 10 ** power, when, line) for when in (year, year + later))
    if now.parameters.value is None:
        return
    assert then.parameters.value >= now.parameters.value * (1 - 1e-12)
    assert then.as_good_as.value > now.as_good_as.value
    for one in (now, then):
        for figure in (one.parameters, one.as_good_as, one.bits_per_byte):
            assert figure.low <= figure.value <= figure.high


@settings(max_examples=25, deadline=None)
@given(power=st.floats(0.0, 8.5), year=st.sampled_from([2020.0, 2024.0, 2029.0, 2035.0]),
       more=st.floats(1.01, 30.0))
def test_more_money_in_any_year_buys_no_smaller_model_of_no_higher_loss(power, year, more):
    found, line = kept()
    less, larger = (reached(found, usd, year, line) for usd in (10 ** power, more * 10 ** power))
    if less.parameters.value is None:
        return
    assert larger.parameters.value >= less.parameters.value
    assert larger.rung.shape.parameters >= less.rung.shape.parameters
    assert larger.budget_usd / less.budget_usd == pytest.approx(more)


def kept(cache: list = []):  # noqa: B006
    if not cache:
        cache.append((rungs.ladder(), hardware.pace(hardware.paces(), "16-bit", "rent").line))
    return cache[0]


def test_sizes_between_two_rungs_lie_between_them(ladder):
    for one, other in list(zip(ladder.rungs, ladder.rungs[1:], strict=False))[::5]:
        middle = math.sqrt(one.usd.value * other.usd.value)
        size = ladder.size(middle)
        assert one.shape.parameters < size < other.shape.parameters
        assert ladder.rung(middle) is one
        assert ladder.size(one.usd.value) == pytest.approx(one.shape.parameters)
    assert ladder.size(0.5 * ladder.rungs[0].usd.value) is None
    assert ladder.rung(0.5 * ladder.rungs[0].usd.value) is None


def test_between_two_rungs_the_machine_runs_for_as_long_as_the_money_lasts(ladder):
    rung = ladder.rungs[12]
    budget = math.sqrt(rung.usd.value * ladder.rungs[13].usd.value)
    found = reached(ladder, budget, ladder.year, None)
    assert found.rung is rung and not found.time_binds
    assert found.seconds == pytest.approx(min(
        rungs.LONGEST_SECONDS, rung.seconds.value * budget / rung.usd.value))


def test_without_a_trend_only_today_is_known(ladder):
    assert reached(ladder, 1e4, ladder.year, None).basis == "today's prices"
    with pytest.raises(InputError, match="no trend to go to 2030"):
        reached(ladder, 1e4, 2030.0, None)


def test_todays_progress_is_none_and_its_map_is_exact(ladder, rent):
    now = reached(ladder, 1e5, ladder.year, rent)
    assert now.as_good_as.value == now.parameters.value
    assert now.parameters.value == ladder.size(1e5)


@settings(max_examples=25, deadline=None)
@given(start=st.floats(2015, 2030), years=st.floats(-8, 8), more=st.floats(-8, 8))
def test_progress_of_algorithms_multiplies_and_contains_itself(start, years, more):
    one = capability.algorithms(start, start + years)
    other = capability.algorithms(start + years, start + years + more)
    both = capability.algorithms(start, start + years + more)
    assert both.value == pytest.approx(one.value * other.value)
    assert one.low <= one.value * (1 + 1e-12) and one.value <= one.high * (1 + 1e-12)
    back = capability.algorithms(start + years, start)
    assert back.value == pytest.approx(1 / one.value)
    assert (back.low, back.high) == pytest.approx((1 / one.high, 1 / one.low))


# Records, offers and named trainings.

def test_a_task_is_its_records_in_order_and_its_factor_is_their_ends():
    for task in capability.tasks():
        days = [one.day for one in task.records]
        assert days == sorted(days) and len({one.task for one in task.records}) == 1
        assert task.factor == task.records[0].value / task.records[-1].value
        if task.years:
            assert task.yearly ** task.years == pytest.approx(task.factor)
        assert {one.unit for one in task.records} <= set(facts.UNITS)


def test_an_unknown_rate_of_progress_names_the_nearest():
    with pytest.raises(UnknownName, match="algorithmic_halving"):
        facts.rate("algorithmic_halfing")


def test_the_best_offer_is_of_the_newest_two_years():
    def offer(name, day, value):
        return Offer(name, day, value, "a page")

    old, new, best = (offer("old", date(2020, 1, 1), 9.0), offer("new", date(2025, 6, 1), 2.0),
                      offer("best", date(2024, 1, 1), 3.0))
    pace = Pace("16-bit", "rent", (old, best, new), None)
    assert pace.best is best
    assert replace(pace, offers=()).best is None


def test_each_point_of_a_frontier_is_a_model_by_that_approach():
    found = costs()
    for one in frontier(found):
        assert len(one.points) + one.without == len(found)
        known = {cost.model.name: getattr(cost, one.approach) for cost in found}
        for point in one.points:
            assert point.usd == known[point.name].usd_2023 > 0
            assert point.year == year_of(point.published)
        line = fit([point.year for point in one.points], [point.usd for point in one.points])
        assert line == one.line


def test_published_trainings_again_today_are_those_on_the_ladder():
    found = outlook.outlook()
    named = {one.name for one in found.again}
    assert "GPT-3 175B (davinci)" in named
    days = [one.published for one in found.again]
    assert days == sorted(days)
    for one in found.again:
        assert one.now.source.endswith("training-optimal model's")
        if one.rented_usd and one.now.value:
            assert one.factor == one.rented_usd / one.now.value
        else:
            assert one.factor is None
