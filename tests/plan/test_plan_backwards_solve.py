from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan import loss, rules
from curbcut.plan.backwards.question import COSTS, MOST_EPOCHS, Question
from curbcut.plan.backwards.solve import binds, least_needs, shadows, solve
from plan.backwards_samples import DAY, choices, limited

MONEY = st.floats(1.0, 1e4)
SHARES = st.floats(0.05, 1.0)


def best(question):
    solution = solve(choices(question))
    return float(solution.score[solution.row])


@settings(max_examples=25, deadline=None)
@given(usd=MONEY, more=st.floats(1.0, 10.0))
def test_more_money_never_ends_in_a_worse_loss(usd, more):
    assert best(limited(usd=usd * more)) <= best(limited(usd=usd))


@settings(max_examples=25, deadline=None)
@given(usd=MONEY, name=st.sampled_from(COSTS[1:]), share=SHARES)
def test_a_tighter_limit_beside_it_is_never_better(usd, name, share):
    free = solve(choices(limited(usd=usd)))
    used = free.costs[free.row][COSTS.index(name)]
    held = limited(**{"usd": usd, name: float(used * share)})
    assert best(held) >= free.score[free.row] - 1e-12


@settings(max_examples=25, deadline=None)
@given(usd=MONEY, kwh=st.floats(1.0, 3e3), seconds=st.floats(3600.0, 30 * DAY),
       text=st.sampled_from([0.0, 1e9, 1e11]))
def test_the_best_keeps_every_limit(usd, kwh, seconds, text):
    question = Question({"usd": usd, "kwh": kwh, "seconds": seconds}, text_bytes=text)
    solution = solve(choices(question))
    assert solution.found
    for name, value in zip(COSTS, solution.costs[solution.row], strict=True):
        assert value <= question.planned(name) * (1 + 1e-9)
    tokens = solution.tokens[solution.row]
    law = solution.choices.law
    assert tokens <= law.most_tokens[solution.choices.of_shape[solution.row]] * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(usd=MONEY, text=st.sampled_from([0.0, 3e9]))
def test_brute_force_agrees(usd, text):
    question = replace(limited(usd=usd, kwh=usd), text_bytes=text)
    found = choices(question)
    lowest = math.inf
    for row in range(len(found.of_shape)):
        shape, seconds = found.shape(row), found.per_token[row]
        if not math.isfinite(seconds):
            continue
        rates = dict(zip(COSTS, found.rates[row], strict=True))
        tokens = min((0.85 * question.limits[name] / rates[name] - found.fixed[row])
                     / seconds for name in question.limits)
        unique = None
        if text:
            unique = text / loss.bytes_per_token(shape.vocab, "")
            tokens = min(tokens, MOST_EPOCHS * unique)
        if tokens < found.least_tokens or rules.batch_tokens(
                tokens, "muon") < found.sequences[row] * 2048:
            continue
        if not found.sure[row] and tokens / 1.02 >= found.fewest()[row]:
            tokens /= 1.02
        bits = loss.expected(shape, tokens, optimiser="muon", unique_tokens=unique).bits_per_byte
        lowest = min(lowest, bits.value)
    assert best(question) == pytest.approx(lowest, rel=1e-9)


@pytest.mark.parametrize(("question", "bound"), [
    (limited(usd=100.0), "usd"), (limited(usd=1e4, kwh=5.0), "kwh"),
    (limited(usd=1e4, kgco2e=0.5), "kgco2e"), (Question({"usd": 1e4, "seconds": 600.0}), "seconds"),
    (replace(limited(usd=1e4), text_bytes=1e7), "data")])
def test_what_binds_is_named_first(question, bound):
    solution = solve(choices(question))
    assert binds(solution)[0] == bound
    worth = {one.name: one.per_unit for one in shadows(solution)}
    assert worth[bound] > 0
    assert all(value == 0 for name, value in worth.items() if name not in binds(solution))


def test_a_shadow_price_is_what_the_next_plan_saves():
    question = limited(usd=500.0)
    price = next(one for one in shadows(solve(choices(question))) if one.name == "usd")
    richer = limited(usd=501.0)
    assert best(question) - best(richer) == pytest.approx(price.per_unit, rel=0.05)
    assert best(question) - best(limited(usd=550.0)) == pytest.approx(price.tenth, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(usd=st.floats(10.0, 3e3))
def test_the_loss_that_money_reaches_costs_no_more_than_that_money(usd):
    forward = solve(choices(limited(usd=usd)))
    wanted = float(forward.score[forward.row])
    back = solve(choices(replace(limited(), loss=wanted)))
    assert back.found
    assert back.score[back.row] <= forward.costs[forward.row, 0] * (1 + 1e-4)
    assert back.bits[back.row] <= wanted * (1 + 1e-9)


def test_tokens_needed_reach_the_loss_and_no_fewer_do():
    found = choices(replace(limited(), loss=0.9))
    tokens = found.needed(0.9)
    some = np.flatnonzero(np.isfinite(tokens) & (tokens > 1.001 * found.fewest()))
    assert (tokens >= found.fewest() * (1 - 1e-9)).all()
    assert len(some)
    places = found.of_shape[some]
    assert np.allclose(found.law.bits(tokens[some], places), 0.9, rtol=1e-6)
    assert (found.law.bits(0.9 * tokens[some], places) > 0.9).all()


@pytest.mark.parametrize("question", [limited(usd=1e-6), limited(usd=1e-6, kwh=1e-9),
                                      replace(limited(usd=1.0), loss=0.85)])
def test_the_smallest_feasible_budget_is_feasible_and_hardly_more(question):
    found = choices(question)
    assert not solve(found).found
    row, needs = least_needs(found)
    assert row is not None
    raised = {name: max(limit, needs[name]) for name, limit in question.limits.items()}
    enough = {name: 1.001 * value for name, value in raised.items()}
    assert solve(choices(replace(question, limits=enough))).found
    below = {name: 0.98 * value if value > question.limits[name] else value
             for name, value in raised.items()}
    if question.loss is None and len(question.limits) == 2:
        assert not solve(choices(replace(question, limits=below))).found


def test_text_of_which_nobody_knows_the_end_binds_nothing():
    solution = solve(choices(limited(usd=200.0)))
    assert "data" not in binds(solution)
    assert "data" not in {one.name for one in shadows(solution)}
