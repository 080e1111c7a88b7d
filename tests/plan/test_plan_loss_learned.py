"""What own runs of the ledger teach about a text's loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import own_runs
from curbcut.plan import loss
from curbcut.plan.loss import learned, text
from curbcut.spec import Account, codec, measured
from curbcut.spec.draft import Draft
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import ModelShape
from tiny import tiny_run

BOOKS = "books/"


def run_on(of_text=BOOKS, tokens=50_000_000):
    run = tiny_run()
    return replace(run, train=replace(run.train, text=of_text, tokens=tokens))


def pair(run, ratio, tokens=50e6):
    """A run whose loss came out so many times what is expected of it without own runs."""
    said = loss.expected(run.model, tokens, text=run.train.text,
                         optimiser=run.recipe.optimiser).bits_per_byte.value
    account = Account(loss={"bits_per_byte": measured(said * ratio, "held-out text")},
                      tokens={"trained": measured(tokens, "counted")})
    return codec.plain(run), Account(), account


def asked(run, pairs, tokens=50e6):
    return loss.expected(run.model, tokens, text=run.train.text, optimiser=run.recipe.optimiser,
                         pairs=pairs).bits_per_byte


def test_one_run_moves_the_forecast_and_several_narrow_it():
    run = run_on()
    none, one, five = (asked(run, [pair(run, 0.85)] * many) for many in (0, 1, 5))
    assert one.value == pytest.approx(0.85 * none.value, rel=0.03)
    assert five.value == pytest.approx(0.85 * none.value, rel=0.01)
    assert five.high / five.low < one.high / one.low < none.high / none.low
    assert "5 own runs on this text" in five.source
    # Beside runs of its own size the law's own doubt is gone: seeds alone are left.
    assert five.high / five.low < 1.2
    assert asked(run, [pair(run, 0.85)] * 5, 5e9).source.count("outside its range") == 1


def test_runs_on_other_text_or_with_another_optimiser_teach_nothing():
    run = run_on()
    muon = replace(run, recipe=replace(run.recipe, optimiser="muon"))
    other = [pair(run_on("news/"), 0.5), pair(muon, 0.5)]
    assert asked(run, other) == asked(run, [])


def test_a_run_far_away_is_a_weaker_reading():
    before = Estimate(1.0, 1 / 1.2, 1.2)
    reading = [learned.Reading(math.log(0.8), 1e7, 1e8)]
    near, far = (learned.factor(before, reading, size, 20 * size) for size in (1e7, 1e11))
    assert 0.8 < near.value < far.value < 1
    assert near.high / near.low < far.high / far.low <= 1.2 ** 4


def test_runs_of_different_length_teach_the_slope():
    before = Estimate(1.0, 1 / 1.2, 1.2)
    falling = [learned.Reading(-0.2 * math.log(times), 1e9, times * 1e9) for times in (1, 3, 9)] * 3
    level = [replace(one, log_ratio=-0.2 * math.log(3)) for one in falling]
    nine, further = (learned.factor(before, falling, 1e9, times * 1e9) for times in (9, 27))
    assert nine.value == pytest.approx(9 ** -0.2, rel=0.05)
    assert further.value < nine.value
    flat = learned.factor(before, level, 1e9, 27e9)
    assert flat.value == pytest.approx(3 ** -0.2, rel=0.05)
    assert further.high / further.low > nine.high / nine.low


def test_runs_that_cannot_be_read_or_have_no_loss_are_passed_over():
    run = run_on()
    unread = ({"model": "what"}, Account(), Account())
    lossless = (codec.plain(run), Account(), Account(tokens={"trained": measured(1e6, "x")}))
    assert asked(run, [unread, lossless]) == asked(run, [])


@pytest.mark.parametrize("one", own_runs.runs(loss.PYTHON, "muon"), ids=lambda one: one.run)
def test_the_projects_own_runs_are_within_what_is_expected_of_them(one):
    shape = codec.build(ModelShape, {
        key.partition(".")[2]: value for key, value in Draft().with_values(
            {"model.preset": "curb-4m"}, "test").with_preset().values.items()}, "model")
    assert shape.parameters == pytest.approx(one.parameters, rel=0.1) and shape.vocab == one.vocab
    found = loss.expected(shape, one.tokens, text=loss.PYTHON, optimiser="muon").bits_per_byte
    assert found.low < one.bits_per_byte < found.high


def test_a_ledgers_run_of_the_default_text_moves_what_own_runs_said():
    run = replace(run_on(loss.PYTHON), recipe=replace(run_on().recipe, optimiser="muon"))
    none, five = (asked(run, [pair(run, 0.85, 3e6)] * many, 3e6) for many in (0, 5))
    assert 0.85 * none.value < five.value < 0.98 * none.value
    assert "13 own runs on this text" in five.source


def test_a_known_text_has_the_optimiser_in_its_factor():
    assert learned.taught_worth(loss.PYTHON, "muon", 1e8).value == 1.0
    assert learned.taught_worth(BOOKS, "muon", 1e8) == text.worth("muon", 1e8)
    shape = tiny_run().model
    muon, adamw = (loss.expected(shape, 3e6, text=loss.PYTHON, optimiser=one).bits_per_byte.value
                   for one in ("muon", "adamw"))
    assert muon < adamw < loss.expected(shape, 3e6, optimiser="adamw").bits_per_byte.value


@settings(max_examples=50)
@given(ratios=st.lists(st.floats(0.5, 2), min_size=1, max_size=8))
def test_the_factor_lies_between_the_prior_and_the_readings(ratios):
    found = learned.factor(Estimate(1.0, 1 / 1.2, 1.2), [
        learned.Reading(math.log(ratio), 1e9, 2e10) for ratio in ratios], 1e9, 2e10)
    assert min(1.0, *ratios) * (1 - 1e-9) <= found.value <= max(1.0, *ratios) * (1 + 1e-9)
    assert found.low < found.value < found.high
