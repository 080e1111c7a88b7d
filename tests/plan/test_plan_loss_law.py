"""The formulas of the loss law against published figures and runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import loss_constants, loss_laws, loss_runs
from curbcut.plan import loss
from curbcut.plan.loss import law, text

REPEATS = 15.387756
"""R*_D of arXiv:2305.16264."""


def test_additive_law_at_chinchilla_itself():
    # 70B parameters and 1.4T tokens with the refitted coefficients, by hand.
    by_hand = 1.8172 + 482.01 / 70e9 ** 0.3478 + 2085.43 / 1.4e12 ** 0.3658
    assert loss.additive_nats(70e9, 1.4e12) == pytest.approx(by_hand)
    assert loss.nats(70e9, 1.4e12) == pytest.approx(by_hand, rel=5e-4)


def test_kaplan_limits_are_its_two_single_laws():
    assert loss.kaplan_nats(1e6, 1e30) == pytest.approx((6.4e13 / 1e6) ** 0.076)
    assert loss.kaplan_nats(1e30, 1e8) == pytest.approx((1.8e13 / 1e8) ** 0.103)


def test_one_law_and_one_factor_describe_published_runs_over_four_orders_of_magnitude():
    trained = [run for run in loss_runs.runs() if run.warmup_share < 0.9]
    ratios = [run.nats_per_token / float(loss.nats(run.parameters, run.tokens))
              for run in trained]
    assert len(trained) == 12
    assert np.std(np.log(ratios)) < 0.02
    assert max(ratios) < loss.learned.TEXT_SPREAD
    # Over-trained ones, 80 tokens a parameter and more, need no law of their own.
    over = [ratio for run, ratio in zip(trained, ratios, strict=True)
            if run.tokens / run.parameters > 79]
    assert len(over) == 5
    assert np.mean(over) == pytest.approx(np.mean(ratios), rel=0.02)


def test_the_law_of_over_trained_runs_gives_their_loss():
    of_c4 = loss_laws.law("gadre-2024-c4")
    for run in loss_runs.runs():
        if run.warmup_share < 0.2:
            said = of_c4.E + of_c4.A / run.parameters ** of_c4.alpha \
                + of_c4.B / run.tokens ** of_c4.beta
            assert said == pytest.approx(run.nats_per_token, rel=0.045)


@given(excess=st.floats(1e-4, 50))
def test_the_bend_is_not_felt_near_the_floor_and_can_be_undone(excess):
    assert law.bent(excess) <= min(excess, loss_constants.value("bend"))
    assert law.bent(0.2) == pytest.approx(0.2, rel=1e-3)
    assert law.unbent(law.bent(excess)) == pytest.approx(excess, rel=1e-6)


def test_above_the_bend_nothing_can_be_undone():
    assert law.unbent(100.0) == math.inf


def test_repeats_count_less_and_four_epochs_nearly_fully():
    assert loss.effective_tokens(100, None) == 100
    assert loss.effective_tokens(100, 200) == pytest.approx(100)
    by_hand = 100 * (1 + REPEATS * (1 - math.exp(-3 / REPEATS)))
    assert loss.effective_tokens(400, 100) == pytest.approx(by_hand)
    assert loss.effective_tokens(400, 100) == pytest.approx(400, rel=0.08)
    assert loss.effective_tokens(1e9, 100) == pytest.approx(100 * (1 + REPEATS))


def test_parameters_beyond_what_the_text_feeds_decay():
    fed = float(law.optimal_parameters(1e9))
    assert law.fed_parameters(fed / 2, 1e9) == pytest.approx(fed / 2)
    assert law.fed_parameters(1e30, 1e9) == pytest.approx(fed * (1 + 5.309743))
    assert law.fed_parameters(1e30, None) == 1e30
    by_paper = law.optimal_parameters(1e9, loss_laws.law("muennighoff-2023-c4"))
    assert by_paper == pytest.approx(0.051e9, rel=0.01)


def test_four_epochs_are_nearly_new_text_and_forty_are_not():
    new, four, forty = (float(loss.nats(2.8e9, 55e9, unique_tokens=55e9 / epochs))
                        for epochs in (1, 4, 40))
    # The published rule: up to four epochs lose next to nothing (arXiv:2305.16264, abstract).
    assert four / new - 1 < 0.02
    assert forty / new - 1 > 0.05


@pytest.mark.parametrize(("experts", "n_scale", "n_power", "d_scale", "d_power"), [
    (2, 27.7982, 0.1780, 66.8401, 0.2065), (8, 21.8330, 0.1676, 119.9126, 0.2338),
    (32, 16.5424, 0.1557, 234.6726, 0.2652)])
def test_experts_move_the_terms_as_the_joint_law_says(experts, n_scale, n_power, d_scale, d_power):
    # arXiv:2502.05172, table 4; one expert: 30.3640, 0.1817, 53.9838, 0.1965.
    by_n, by_d = law.moe_factors(1e9, 2e10, float(experts))
    assert by_n == pytest.approx(n_scale / 30.3640 * 1e9 ** (0.1817 - n_power), rel=0.005)
    assert by_d == pytest.approx(d_scale / 53.9838 * 2e10 ** (0.1965 - d_power), rel=0.005)
    assert law.moe_factors(1e9, 2e10, 1.0) == (pytest.approx(1), pytest.approx(1))


def test_bytes_per_token_runs_through_the_measured_points():
    for vocab, bytes_ in text.BYTES_PER_TOKEN:
        assert loss.bytes_per_token(vocab) == pytest.approx(bytes_)
    assert loss.bytes_per_token(3000) == pytest.approx(3.12, abs=0.05)
    assert loss.bytes_per_token(300) == text.BYTES_PER_TOKEN[0][1]
    assert loss.bytes_per_token(10**6) == text.BYTES_PER_TOKEN[-1][1]
    assert loss.bytes_per_token(32768, loss.GENERAL) == pytest.approx(4.48)
    assert loss.bytes_per_token(65536, loss.GENERAL) == pytest.approx(4.88)


@settings(max_examples=50)
@given(vocab=st.integers(256, 300_000), more=st.integers(0, 100_000))
def test_longer_tokens_with_more_entries_and_in_prose(vocab, more):
    for of_text in (loss.PYTHON, loss.GENERAL):
        here = loss.bytes_per_token(vocab, of_text)
        assert here <= loss.bytes_per_token(vocab + more, of_text)
    assert loss.bytes_per_token(vocab) <= loss.bytes_per_token(vocab, loss.GENERAL)


def test_muon_is_worth_what_was_published_and_less_in_large_models():
    assert text.optimiser_worth("muon", 0.1e9) == pytest.approx(1.4)
    assert text.optimiser_worth("muon", 1.2e9) == pytest.approx(1.1)
    assert text.optimiser_worth("muon", 70e9) == pytest.approx(1.1)
    assert 1.1 < text.optimiser_worth("muon", 0.4e9) < 1.4
    assert text.optimiser_worth("adamw8", 1e9) == 1.0
    said = text.worth("muon", 0.1e9, 2.0)
    assert (said.low, said.value, said.high) == pytest.approx((2.2, 2.8, 3.0))

