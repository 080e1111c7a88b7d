"""Expected loss: known points, limits, no seams, intervals, and what own runs teach."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts.sheet import Sheet
from curbcut.facts import presets
from curbcut.plan import loss, shapes
from curbcut.plan.loss import law, text
from curbcut.spec import ModelShape, codec
from tiny import tiny_run

SMALL = shapes.shape(256, 4, 4096, 1024)
LLAMA = codec.build(ModelShape, presets.shape("Llama-3-8B"), "model")
sizes = st.floats(1e6, 1e12)
amounts = st.floats(1e6, 1e14)


def bits(shape: ModelShape, tokens: float, **asked: object) -> float:
    return loss.expected(shape, tokens, **asked).bits_per_byte.value


def test_a_big_run_on_general_text_is_near_the_law_and_a_short_one_much_worse():
    full = loss.expected(LLAMA, 15e12)
    lawful = loss.additive_nats(LLAMA.parameters, law.law_tokens(15e12, text.bytes_per_token(
        LLAMA.vocab, loss.GENERAL)))
    assert lawful == pytest.approx(2.02, abs=0.02)
    assert full.bits_per_byte.value == pytest.approx(lawful / math.log(2) / 4.48, rel=0.002)
    assert 0.6 < full.bits_per_byte.value < 0.7
    assert bits(LLAMA, 1e9) > 1.4 * full.bits_per_byte.value


def test_here_and_now_the_default_run_is_forecast_as_it_was_measured():
    found = loss.expected(SMALL, 3.69e6, unique_tokens=11.7e6 / 3.29, known_bytes_per_token=3.29,
                          text=loss.PYTHON, optimiser="muon").bits_per_byte
    assert 0.93 < found.value < 1.0
    assert found.contains(0.93) and found.contains(0.99)


@pytest.mark.parametrize(("optimiser", "measured"), [("adamw", 1.371), ("muon", 1.004)])
def test_own_runs_on_pythons_library_are_inside_their_intervals(optimiser, measured):
    found = loss.expected(SMALL, 3.2e6, unique_tokens=3.56e6, known_bytes_per_token=3.29,
                          text=loss.PYTHON, optimiser=optimiser)
    assert found.bits_per_byte.contains(measured)


def test_bits_and_nats_agree_through_the_tokenizer():
    found = loss.expected(SMALL, 1e7, known_bytes_per_token=3.3)
    assert found.nats_per_token.value == pytest.approx(
        found.bits_per_byte.value * math.log(2) * 3.3)
    assert "assumed" not in found.nats_per_token.source
    assert "assumed" in loss.expected(SMALL, 1e7).nats_per_token.source


def test_extrapolation_widens_and_says_so():
    inside, outside = loss.expected(LLAMA, 1e11), loss.expected(SMALL, 1e6)
    assert "outside its range" not in inside.bits_per_byte.source
    assert "outside its range" in outside.bits_per_byte.source
    assert "besiroglu" in inside.bits_per_byte.source

    def width(found):
        return found.bits_per_byte.high / found.bits_per_byte.low

    assert width(outside) > width(inside) > 1.3


def test_no_run_is_promised_worse_than_guessing():
    for tokens in (1.0, 1e3, 1e6):
        assert loss.expected(SMALL, tokens).nats_per_token.value < math.log(SMALL.vocab)


@settings(max_examples=50)
@given(parameters=sizes, tokens=amounts, more=st.floats(1, 100), expanded=st.floats(1, 64),
       unique=st.one_of(st.none(), st.floats(1e6, 1e13)))
def test_loss_never_rises_with_parameters_tokens_or_text(parameters, tokens, more, expanded,
                                                         unique):
    def nats(n, d, u):
        return loss.nats(n, d, unique_tokens=u, expanded=expanded)

    here = nats(parameters, tokens, unique)
    assert nats(parameters, tokens * more, unique) <= here * (1 + 1e-12)
    assert nats(parameters * more, tokens, unique) <= here * (1 + 1e-12)
    if unique is not None:
        assert nats(parameters, tokens, unique * more) <= here * (1 + 1e-12)
        assert nats(parameters, tokens, None) <= here * (1 + 1e-12)


@settings(max_examples=50)
@given(parameters=sizes, tokens=amounts, unique=st.one_of(st.none(), amounts))
def test_there_is_no_seam(parameters, tokens, unique):
    here = loss.nats(parameters, tokens, unique_tokens=unique)
    step = 1.01
    for n, d in ((parameters * step, tokens), (parameters, tokens * step)):
        assert loss.nats(n, d, unique_tokens=unique) == pytest.approx(here, rel=0.01)


@settings(max_examples=50)
@given(tokens=st.floats(1e7, 1e13), layers=st.integers(1, 40))
def test_with_muon_loss_falls_with_size_where_there_are_tokens_for_it(tokens, layers):
    shape = replace(shapes.shape(1024, 24, 32768, 2048), layers=layers)
    tokens = max(tokens, shape.parameters)
    here = bits(shape, tokens, optimiser="muon")
    assert bits(replace(shape, layers=layers + 1), tokens, optimiser="muon") < here
    assert here <= bits(shape, tokens)


def test_formulas_take_arrays_as_they_take_floats():
    sizes_, tokens = np.array([4e6, 7e9, 7e10]), np.array([3e6, 2e12, 1.4e12])
    expanded, unique = np.array([1.0, 8.0, 64.0]), np.array([1e6, 1e13, 1e11])
    each = loss.nats(sizes_, tokens, unique_tokens=unique, expanded=expanded, worth=1.3)
    for i in range(3):
        one = loss.nats(float(sizes_[i]), float(tokens[i]), unique_tokens=float(unique[i]),
                        expanded=float(expanded[i]), worth=1.3)
        assert each[i] == pytest.approx(one, rel=1e-12)


def test_worth_and_optimiser_are_tokens():
    plain = bits(LLAMA, 2e11)
    assert bits(LLAMA, 1e11, token_worth=2.0) == pytest.approx(plain, rel=1e-9)
    assert bits(LLAMA, 2e11 / 1.1, optimiser="muon") == pytest.approx(plain, rel=1e-9)
    assert bits(LLAMA, 2e11, token_worth=1.37) < plain


def test_experts_gain_between_nothing_and_as_many_dense_parameters():
    moe = codec.build(ModelShape, presets.shape("DeepSeek-V3"), "model")
    found = bits(moe, 1e12)
    per_token = text.bytes_per_token(moe.vocab, loss.GENERAL)

    def dense(size):
        nats = loss.nats(float(size), law.law_tokens(1e12, per_token))
        return float(law.bits_per_byte(nats))

    assert dense(moe.parameters) < found < dense(moe.active_parameters)
    # 37B active parameters are beyond the runs behind the gain: wider than for a dense model.
    spread = loss.expected(moe, 1e12).bits_per_byte
    alike = loss.expected(LLAMA, 1e12).bits_per_byte
    assert spread.high / spread.low > alike.high / alike.low
    assert "outside its range" in spread.source


def test_a_sheet_shows_the_terms_and_draws_the_law():
    sheet = Sheet()
    loss.write(sheet, LLAMA, 1e12, loss.Asked(optimiser="muon"))
    assert "A / N^alpha" in sheet["law.capacity"].formula
    assert "B / D^beta" in sheet["law.data"].formula
    floor, capacity, data = (sheet.value(f"law.{name}")
                             for name in ("irreducible", "capacity", "data"))
    nats = sheet.value("loss.bits_per_byte") * math.log(2) * 4.48
    assert nats == pytest.approx(floor + capacity + data, rel=0.005)
    names = {figure.key for figure in sheet.leaves("loss.bits_per_byte")}
    assert {"law.spread", "law.text", "law.worth", "law.tokens"} <= names
    assert set(sheet.account().loss) == {"nats_per_token", "bits_per_byte"}
    drawn = sheet.sampled_estimates(4000, 1)["loss.bits_per_byte"]
    first = sheet.estimates()["loss.bits_per_byte"]
    assert drawn.low == pytest.approx(first.low, rel=0.03)
    assert drawn.high == pytest.approx(first.high, rel=0.03)


def test_kaplans_law_stands_beside_small_runs_alone():
    small, large = Sheet(), Sheet()
    loss.write(small, SMALL, 2e8)
    loss.write(large, LLAMA, 1e12)
    assert "law.kaplan_bits_per_byte" not in large
    beside = small.value("law.kaplan_bits_per_byte")
    learned = small.value("law.tokens") * 4.48 / 4.2
    inner = SMALL.parameters - SMALL.embedding_parameters
    assert beside == pytest.approx(loss.kaplan_nats(inner, learned) / math.log(2) / 4.2)
    # It is of runs that converged, and has no floor: it promises more.
    assert 0.6 < beside / small.value("loss.bits_per_byte") < 1
    assert "law.kaplan_bits_per_byte" not in small["loss.bits_per_byte"].inputs


@pytest.mark.parametrize(("machine", "said", "prepared", "meant"), [
    ("here", loss.PYTHON, False, loss.PYTHON), ("8xH100", loss.PYTHON, False, loss.GENERAL),
    ("8xH100", loss.PYTHON, True, loss.PYTHON), ("8xH100", "books/", False, "books/")])
def test_unnamed_text_away_from_here_is_general(machine, said, prepared, meant):
    run = tiny_run()
    run = replace(run, machine=replace(run.machine, name=machine),
                  train=replace(run.train, text=said))
    assert loss.meant(run, prepared) == meant
