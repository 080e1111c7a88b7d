from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import power, serving
from curbcut.physics.serving_passes import Engine
from curbcut.physics.serving_traffic import Traffic, batch_that_fits
from tiny import tiny_machine, tiny_run

SHAPE = replace(tiny_run().model, layers=4, width=256, heads=4, kv_heads=4, head_size=64, ffn=704,
                vocab=4096, context_tokens=512)
ONE_THREAD = tiny_machine(measured_flops={"fp32": 92e9, "bf16": 422e9},
                          memory_bytes_per_second={"measured": 25e9})
"""The probed rates of the thread on which the passes below were timed."""


@pytest.mark.parametrize(("precision", "tokens", "seconds"), [
    ("fp32", 8, 2.20e-3), ("fp32", 64, 4.88e-3), ("fp32", 256, 16.8e-3),
    ("bf16", 8, 1.80e-3), ("bf16", 64, 3.81e-3), ("bf16", 256, 10.5e-3)])
def test_prompts_that_were_timed_fall_inside(precision, tokens, seconds):
    assert serving.prefill_seconds(SHAPE, ONE_THREAD, precision, tokens).contains(seconds)


@pytest.mark.parametrize(("precision", "context", "batch", "seconds"), [
    ("fp32", 40, 1, 1.31e-3), ("fp32", 40, 16, 3.17e-3), ("fp32", 144, 8, 3.32e-3),
    ("fp32", 464, 1, 1.59e-3), ("fp32", 464, 8, 4.55e-3), ("fp32", 464, 16, 11.0e-3),
    ("bf16", 40, 1, 1.22e-3), ("bf16", 40, 16, 3.11e-3), ("bf16", 144, 8, 3.60e-3),
    ("bf16", 464, 1, 1.72e-3), ("bf16", 464, 8, 6.78e-3), ("bf16", 464, 16, 12.9e-3)])
def test_steps_that_were_timed_fall_inside(precision, context, batch, seconds):
    """The bare engine's: a server's host work is more, so that they lie in the lower half."""
    found = serving.decode_seconds(SHAPE, ONE_THREAD, precision, batch, context)
    assert found.contains(seconds) and seconds < 1.2 * found.value


@settings(max_examples=50)
@given(st.integers(1, 64), st.integers(1, 8192), st.integers(1, 8192))
def test_more_never_takes_less(batch, tokens, more):
    def step(rows, reach):
        return serving.decode_seconds(SHAPE, ONE_THREAD, "fp32", rows, reach).value

    def prompt(length):
        return serving.prefill_seconds(SHAPE, ONE_THREAD, "fp32", length).value

    assert step(batch, tokens) <= step(batch, tokens + more)
    assert step(batch, tokens) <= step(batch + 1, tokens)
    assert prompt(tokens) < prompt(tokens + more)


def test_large_models_are_bound_by_their_weights():
    wide = replace(SHAPE, layers=32, width=4096, heads=32, kv_heads=8, head_size=128, ffn=14336)
    card = tiny_machine(kind="gpu", measured_flops={"bf16": 6e14},
                        memory_bytes_per_second={"measured": 3e12})
    step = serving.decode_seconds(wide, card, "bf16", 1, 1000).value
    weights = 2 * wide.parameters / 3e12
    assert weights < step < 1.5 * weights


def test_a_window_bounds_what_a_step_reads():
    windowed = replace(SHAPE, attention="sliding", window_tokens=64)
    def at(reach):
        return serving.decode_seconds(windowed, ONE_THREAD, "fp32", 8, reach)
    assert at(64) == at(4096)
    assert at(32).value < at(64).value


def test_experts_and_embeddings_that_no_token_meets_are_not_read():
    sparse = replace(SHAPE, experts=8, experts_per_token=2, expert_ffn=704)
    assert serving.weights_read(sparse, 1) == sparse.active_parameters
    assert serving.weights_read(sparse, 100) == pytest.approx(sparse.parameters)
    assert sparse.active_parameters < serving.weights_read(sparse, 2) < sparse.parameters
    untied = replace(SHAPE, tied_embeddings=False)
    assert serving.weights_read(untied, 1) == SHAPE.parameters


def test_without_a_rate_nothing_is_promised():
    unprobed = tiny_machine(measured_flops={})
    found = serving.decode_seconds(SHAPE, unprobed, "fp32", 1, 10)
    assert found.value is None and "no fp32 matmul rate" in found.source


