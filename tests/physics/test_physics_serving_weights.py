"""Weights and caches in fewer bits, on CPUs and accelerators: bytes, seconds, and how sure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import serving, serving_constants
from curbcut.plan.serving import engine, forecast_session
from plan.plan_samples import LARGE
from tiny import tiny_machine, tiny_run

CPU = replace(tiny_run(), model=replace(tiny_run().model, layers=8, width=512, heads=8, kv_heads=4,
                                        head_size=64, ffn=1536, vocab=8192),
              machine=tiny_machine(memory_bytes_per_second={"measured": 1.6e10},
                                   measured_flops={"fp32": 1.8e11, "bf16": 5.8e11}))


def served(run, **job):
    return replace(run, serve=replace(run.serve, **job))


def tpot(run, **job):
    return forecast_session(served(run, **job)).seconds["tpot"]


def weights(run, **job):
    return forecast_session(served(run, **job)).memory_bytes["parameters"].value


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fewer_bits_hold_less_and_are_read_sooner_on_a_cpu(precision):
    run = replace(CPU, recipe=replace(CPU.recipe, precision=precision))
    sizes = [weights(run, weight_precision=kind) for kind in ("same", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    wide = 4 if precision == "fp32" else 2
    assert sizes[0] == pytest.approx(wide * run.model.parameters, rel=1e-6)
    assert sizes[1] == pytest.approx(run.model.parameters, rel=0.01)
    times = [tpot(run, weight_precision=kind).value for kind in ("same", "int8", "int4")]
    assert times == sorted(times, reverse=True)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["int8", "int8-dynamic", "int4"]), st.integers(1, 64))
def test_a_step_of_more_rows_takes_no_less(kind, batch):
    run = served(CPU, weight_precision=kind)
    one, more = (serving.decode_seconds(run.model, run.machine, "bf16", rows, 100,
                                        engine(run)).value for rows in (batch, 2 * batch))
    assert one <= more <= 2.01 * one


def test_widened_weights_gain_at_few_rows_and_lose_at_many():
    run = served(CPU, weight_precision="int8")

    def gain(rows):
        plain, narrow = (
            serving.decode_seconds(run.model, run.machine, "bf16", rows, 100, cut).value
            for cut in (None, engine(run)))
        return plain / narrow
    assert gain(1) > 1.2 > 1.0 > gain(256)


def test_what_nobody_measured_is_less_sure(monkeypatch):
    monkeypatch.setattr(serving, "measured", lambda kind: False)
    for run, unsure, sure in ((CPU, "int8", "same"), (LARGE, "int8", "fp8")):
        wide, narrow = (tpot(run, weight_precision=kind) for kind in (unsure, sure))
        assert wide.high / wide.value == pytest.approx(
            serving.UNMEASURED_WEIGHTS * narrow.high / narrow.value)


def test_measured_rows_make_it_surer():
    assert serving_constants.measured("int4")
    assert not serving_constants.measured("fp8")  # a CPU has no such kind
    found = tpot(CPU, weight_precision="int8")
    assert found.high / found.value == pytest.approx(serving.SPREAD["cpu"])


def test_eight_bit_matmuls_have_a_rate_of_their_own():
    fast = replace(LARGE, machine=replace(LARGE.machine, peak_flops=dict(
        LARGE.machine.peak_flops, int8=2 * LARGE.machine.peak_flops["bf16"])))
    dynamic, stored = (served(fast, weight_precision=kind) for kind in ("int8-dynamic", "int8"))
    rates = [serving.server(run.model, run.machine, "bf16", engine(run)).chip.dense_flops
             for run in (dynamic, stored)]
    assert rates[0] == 2 * fast.machine.peak_flops["bf16"] and rates[1] < rates[0]
    # a machine that states none multiplies as in 16 bits: a bound from below
    plain = served(LARGE, weight_precision="int8-dynamic")
    assert serving.server(plain.model, plain.machine, "bf16", engine(plain)).chip.dense_flops == (
        serving.server(LARGE.model, LARGE.machine, "bf16").chip.dense_flops)


def test_a_cache_of_bytes_is_half_or_a_quarter():
    for precision, share in (("bf16", 0.5), ("fp32", 0.25)):
        run = replace(CPU, recipe=replace(CPU.recipe, precision=precision))
        plain, small = (forecast_session(served(run, cache_precision=kind)).memory_bytes["cache"]
                        for kind in ("same", "int8"))
        assert share < small.value / plain.value < 1.05 * share  # a scale for each head
