"""What a pass of a served model multiplies, moves and sends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import presets
from curbcut.physics.serving_passes import ChipRates, Engine, experts_touched, sequence_bytes
from curbcut.physics.serving_work import Work, pass_work, step_work
from curbcut.spec.nouns import ModelShape

DENSE = ModelShape(**presets.shape("Llama-3.1-8B"))
SPARSE = ModelShape(**presets.shape("Qwen3-30B-A3B"))
CHIP = ChipRates(dense_flops=1e15, expert_flops=1e15, attention_flops=1e15,
                 bytes_per_second=3.35e12, memory_bytes=80 * 2.0**30,
                 link_bytes_per_second=450e9, network_bytes_per_second=50e9)
ONE = Engine()


def decode(shape, engine=ONE, batch=8.0, keys=1000.0):
    return pass_work(shape, engine, CHIP, 0.0, tokens=batch, keys=keys, sequences=batch,
                     eager=False)


def test_a_decode_step_multiplies_two_flops_a_weight_and_answer():
    weights = DENSE.parameters - DENSE.vocab * DENSE.width
    scores = 4.0 * 1000 * DENSE.heads * DENSE.head_size * DENSE.layers
    assert decode(DENSE).peak_seconds * 1e15 == pytest.approx(8 * (2 * weights + scores), rel=1e-3)


def test_it_reads_all_weights_once_and_the_cache_of_each_answer():
    weights = 2.0 * (DENSE.parameters - DENSE.vocab * DENSE.width)
    cache = 8 * sequence_bytes(DENSE, ONE, 1000.0)
    assert decode(DENSE).bytes_ == pytest.approx(weights + cache, rel=1e-3)


def test_of_experts_it_reads_those_that_its_tokens_meet():
    few, all_ = decode(SPARSE, batch=1.0), decode(SPARSE, batch=1e4)
    apart = (all_.bytes_ - 1e4 * sequence_bytes(SPARSE, ONE, 1000.0)
             - few.bytes_ + sequence_bytes(SPARSE, ONE, 1000.0))
    missed = 1 - experts_touched(SPARSE, 1.0)
    assert apart == pytest.approx(2.0 * SPARSE.routed_parameters * missed, rel=1e-3)


def test_two_ranks_halve_the_work_and_send():
    two = decode(DENSE, Engine(tp=2, moe_tp=2))
    one = decode(DENSE)
    assert two.peak_seconds == pytest.approx(one.peak_seconds / 2)
    assert two.bytes_ == pytest.approx(one.bytes_ / 2)
    assert one.sent == 0 and two.sent == pytest.approx(
        2 * DENSE.layers * 8 * DENSE.width * 2.0)


@settings(max_examples=40)
@given(st.floats(1, 512), st.floats(1, 8), st.sampled_from([DENSE, SPARSE]))
def test_a_larger_batch_does_more_in_all_and_less_for_each_token(batch, factor, shape):
    one, other = (step_work(shape, ONE, CHIP, 2.0, batch=many, prompt_tokens=500.0,
                            output_tokens=500.0) for many in (batch, batch * factor))
    for name in ("peak_seconds", "bytes_"):
        assert getattr(other, name) >= getattr(one, name) * (1 - 1e-9)
    assert other.bytes_ / factor <= one.bytes_ * (1 + 1e-9)


def test_longer_answers_spread_their_prompt_over_more_steps_and_kept_prompts_cost_less():
    asked = {"batch": 64.0, "prompt_tokens": 2000.0}
    short, long = (step_work(DENSE, ONE, CHIP, 2.0, output_tokens=n, **asked)
                   for n in (100.0, 1000.0))
    kept = step_work(DENSE, ONE, CHIP, 2.0, output_tokens=100.0, cached_tokens=1900.0, **asked)
    assert long.peak_seconds < short.peak_seconds
    assert kept.peak_seconds < short.peak_seconds


def test_work_adds_up():
    one = Work(1.0, 2.0, 3.0)
    assert one.plus(Work(10.0, 20.0, 30.0), 0.5) == Work(6.0, 12.0, 18.0)


def test_drafted_tokens_are_checked_and_a_step_that_yields_more_reads_more_prompts():
    asked = {"batch": 8.0, "prompt_tokens": 500.0, "output_tokens": 500.0}
    plain = step_work(DENSE, ONE, CHIP, 2.0, **asked)
    drafted = step_work(DENSE, ONE, CHIP, 2.0, drafted=3.0, yielded=2.5, **asked)
    assert drafted.peak_seconds > 3 * plain.peak_seconds
