"""Laws of a budget run backwards: limits, draws, shadow prices, traffic, shapes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.facts import currency
from curbcut.plan import rules
from curbcut.plan.backwards import family, fleets, impossible
from curbcut.plan.backwards.build import build
from curbcut.plan.backwards.chances import drawn, with_chances, with_intervals
from curbcut.plan.backwards.choices import LEAST_TOKENS, MOST_TOKENS
from curbcut.plan.backwards.fleets import narrow
from curbcut.plan.backwards.front import front, runners_up
from curbcut.plan.backwards.points import point
from curbcut.plan.backwards.question import (
    COSTS,
    MOST_EPOCHS,
    NAMES,
    SECONDS_A,
    Question,
    Traffic,
    of_limits,
    parse_traffic,
)
from curbcut.plan.backwards.serving import served
from curbcut.plan.backwards.solve import binds, least_needs, shadows, solve
from curbcut.spec import checks
from curbcut.spec.estimate import given as exactly
from curbcut.spec.nouns import Limits, Place, ServeJob
from curbcut.units import Money
from plan.backwards_samples import DAY, RENTED, choices, limited, machine, market, shapes

MONEY = st.floats(3.0, 1e4)


@pytest.fixture(scope="module")
def solution():
    return solve(choices(limited(usd=500.0)))


def rows_of(solution, count):
    """Rows spread over the possible ones, the best first."""
    able = np.flatnonzero(np.isfinite(solution.score))
    order = able[np.argsort(solution.score[able], kind="stable")]
    return [int(row) for row in order[::max(1, len(order) // count)]]


# The question.

@settings(max_examples=25, deadline=None)
@given(amount=st.floats(0.01, 1e9), code=st.sampled_from(currency.codes()),
       multiplier=st.floats(1.0, 9.0))
def test_a_budget_of_any_currency_is_dollars_over_the_project(amount, code, multiplier):
    found = of_limits(Limits(money=Money(amount, code)), multiplier=exactly(multiplier, "test"))
    wanted = amount * currency.usd_per(code).value / multiplier
    assert found.limits["usd"] == pytest.approx(wanted)
    assert found.planned("usd") == pytest.approx(rules.LIMIT_MARGIN * wanted)
    assert found.planned("kwh") == math.inf
    assert found.assumed == {"seconds"} and set(found.limits) <= set(NAMES)


@settings(max_examples=25, deadline=None)
@given(amount=st.integers(1, 10**12), name=st.sampled_from(sorted(SECONDS_A)),
       months=st.floats(0.1, 60.0), loud=st.booleans())
def test_traffic_is_tokens_over_the_time_that_is_named(amount, name, months, loud):
    said = f"{amount} tok/{name.upper() if loud else name}"
    found = parse_traffic(said, replace(ServeJob(), months=months))
    assert found.tokens_per_second == pytest.approx(amount / SECONDS_A[name])
    assert found.tokens == pytest.approx(found.tokens_per_second * months * SECONDS_A["month"])


@pytest.mark.parametrize("text", ["5/", "5/ ", "1e9 tok/fortnight", "1 tok/day/day"])
def test_a_time_that_is_none_names_one(text):
    with pytest.raises(UnknownName) as caught:
        parse_traffic(text, ServeJob())
    assert "--serve" in str(caught.value)


# What limits buy.

@settings(max_examples=20, deadline=None)
@given(usd=MONEY, more=st.floats(1.0, 20.0), name=st.sampled_from(COSTS))
def test_each_limit_pays_for_more_tokens_where_it_is_higher(usd, more, name):
    question = limited(usd=usd, kwh=usd, kgco2e=usd)
    raised = replace(question, limits={**question.limits, name: more * question.limits[name]})
    before, after = (choices(one).bounds() for one in (question, raised))
    i = COSTS.index(name)
    assert (after[:, i] >= before[:, i] - 1e-6).all()
    others = [j for j in range(after.shape[1]) if j != i]
    assert (after[:, others] == before[:, others]).all()


@settings(max_examples=15, deadline=None)
@given(loss=st.floats(0.75, 1.6), easier=st.floats(1.0, 1.3))
def test_an_easier_loss_needs_no_more_tokens_of_any_row(loss, easier):
    found = choices(replace(limited(), loss=loss))
    hard, easy = found.needed(loss), found.needed(loss * easier)
    assert (easy <= hard * (1 + 1e-9)).all()
    assert (hard >= found.fewest() * (1 - 1e-9)).all() and (hard > LEAST_TOKENS).all()


@settings(max_examples=15, deadline=None)
@given(loss=st.floats(0.85, 1.2), easier=st.floats(1.0, 1.2))
def test_an_easier_loss_costs_no_more_money(loss, easier):
    costs = []
    for one in (loss, loss * easier):
        found = solve(choices(replace(limited(), loss=one)))
        costs.append(float(found.score[found.row]) if found.found else math.inf)
    assert costs[1] <= costs[0] * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(usd=MONEY, text=st.floats(1e7, 1e11), more=st.floats(1.0, 10.0))
def test_more_text_is_never_worse_and_is_read_at_most_so_often(usd, text, more):
    question = replace(limited(usd=usd), text_bytes=text)
    found, richer = (solve(choices(one)) for one in (
        question, replace(question, text_bytes=more * text)))
    if not found.found:
        return
    assert richer.score[richer.row] <= found.score[found.row] + 1e-12
    law, place = found.choices.law, int(found.choices.of_shape[found.row])
    assert found.tokens[found.row] <= MOST_EPOCHS * law.unique_tokens(place) * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(usd=MONEY, worth=st.floats(1.0, 4.0))
def test_better_text_is_never_worse(usd, worth):
    plain, better = (solve(choices(replace(limited(usd=usd), token_worth=one)))
                     for one in (1.0, worth))
    assert better.score[better.row] <= plain.score[plain.row] + 1e-12


@settings(max_examples=8, deadline=None)
@given(usd=MONEY, kwh=st.floats(1.0, 3e3), text=st.sampled_from([0.0, 1e9]))
def test_shadow_prices_are_never_negative_and_a_tenth_gains_more_than_a_hundredth(usd, kwh, text):
    question = replace(limited(usd=usd, kwh=kwh), text_bytes=text)
    found = solve(choices(question))
    if not found.found:
        return
    worth = {one.name: one for one in shadows(found)}
    assert set(worth) == {*question.limits, *(["data"] if text else [])}
    for one in worth.values():
        assert one.per_unit >= 0 and one.tenth >= one.per_unit * 0.01 * one.limit - 1e-12
        assert one.limit == question.limits.get(one.name, text)
    assert worth[binds(found)[0]].tenth > 0 or "memory" in binds(found) or "law" in binds(found)


def test_a_thousandfold_budget_gains_less_a_dollar():
    per_dollar = []
    for usd in (10.0, 1e4):
        found = solve(choices(limited(usd=usd)))
        per_dollar.append(next(one.per_unit for one in shadows(found) if one.name == "usd"))
    assert per_dollar[0] > 10 * per_dollar[1] > 0


def test_other_limits_do_no_physics_again():
    found = choices(limited(usd=10.0))
    other = found.with_question(Question({"kwh": 5.0}))
    assert other.per_token is found.per_token and other.rates is found.rates
    assert other.question.limits == {"kwh": 5.0} and np.isinf(other.bounds()[:, 0]).any()


# What cannot be.

def test_what_a_row_needs_is_named_in_what_people_wrote():
    question = of_limits(Limits(money=Money(1e-5, "EUR"), kwh=1e-7))
    found = choices(question)
    said = {"money": Money(1e-5, "EUR"), "kwh": 1e-7}
    error = impossible.error(found, said, lambda one: choices(one),
                             lambda _, row, tokens: dict.fromkeys(COSTS, 0.0))
    assert error.what.startswith("0.0000100 EUR and 0.360 J buys no model")
    assert error.mend.startswith("the smallest feasible budget is ")
    assert "EUR and" in error.mend and "Wh on" in error.mend
    row, needs = least_needs(found)
    assert found.machine(row).name in error.mend and needs["usd"] > question.limits["usd"]


def test_a_loss_below_the_laws_floor_says_the_floor():
    question = replace(limited(usd=100.0), loss=0.1)
    found = choices(question)
    error = impossible.error(found, {"money": Money(100, "USD")}, lambda one: choices(one),
                             lambda *_: {})
    floor = float(found.law.bits(np.full(len(found.shapes), 1e30),
                                 np.arange(len(found.shapes))).min())
    assert f"the law's best on this text is {floor:.3f}" in error.mend
    best = solve(choices(replace(question, loss=None)))
    assert f"the lowest within the limits is {best.bits[best.row]:.3f}" in error.what


# Chances.

def test_of_two_plans_one_is_better_in_every_draw(solution):
    """The chances of either against the other are one together: draws are common to both."""
    first, *others = [point(solution.choices, row, float(solution.tokens[row]))
                      for row in rows_of(solution, 6)]
    for other in others:
        there = with_chances(solution.choices, first, [other])[0].chance
        back = with_chances(solution.choices, other, [first])[0].chance
        assert there + back == pytest.approx(1.0)


def test_a_rows_draws_do_not_depend_on_what_else_is_drawn(solution):
    row = rows_of(solution, 4)[1]
    one, again = (drawn(solution.choices, row, 1e10, samples=300) for _ in range(2))
    for name in ("slower", "rates", "worth", "text", "reducible"):
        assert (getattr(one, name) == getattr(again, name)).all()
    other = drawn(solution.choices, row, 1e10, samples=300, seed=1)
    assert (other.slower != one.slower).any()


def test_draws_lie_around_what_the_row_itself_draws(solution):
    """Not around the machine's usual share: what the work keeps busy moves its energy."""
    found = solution.choices
    usual = np.array([found.fleets[i].rates[m]["kwh"].value for i, m in zip(
        found.of_fleet, found.of_machine, strict=True)])
    able = np.isfinite(found.per_token)
    row = int(np.where(able, np.abs(found.rates[:, 1] / usual - 1), 0.0).argmax())
    assert abs(found.rates[row, 1] / usual[row] - 1) > 0.03
    sample = drawn(found, row, 1e10)
    assert np.allclose(np.median(sample.rates, axis=0), found.rates[row], rtol=0.02)