def test_stated_rates_are_believed_less_than_probed_ones():
    stated = tiny_machine(measured_flops={}, peak_flops={"fp32": 92e9})
    loose, tight = (serving.decode_seconds(SHAPE, machine, "fp32", 1, 10)
                    for machine in (stated, ONE_THREAD))
    assert loose.high / loose.low > tight.high / tight.low


@settings(max_examples=30)
@given(st.integers(1, 16), st.integers(1, 4096), st.integers(1, 4096))
def test_a_longer_context_never_needs_less_memory(batch, tokens, more):
    short, longer = (serving.held_bytes(SHAPE, ONE_THREAD, "fp32", batch, length)
                     for length in (tokens, tokens + more))
    assert longer["peak"] > short["peak"]
    assert short["cache"] == batch * tokens * 2 * 4 * 4 * 64 * 4  # both, layers, heads, size, fp32


@pytest.mark.parametrize(("precision", "peak_mib"), [("fp32", 337), ("bf16", 515)])
def test_servers_that_were_weighed_are_near(precision, peak_mib):
    found = serving.held_bytes(SHAPE, ONE_THREAD, precision, 8, 512)["peak"]
    assert found / 2**20 == pytest.approx(peak_mib, rel=0.1)


WIDE = replace(SHAPE, layers=32, width=4096, heads=32, kv_heads=8, head_size=128, ffn=14336,
               vocab=128256, context_tokens=8192, tied_embeddings=False)
CARD = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", measured_flops={},
                    peak_flops={"bf16": 989e12}, memory_bytes=80 * 2**30,
                    memory_bytes_per_second={"peak": 3.35e12}, link_bytes_per_second=int(450e9),
                    accelerators_per_node=8)


def test_the_batch_within_an_objective_is_the_largest_one():
    server = serving.server(WIDE, CARD, "bf16")
    traffic = Traffic(concurrency=1, prompt_tokens=1000, output_tokens=500)
    most = serving.batch_within(WIDE, server, traffic, 1.0, 0.015)

    def tpot(requests):
        return serving.latency(WIDE, server, replace(traffic, concurrency=requests)).tpot_seconds

    assert most > 1 and tpot(most) <= 0.015 < tpot(most + 1)


def test_no_batch_meets_what_one_request_does_not():
    server = serving.server(WIDE, CARD, "bf16")
    traffic = Traffic(concurrency=1, prompt_tokens=1000, output_tokens=500)
    assert serving.batch_within(WIDE, server, traffic, 1.0, 1e-4) == 0


def test_the_batch_within_loose_objectives_is_what_the_cache_holds():
    server = serving.server(WIDE, CARD, "bf16")
    traffic = Traffic(concurrency=1, prompt_tokens=1000, output_tokens=500)
    fits = int(batch_that_fits(WIDE, server.engine, server.chip, server.constants, 1500))
    assert serving.batch_within(WIDE, server, traffic, 1e6, 1e6) == fits > 100


def test_energy_a_token_falls_with_the_batch():
    server = serving.server(WIDE, CARD, "bf16")
    joules = []
    for requests in (1, 8, 64):
        traffic = Traffic(concurrency=requests, prompt_tokens=500, output_tokens=500)
        met = serving.latency(WIDE, server, traffic)
        busy = serving.busy(WIDE, server, traffic, met.batch, met.tokens_per_second)
        watts = power.accelerator_watts(busy, 700.0, power.power_constants("h100"))
        joules.append(watts / met.tokens_per_second)
    assert joules == sorted(joules, reverse=True) and joules[0] > 1


def test_two_accelerators_hold_half_the_weights_each_and_step_sooner():
    two = Engine(tp=2, moe_tp=2)
    alone, cut = (serving.held_bytes(WIDE, CARD, "bf16", 8, 4096, engine)
                  for engine in (Engine(), two))
    assert cut["parameters"] == pytest.approx(alone["parameters"] / 2, rel=0.01)
    assert cut["cache"] == alone["cache"] / 2
    steps = [serving.decode_seconds(WIDE, CARD, "bf16", 8, 1000, engine).value
             for engine in (Engine(), two)]
    assert steps[0] / 2 < steps[1] < steps[0]
