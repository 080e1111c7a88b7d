from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import serving
from curbcut.physics.serving_traffic import Traffic
from curbcut.plan.served import under_load
from curbcut.plan.serving import forecast_session
from curbcut.plan.serving_calibration import learned, taught
from curbcut.plan.serving_choice import Objective, choose
from curbcut.spec import codec
from curbcut.spec.account import Account
from curbcut.spec.estimate import measured, unknown
from plan.plan_samples import LARGE
from tiny import tiny_run

RUN = replace(tiny_run(), serve=replace(tiny_run().serve, max_batch=16, prompt_tokens=24,
                                        output_tokens=24))


def session(run, together, factors, *, noise=0.0, kind="bench"):
    """A pair as the ledger has it, of a machine whose constants are off by `factors`."""
    found = serving.server(run.model, run.machine, run.recipe.precision)
    moved = replace(found.constants, **{name: getattr(found.constants, name) * by
                                        for name, by in factors.items()})
    met = serving.latency(run.model, replace(found, constants=moved), Traffic(
        concurrency=together, prompt_tokens=run.serve.prompt_tokens,
        output_tokens=run.serve.output_tokens))
    tpot = float(met.tpot_seconds) * math.exp(noise)
    rate = "answers" if kind == "bench" else "decode"
    account = Account(seconds={"ttft": measured(float(met.ttft_seconds) * math.exp(noise), "test"),
                               "tpot": measured(tpot, "test")},
                      tokens_per_second={rate: measured(together / tpot, "test")})
    return codec.plain(run), Account(), account


def tpot_of(run, lesson):
    return taught(forecast_session(run), run, lesson).seconds["tpot"]


@settings(max_examples=12, deadline=None)
@given(st.floats(0.5, 3.0))
def test_sessions_move_the_forecast_towards_them_and_narrow_it(off):
    factors = {"kernel_seconds": off, "step_seconds": off}
    truth = session(RUN, 1.0, factors)[2].seconds["tpot"].value
    plain = forecast_session(RUN).seconds["tpot"]
    before = abs(math.log(plain.value / truth))
    widths, offs = [math.log(plain.high / plain.low)], [before]
    for count in (1, 3, 8):
        lesson = learned(RUN.machine, "fp32", [session(RUN, n % 4 + 1.0, factors)
                                               for n in range(count)])
        now = tpot_of(RUN, lesson)
        widths.append(math.log(now.high / now.low))
        offs.append(abs(math.log(now.value / truth)))
        assert f"{count} measured session" in now.source
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.5 * widths[0]
    assert offs[-1] <= max(0.05, 0.35 * before)


def test_nothing_measured_changes_nothing():
    assert learned(RUN.machine, "fp32", []) is None
    assert taught(forecast_session(RUN), RUN, None) == forecast_session(RUN)


def test_others_sessions_teach_nothing():
    other = replace(RUN, machine=replace(RUN.machine, accelerator="another CPU"))
    for pair in (session(other, 1.0, {}), ({"broken": 1}, Account(), Account()),
                 (codec.plain(RUN), Account(), Account(seconds={"tpot": unknown("not seen")}))):
        assert learned(RUN.machine, "fp32", [pair]) is None
    assert learned(RUN.machine, "bf16", [session(RUN, 1.0, {})]) is None


def test_what_is_unknown_stays_unknown():
    run = replace(RUN, machine=replace(RUN.machine, measured_flops={}))
    lesson = learned(RUN.machine, "fp32", [session(RUN, 1.0, {"step_seconds": 2.0})])
    assert taught(forecast_session(run), run, lesson).seconds["tpot"].value is None


def test_a_session_of_one_kind_is_no_traffic_for_first_tokens():
    lesson = learned(RUN.machine, "fp32", [session(RUN, 2.0, {}, kind="serve")])
    assert lesson is not None and len(lesson.lesson.runs) == 1


def test_what_sessions_share_teaches_another_model():
    """A slower host shows on a larger model too, where it weighs less."""
    lesson = learned(RUN.machine, "fp32", [session(RUN, n % 4 + 1.0, {"step_seconds": 3.0})
                                           for n in range(8)])
    small = tpot_of(RUN, lesson).value / forecast_session(RUN).seconds["tpot"].value
    wide = replace(RUN, model=replace(RUN.model, width=1024, heads=16, kv_heads=16, head_size=64,
                                      ffn=4096))
    large = tpot_of(wide, lesson).value / forecast_session(wide).seconds["tpot"].value
    assert small > 1.5 and 0.7 < large < small
    assert next(iter(lesson.constants())) in ("kernel_seconds", "step_seconds")


def test_a_sick_session_bends_little():
    random.seed(0)
    pairs = [session(RUN, n % 4 + 1.0, {}, noise=random.gauss(0, 0.02)) for n in range(8)]
    pairs.insert(3, session(RUN, 2.0, {}, noise=math.log(5)))
    found = tpot_of(RUN, learned(RUN.machine, "fp32", pairs))
    assert found.value == pytest.approx(forecast_session(RUN).seconds["tpot"].value, rel=0.25)


def test_promises_under_load_and_the_choice_move_too():
    lesson = learned(RUN.machine, "fp32", [session(RUN, n % 4 + 1.0, {
        "kernel_seconds": 2.0, "step_seconds": 2.0}) for n in range(8)])
    plain = under_load(RUN)
    moved = taught(plain, RUN, lesson)
    assert moved.seconds["tpot"].value > plain.seconds["tpot"].value
    assert moved.tokens_per_second["most"].value < plain.tokens_per_second["most"].value
    assert moved.tokens_per_second["answers"] == plain.tokens_per_second["answers"]  # as asked
    asked = Objective(ttft_seconds=5.0, tpot_seconds=1.0, requests_per_second=0.01)
    before, after = choose(RUN, asked), choose(RUN, asked, lesson)
    assert after.chosen.usd.value > before.chosen.usd.value
    assert "measured session" in after.chosen.tpot.source


def test_accelerators_learn_as_well():
    pairs = [session(LARGE, 8.0, {"bandwidth_share": 0.7}) for _ in range(6)]
    run = replace(LARGE, serve=replace(LARGE.serve, max_batch=64))
    lesson = learned(run.machine, "bf16", [session(run, 8.0, {"bandwidth_share": 0.7})
                                           for _ in range(6)])
    assert pairs and tpot_of(run, lesson).value > forecast_session(run).seconds["tpot"].value