def test_in_every_draw_more_tokens_cost_more_and_teach_more(solution):
    sample = drawn(solution.choices, solution.row, 1e10, samples=400)
    few, many = sample.costs(1e9), sample.costs(1e10)
    assert (many > few).all() and (sample.bits(1e10) < sample.bits(1e9)).all()
    # The time of a draw is that of its steps; money, energy and carbon are its rates times it.
    assert np.allclose(few[:, 0] / few[:, 3], sample.rates[:, 0])
    slope = (many - few) / 9e9
    assert np.allclose(few - slope * 1e9, sample.costs(0.0))


def test_in_every_draw_the_limits_hold_what_they_pay_for(solution):
    sample = drawn(solution.choices, solution.row, 1e10, samples=400)
    most, question = sample.most(), solution.choices.question
    spent = sample.costs(most)
    for i, name in enumerate(COSTS):
        assert (spent[:, i] <= question.planned(name) * (1 + 1e-9)).all()
    bound = np.array([question.planned(name) for name in COSTS])
    assert np.allclose((spent / bound).max(1), 1.0)


def test_in_every_draw_the_tokens_needed_reach_the_loss_and_no_fewer_do(solution):
    sample = drawn(solution.choices, solution.row, 1e10, samples=400)
    wanted = float(np.median(sample.bits(1e10)))
    needed = sample.needed(wanted)
    able = needed < 0.5 * MOST_TOKENS
    assert 0.5 < able.mean() <= 1.0
    assert (sample.bits(needed)[able] <= wanted * (1 + 1e-6)).all()
    assert (sample.bits(0.98 * needed)[able] > wanted).all()
    assert (sample.bits(MOST_TOKENS)[~able] > wanted * (1 - 0.02)).all()


