from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curbcut.plan.backwards.build import build
from curbcut.plan.backwards.chances import drawn, with_chances, with_intervals
from curbcut.plan.backwards.fleets import fleet, narrow
from curbcut.plan.backwards.front import front, runners_up
from curbcut.plan.backwards.points import point
from curbcut.plan.backwards.question import COSTS
from curbcut.plan.backwards.solve import solve
from plan.backwards_samples import RENTED, choices, limited, machine, market, shapes


@pytest.fixture(scope="module")
def solution():
    return solve(choices(limited(usd=500.0)))


def best_of(solution):
    row = solution.row
    return point(solution.choices, row, float(solution.tokens[row]))


def test_draws_lie_around_the_plan(solution):
    one = best_of(solution)
    sample = drawn(solution.choices, one.row, one.tokens)
    assert np.median(sample.bits(one.tokens)) == pytest.approx(one.bits.value, rel=0.01)
    costs = np.median(sample.costs(one.tokens), axis=0)
    for i, name in enumerate(COSTS):
        assert costs[i] == pytest.approx(one.costs[name].value, rel=0.05)
    assert np.median(sample.most()) == pytest.approx(one.tokens, rel=0.05)
    assert np.median(sample.needed(one.bits.value)) == pytest.approx(one.tokens, rel=0.2)


def test_intervals_are_quantiles_near_the_first_order_ones(solution):
    points = [*front(solution), *runners_up(solution)]
    for before, after in zip(points, with_intervals(solution.choices, points), strict=True):
        for old, new in [(before.bits, after.bits), *(
                (before.costs[name], after.costs[name]) for name in COSTS)]:
            assert new.value == old.value and new.low < new.value < new.high
            assert np.log(new.high / new.low) == pytest.approx(np.log(old.high / old.low), rel=0.3)


def test_nothing_beats_itself_and_a_twin_is_never_better(solution):
    one = best_of(solution)
    assert with_chances(solution.choices, one, [one])[0].chance == 0.0


def test_chances_fall_with_the_distance_and_their_order_is_seeded(solution):
    one = best_of(solution)
    found = with_chances(solution.choices, one, runners_up(solution))
    assert all(0.0 <= other.chance <= 0.6 for other in found)
    again = with_chances(solution.choices, one, runners_up(solution))
    assert [other.chance for other in found] == [other.chance for other in again]
    rows = np.flatnonzero(np.isfinite(solution.score))
    worst = int(rows[solution.score[rows].argmax()])
    far = point(solution.choices, worst, float(solution.tokens[worst]))
    assert with_chances(solution.choices, one, [far])[0].chance < 0.01


def test_what_two_rows_share_cancels(solution):
    """Rows of one accelerator differ by their shape alone: their prices move together."""
    choices_, row = solution.choices, solution.row
    same = np.flatnonzero((choices_.of_fleet == choices_.of_fleet[row])
                          & (choices_.of_machine == choices_.of_machine[row])
                          & np.isfinite(solution.score))
    other = int(next(one for one in same[np.argsort(solution.score[same])]
                     if choices_.of_shape[one] != choices_.of_shape[row]))
    ratio = (drawn(choices_, row, 1e10).rates[:, 0] / drawn(choices_, other, 1e10).rates[:, 0])
    assert np.ptp(ratio) < 1e-9 * ratio.mean()
    apart = int(np.flatnonzero(choices_.of_fleet != choices_.of_fleet[row])[0])
    ratio = (drawn(choices_, row, 1e10).rates[:, 0] / drawn(choices_, apart, 1e10).rates[:, 0])
    assert np.ptp(ratio) > 0.1 * ratio.mean()


def test_a_wanted_loss_is_compared_by_money():
    solution = solve(choices(replace(limited(), loss=0.9)))
    found = with_chances(solution.choices, best_of(solution), runners_up(solution))
    assert found and all(0.0 <= other.chance < 0.6 for other in found)


def test_a_narrow_precision_teaches_less_a_token_and_is_offered_beside_the_usual():
    fine = narrow(market()[0])
    assert [one.precision for one in fine] == ["fp8"]
    assert 0.9 <= fine[0].worth.value < 1.0 and fine[0].worth.low < fine[0].worth.value
    assert narrow(fleet([machine("1xA100")], RENTED)) == []
    both = build(limited(usd=1e3), [market()[0], *fine], shapes())
    usual, less = (both.of_fleet == i for i in (0, 1))
    assert (both.worth[usual] == 1.0).all() and (both.worth[less] == fine[0].worth.value).all()
    tokens = np.full(len(both.per_token), 1e12)
    place = {(int(both.of_shape[i]), int(both.of_column[i])): i for i in np.flatnonzero(usual)}
    faster = 0
    for i in np.flatnonzero(less):
        twin = place[int(both.of_shape[i]), int(both.of_column[i])]
        assert both.bits(tokens)[i] > both.bits(tokens)[twin]
        faster += both.per_token[i] < both.per_token[twin]
    assert faster > 0.5 * less.sum()
    row = int(np.flatnonzero(less & np.isfinite(both.per_token))[0])
    sample = drawn(both, row, 1e10)
    assert np.ptp(sample.worth) > 0.05 and point(both, row, 1e10).precision == "fp8"
