"""Laws of the loss and its optima: text that is short, experts, own runs, and numeric checks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import loss_constants, loss_laws
from curbcut.plan import loss, optimum, shapes
from curbcut.plan.loss import law, learned, text
from curbcut.plan.loss.learned import Reading
from curbcut.spec.estimate import Z90, Estimate

SIZES, TOKENS = st.floats(1e6, 1e12), st.floats(1e7, 1e14)
PRIOR = Estimate(1.0, 1 / 1.2, 1.2)
DENSE = shapes.shape(1024, 12, 32768, 2048)
NAMES = [one.name for one in loss_laws.laws()]


# Short text.

@settings(max_examples=25, deadline=None)
@given(unique=TOKENS, epochs=st.floats(1.0, 200.0), more=st.floats(1.01, 10.0))
def test_repeats_add_ever_less_and_never_more_than_new_text(unique, epochs, more):
    one, other = (law.effective_tokens(unique * times, unique) for times in (epochs, epochs * more))
    assert unique * (1 - 1e-12) <= one <= other <= unique * epochs * more * (1 + 1e-12)
    assert (other - one) / (unique * epochs * (more - 1)) <= one / (unique * epochs) + 1e-9
    most = unique * (1 + loss_constants.value("repeat_tokens"))
    assert other <= most * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(size=SIZES, tokens=TOKENS, share=st.floats(0.01, 1.0))
def test_enough_text_is_endless_text_for_its_tokens(size, tokens, share):
    """Text at least as long as the tokens: none of them repeats."""
    assert law.effective_tokens(share * tokens, tokens) == pytest.approx(share * tokens)
    fed = float(law.optimal_parameters(tokens))
    here = law.nats(min(size, fed), share * tokens, unique_tokens=tokens)
    assert here == pytest.approx(law.nats(min(size, fed), share * tokens))


@settings(max_examples=25, deadline=None)
@given(size=SIZES, name=st.sampled_from(NAMES))
def test_optimal_parameters_and_the_compute_optimum_agree(size, name):
    one = loss_laws.law(name)
    found = optimum.by_compute(6 * size * 20 * size, one)
    assert law.optimal_parameters(found.tokens, one) == pytest.approx(found.parameters, rel=1e-9)


# Experts.

@settings(max_examples=25, deadline=None)
@given(size=st.floats(79e6, 2.7e9), each=st.floats(20.0, 400.0), few=st.floats(1.0, 32.0),
       more=st.floats(1.0, 4.0))
def test_more_experts_to_choose_from_lower_the_loss_of_long_trainings(size, each, few, more):
    here, there = (law.nats(size, each * size, expanded=one) for one in (few, few * more))
    assert there <= here * (1 + 1e-9)
    assert law.nats(size, each * size, expanded=1.0) == law.nats(size, each * size)


def test_experts_that_hardly_meet_a_token_teach_less_than_they_take():
    """The joint law's own: experts need tokens, and a very short training has none for them."""
    by_n, by_d = law.moe_factors(79e6, 500e6, 32.0)
    assert by_n < 1 < by_d
    assert law.nats(79e6, 5e7, expanded=32.0) > law.nats(79e6, 5e7)


@settings(max_examples=25, deadline=None)
@given(size=st.floats(1e5, 1e13), tokens=st.floats(1e6, 1e15), experts=st.floats(1.0, 500.0))
def test_the_gain_of_experts_is_held_at_the_edge_of_its_runs(size, tokens, experts):
    def inside(value, ends):
        return min(max(value, ends[0]), ends[1])

    edge = (inside(size, law.MOE_PARAMETERS), inside(tokens, law.MOE_TOKENS),
            inside(experts, law.MOE_EXPANSION))
    assert law.moe_factors(size, tokens, experts) == pytest.approx(law.moe_factors(*edge))
    beyond = law.outside_experts(size, tokens, experts)
    assert (beyond == 0.0) == (edge == (size, tokens, experts) or experts == 1)


