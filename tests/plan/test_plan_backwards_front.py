from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curbcut.plan.backwards.front import POINTS, front, reason, runners_up
from curbcut.plan.backwards.points import point
from curbcut.plan.backwards.question import COSTS
from curbcut.plan.backwards.solve import solve
from plan.backwards_samples import choices, limited


@pytest.fixture(scope="module")
def solution():
    return solve(choices(limited(usd=500.0)))


def counts(one):
    return np.array([one.bits.value, *(one.costs[name].value for name in COSTS)])


def test_the_front_begins_with_the_best_and_nothing_on_it_beats_another(solution):
    found = front(solution)
    assert 2 < len(found) <= POINTS
    assert found[0].bits.value == pytest.approx(solution.bits[solution.row])
    for one in found:
        for other in found:
            beaten = (counts(other) <= counts(one) * (1 - 1e-9)).all()
            assert not beaten
    bits = [one.bits.value for one in found]
    assert bits == sorted(bits)


def test_no_point_of_the_front_is_beyond_a_limit(solution):
    question = solution.choices.question
    for one in front(solution):
        for name in question.limits:
            assert one.costs[name].value <= question.planned(name) * (1 + 1e-9)


def test_every_figure_has_an_interval_and_a_source(solution):
    for one in (*front(solution), *runners_up(solution)):
        for figure in (one.bits, *one.costs.values()):
            assert figure.low < figure.value < figure.high
            assert figure.source


def test_a_runner_up_is_the_best_of_its_machines_and_says_why_it_lost(solution):
    found = runners_up(solution)
    assert [one.machine.accelerator for one in found] == ["a100-sxm-80gb"]
    mine = solution.choices.fleets[0].accelerator
    assert solution.choices.machine(solution.row).accelerator == mine
    rows = np.flatnonzero(solution.choices.of_fleet == 1)
    assert found[0].bits.value == pytest.approx(
        solution.bits[rows[solution.score[rows].argmin()]])
    assert "hour x0." in found[0].why and "FLOP x1." in found[0].why


def test_another_limit_that_ends_it_is_named():
    hasty = solve(choices(limited(usd=500.0, seconds=3600.0)))
    rows = np.flatnonzero(np.isfinite(hasty.score))
    slow = next(int(row) for row in rows if hasty.choices.machine(int(row)).accelerators == 1
                and hasty.choices.of_fleet[row] != hasty.choices.of_fleet[hasty.row])
    assert ("time ends it" in reason(hasty, slow)) == (
        "time" not in reason(hasty, hasty.row) and hasty.choices.bounds()[hasty.row].argmin() != 3)


def test_a_wanted_loss_has_a_front_of_ways_to_reach_it():
    found = front(solve(choices(replace(limited(), loss=0.9))))
    assert len(found) > 1
    for one in found:
        assert 0.98 * 0.9 <= one.bits.value <= 0.9 * (1 + 1e-9)


def test_a_point_is_the_row_at_its_tokens(solution):
    tokens = float(solution.tokens[solution.row])
    one = point(solution.choices, solution.row, tokens)
    for i, name in enumerate(COSTS):
        assert one.costs[name].value == pytest.approx(solution.costs[solution.row, i])