def test_every_interval_holds_its_figure(solution):
    points = [point(solution.choices, row, float(solution.tokens[row]))
              for row in rows_of(solution, 8)]
    for one in with_intervals(solution.choices, points):
        for figure in (one.bits, *one.costs.values()):
            assert figure.low <= figure.value <= figure.high


@settings(max_examples=6, deadline=None)
@given(usd=MONEY, kgco2e=st.floats(0.5, 500.0))
def test_the_front_holds_the_choice_and_runners_up_are_no_better(usd, kgco2e):
    found = solve(choices(limited(usd=usd, kgco2e=kgco2e)))
    best = point(found.choices, found.row, float(found.tokens[found.row]))
    assert (best.row, best.tokens) in {(one.row, one.tokens) for one in front(found, best)}
    others = runners_up(found)
    scores = [float(found.score[one.row]) for one in others]
    assert scores == sorted(scores) and all(one >= found.score[found.row] for one in scores)
    assert all(one.why for one in others)


# Where it may run, and what.

@pytest.mark.parametrize("context", [0, 512, 8192])
@pytest.mark.parametrize("experts", [True, False])
def test_shapes_keep_the_context_that_is_asked_for(context, experts):
    found = family.family(context, experts=experts)
    assert {one.context_tokens for one in found} == {context or rules.SEQUENCE}
    assert all(one.parameters >= rules.LEAST_PARAMETERS for one in found)
    if not experts:
        assert set(found) < set(family.family(context))
    for one in found[::9]:
        checks.shape(one)
        assert one.layers >= rules.LEAST_LAYERS and one.width % one.head_size == 0