@pytest.mark.parametrize(("experts", "each", "shared", "expanded"), [
    (0, 0, 0, 1.0), (8, 1, 0, 8.0), (8, 2, 0, 4.0), (64, 8, 0, 8.0), (256, 8, 1, 257 / 9),
    (4, 4, 0, 1.0)])
def test_experts_are_read_by_how_many_there_are_for_each_that_is_met(experts, each, shared,
                                                                     expanded):
    shape = replace(DENSE, experts=experts, experts_per_token=each, shared_experts=shared,
                    expert_ffn=512 if experts else 0)
    assert law.expansion(shape) == pytest.approx(expanded)


# What tokens are worth.

@settings(max_examples=25, deadline=None)
@given(worth=st.floats(0.2, 5.0), tokens=st.floats(1e9, 1e13))
def test_a_token_worth_twice_is_two_tokens(worth, tokens):
    here, there = (loss.expected(DENSE, count, token_worth=each).bits_per_byte.value
                   for count, each in ((tokens, worth), (tokens * worth, 1.0)))
    assert here == pytest.approx(there, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(size=SIZES, said=st.floats(0.5, 3.0),
       optimiser=st.sampled_from(["adamw", "adamw8", "muon", "adafactor"]))
def test_worth_holds_its_middle_and_scales_with_what_is_said(size, said, optimiser):
    one, plain = text.worth(optimiser, size, said), text.worth(optimiser, size)
    assert one.low <= one.value <= one.high
    assert one.value == pytest.approx(said * plain.value)
    assert plain.value >= 1.0 and (plain.value == 1.0 or optimiser == "muon")


# Own runs.

def by_hand(found, size, tokens):
    """The posterior of offset (at the readings' mean) and slope, as a least-squares problem of
    rows over their spreads, read at `tokens` as far as the slope reaches.
    """
    spreads = [math.hypot(math.log(learned.RUN_SPREAD), math.log(size / one.parameters)
                          * math.log(learned.FAR_SPREAD)) / Z90 for one in found]
    logs = np.log([one.tokens for one in found])
    middle = np.average(logs, weights=1 / np.square(spreads))
    rows = [[Z90 / math.log(1.2), 0.0], [0.0, Z90 / math.log(learned.SLOPE_SPREAD)]]
    rows += [[1 / spread, (log - middle) / spread]
             for log, spread in zip(logs, spreads, strict=True)]
    values = [0.0, 0.0, *(one.log_ratio / spread
                          for one, spread in zip(found, spreads, strict=True))]
    matrix = np.array(rows)
    solved = np.linalg.lstsq(matrix, np.array(values), rcond=None)[0]
    near = min(max(math.log(tokens), logs.min() - 1), logs.max() + 1)
    at = np.array([1.0, near - middle])
    beyond = min(abs(math.log(tokens) - near), learned.MOST_BEYOND)
    variance = at @ np.linalg.inv(matrix.T @ matrix) @ at
    return at @ solved, variance + (beyond * math.log(learned.SLOPE_SPREAD) / Z90) ** 2


READINGS = st.lists(st.builds(Reading, st.floats(-0.6, 0.6), st.floats(1e7, 1e11),
                              st.floats(1e8, 1e13)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(found=READINGS, size=st.floats(1e7, 1e12), tokens=st.floats(1e8, 1e14))
def test_the_factor_is_the_least_squares_of_priors_and_readings(found, size, tokens):
    offset, variance = by_hand(found, size, tokens)
    one = learned.factor(PRIOR, found, size, tokens)
    assert math.log(one.value) == pytest.approx(offset, rel=1e-6, abs=1e-9)
    width = math.hypot(Z90 * math.sqrt(variance), math.log(learned.RUN_SPREAD))
    assert math.log(one.high / one.value) == pytest.approx(width, rel=1e-6)
    assert math.log(one.value / one.low) == pytest.approx(width, rel=1e-6)
    assert learned.factors(PRIOR, found, np.array([size]), np.array([tokens]))[0] \
        == pytest.approx(one.value)


@settings(max_examples=25, deadline=None)
@given(found=READINGS, more=st.integers(2, 5))
def test_the_same_runs_again_narrow_the_factor(found, more):
    widths = []
    for readings in ([], found, found * more):
        one = learned.factor(PRIOR, readings, 1e9, 2e10)
        widths.append(math.log(one.high / one.value))
    assert widths[2] < widths[1]
    # One far run may say less than a next run's own seed, and the way to it, add to the prior.
    way = (1 + learned.MOST_BEYOND) * math.log(learned.SLOPE_SPREAD)
    assert widths[1] <= math.hypot(widths[0], math.log(learned.RUN_SPREAD), way) * (1 + 1e-9) \
        or len(found) > 1


def test_without_runs_the_factor_is_the_prior_itself():
    assert learned.factor(PRIOR, [], 1e9, 1e10) is PRIOR
    assert learned.factors(PRIOR, [], 1e9, 1e10) == 1.0
    assert learned.apart([], 1e9, 1e10) == math.inf


@settings(max_examples=25, deadline=None)
@given(found=READINGS)
def test_a_run_is_no_way_from_itself(found):
    one = found[0]
    assert learned.apart(found, one.parameters, one.tokens) == 0.0
    assert learned.apart(found, one.parameters * math.e, one.tokens) <= 1.0 + 1e-9


# Optima.

@settings(max_examples=20, deadline=None)
@given(nats=st.floats(1.9, 3.5), share=st.floats(0.35, 4.0), name=st.sampled_from(
    ["besiroglu-2024"]))
def test_no_other_size_reaches_a_loss_with_less_compute(nats, share, name):
    one = loss_laws.law(name)
    best = optimum.by_loss(nats, one)
    assert float(law.nats(best.parameters, best.tokens, law=one)) == pytest.approx(nats)
    other = share * best.parameters
    tokens = optimum.tokens_for(other, nats, one)
    assert 6 * other * tokens >= best.flops * (1 - 1e-9)
    if math.isfinite(tokens):
        assert float(law.nats(other, tokens, law=one)) == pytest.approx(nats, rel=1e-6)
        assert float(law.nats(other, 0.99 * tokens, law=one)) > nats


@settings(max_examples=20, deadline=None)
@given(flops=st.floats(1e17, 1e27), more=st.floats(1.1, 1e3))
def test_more_compute_is_a_larger_model_of_more_tokens_and_a_lower_loss(flops, more):
    one, other = optimum.by_compute(flops), optimum.by_compute(flops * more)
    assert other.parameters > one.parameters and other.tokens > one.tokens
    assert other.nats < one.nats and other.flops == pytest.approx(flops * more)


@settings(max_examples=15, deadline=None)
@given(flops=st.floats(1e19, 1e26), served=st.floats(1e9, 1e15), more=st.floats(1.0, 1e3))
def test_a_life_costs_more_with_more_serving_and_its_parts_add_up(flops, served, more):
    nats = float(optimum.by_compute(flops).nats)
    one, other = (optimum.for_life(nats, each) for each in (served, served * more))
    assert other.cost >= one.cost * (1 - 1e-9)
    assert other.optimum.parameters <= one.optimum.parameters * (1 + 1e-5)
    for each, tokens in ((one, served), (other, served * more)):
        assert each.cost == each.training + each.serving
        assert each.serving == pytest.approx(2 * each.optimum.parameters * tokens)
        assert each.training == pytest.approx(each.optimum.flops)
        assert each.beside_cost >= each.cost * (1 - 1e-9)
        assert each.optimum.parameters <= each.beside.parameters * (1 + 1e-5)


@settings(max_examples=20, deadline=None)
@given(flops=st.floats(1e19, 1e26), share=st.floats(0.05, 20.0))
def test_off_the_optimum_loss_or_compute_is_paid(flops, share):
    found = optimum.over_trained(flops, share)
    assert found.compute >= 1 - 1e-9 and found.excess >= 1 - 1e-12
    assert found.same_compute.flops == pytest.approx(flops)
    if math.isfinite(found.compute):
        assert found.same_loss.flops == pytest.approx(found.compute * flops)