@settings(max_examples=15, deadline=None)
@given(count=st.sampled_from([1, 2, 8, 16, 64]), limit=st.floats(0.4, 1.0),
       pue=st.floats(1.0, 2.0))
def test_a_second_costs_its_accelerators_and_carbon_follows_energy(count, limit, pue):
    place = Place(tenure="rent", zone="DEU", pue=pue)
    one, many = (fleets.rates_of(machine(f"{n}xH100"), place, limit) for n in (1, count))
    assert many["usd"].value == pytest.approx(count * one["usd"].value, rel=1e-6)
    assert many["seconds"].value == 1.0
    better = fleets.rates_of(machine(f"{count}xH100"), replace(place, pue=1.0), limit)
    assert many["kwh"].value == pytest.approx(pue * better["kwh"].value)
    free = fleets.rates_of(machine(f"{count}xH100"), place)
    assert many["kwh"].value <= free["kwh"].value * (1 + 1e-9)


@settings(max_examples=8, deadline=None)
@given(rate=st.floats(1.0, 1e5), more=st.floats(1.0, 30.0), months=st.floats(0.01, 24.0))
def test_servers_are_whole_and_a_life_is_as_long_as_its_months(rate, more, months):
    job = ServeJob(months=months)
    few, many = (served(shapes()[::4], machine("8xH100"), "bf16", Traffic(one, job))
                 for one in (rate, rate * more))
    able = np.isfinite(few.replicas)
    assert able.any() and (few.replicas[able] == np.floor(few.replicas[able])).all()
    assert (many.accelerators >= few.accelerators).all()
    assert ((few.busy[able] > 0) & (few.busy[able] <= 1 + 1e-9)).all()


def test_serving_twice_as_long_costs_twice_as_much():
    short, long = (build(replace(limited(usd=1e5), traffic=Traffic(
        1e3, ServeJob(months=months))), market()[:1], shapes()[::4]) for months in (1.0, 2.0))
    able = np.isfinite(short.life[:, 0])
    assert able.any()
    assert np.allclose(long.life[able], 2 * short.life[able])
    assert (short.servers == long.servers).all()


def test_tokens_of_a_narrow_format_are_worth_less_and_needed_in_greater_number():
    fine = narrow(market()[0])
    both = build(replace(limited(usd=1e4), loss=0.95), [market()[0], *fine], shapes()[::3])
    usual, less = (np.flatnonzero(both.of_fleet == i) for i in (0, 1))
    place = {(int(both.of_shape[i]), int(both.of_column[i])): i for i in usual}
    needed, fewest, compared = both.needed(0.95), both.fewest(), 0
    for i in less:
        twin = place[int(both.of_shape[i]), int(both.of_column[i])]
        if np.isfinite(needed[i]) and needed[twin] > fewest[twin] * (1 + 1e-9):
            assert needed[i] == pytest.approx(needed[twin] / both.worth[i], rel=1e-6)
            compared += 1
    assert compared > 3


def test_no_time_at_all_is_refused_with_what_it_would_take():
    found = choices(Question({"usd": 100.0, "seconds": 1.0}))
    assert not solve(found).found
    row, needs = least_needs(found)
    assert row is not None and needs["seconds"] > 1.0
    assert solve(choices(Question({"usd": 100.0, "seconds": 1.01 * needs["seconds"]}))).found
    assert needs["seconds"] < DAY and RENTED.tenure == "rent"


def test_limits_without_any_is_an_error_with_its_options():
    with pytest.raises(InputError) as caught:
        of_limits(Limits())
    for option in ("--budget", "--energy", "--carbon", "--hours", "--loss", "--search"):
        assert option in str(caught.value)
