"""What holds of any server, whatever its constants: more of a good thing is never slower."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curbcut.facts import presets
from curbcut.physics.serving_constants import serving_constants
from curbcut.physics.serving_passes import ChipRates, Engine, decode_seconds, prefill_seconds
from curbcut.physics.serving_traffic import Traffic, apart, together
from curbcut.spec.nouns import ModelShape

SHAPES = [ModelShape(**presets.shape(name))
          for name in ("Llama-3.1-8B", "DeepSeek-V3", "Qwen3-30B-A3B")]
CHIP = ChipRates(dense_flops=2e15, expert_flops=2e15, attention_flops=1e15,
                 bytes_per_second=4.8e12, memory_bytes=141 * 2**30, link_bytes_per_second=450e9,
                 network_bytes_per_second=50e9)
STACKS = [serving_constants(), serving_constants("SGLang"), serving_constants("TensorRT-LLM"),
          serving_constants("vLLM"), serving_constants(without="SGLang")]
EIGHT = Engine(tp=8, ep=8, dense_bytes=1.0, expert_bytes=1.0)
SLACK = 1 + 1e-6

shapes, stacks = st.sampled_from(SHAPES), st.sampled_from(STACKS)
lengths = st.integers(1, 32_000)
loads = st.integers(1, 4096)
traffics = st.builds(lambda load, prompt, answer: Traffic(
    concurrency=float(load), prompt_tokens=float(prompt), output_tokens=float(answer)),
    loads, lengths, lengths)


def no_later(better, worse):
    assert better.ttft_seconds <= worse.ttft_seconds * SLACK
    assert better.tpot_seconds <= worse.tpot_seconds * SLACK


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.floats(1, 10), st.sampled_from(
    ["bytes_per_second", "dense_flops", "expert_flops", "attention_flops",
     "link_bytes_per_second", "network_bytes_per_second"]))
def test_a_faster_chip_or_link_is_never_slower(shape, constants, traffic, factor, name):
    faster = replace(CHIP, **{name: getattr(CHIP, name) * factor})
    no_later(together(shape, EIGHT, faster, constants, traffic),
             together(shape, EIGHT, CHIP, constants, traffic))


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.integers(1, 64), st.integers(0, 64), st.integers(1, 8))
def test_more_prefill_workers_never_make_a_longer_wait(shape, constants, traffic, few, more,
                                                       decoders):
    waits = [apart(shape, EIGHT, EIGHT, workers, decoders, CHIP, constants, traffic).ttft_seconds
             for workers in (few + more, few)]
    assert waits[0] <= waits[1] * (1 + 1e-3)


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.integers(1, 16), st.integers(0, 16), st.integers(1, 8))
def test_more_decode_workers_never_make_slower_tokens(shape, constants, traffic, few, more,
                                                      readers):
    tokens = [apart(shape, EIGHT, EIGHT, readers, workers, CHIP, constants, traffic).tpot_seconds
              for workers in (few + more, few)]
    assert tokens[0] <= tokens[1] * (1 + 1e-3)


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.floats(0, 0.95), st.floats(0, 0.04))
def test_a_prefix_that_is_kept_is_never_slower(shape, constants, traffic, hit, more):
    no_later(*(together(shape, EIGHT, CHIP, constants, replace(traffic, prefix_hit_rate=rate))
               for rate in (hit + more, hit)))


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.integers(1, 5))
def test_drafts_that_are_never_accepted_never_help(shape, constants, traffic, drafted):
    plain, wasted = (together(shape, EIGHT, CHIP, constants, replace(traffic, drafted=count))
                     for count in (0, drafted))
    no_later(plain, wasted)


@settings(max_examples=40)
@given(shapes, stacks, traffics, st.integers(1, 5), st.floats(0, 0.9), st.floats(0, 0.1))
def test_drafts_accepted_oftener_are_never_slower(shape, constants, traffic, drafted, rate, more):
    no_later(*(together(shape, EIGHT, CHIP, constants,
                        replace(traffic, drafted=drafted, acceptance=chance))
               for chance in (rate + more, rate)))


@settings(max_examples=40)
@given(shapes, stacks, st.integers(512, 64_000), st.integers(32, 512))
def test_a_chunk_pauses_answers_for_less_and_reads_the_prompt_no_sooner(shape, constants, prompt,
                                                                        chunk):
    """Each answer beside waits for one pass of a chunk, not for the whole prompt."""
    whole, short = replace(EIGHT, chunk_tokens=1e9), replace(EIGHT, chunk_tokens=float(chunk))
    pause = prefill_seconds(shape, short, CHIP, constants, chunk)
    reading = prefill_seconds(shape, whole, CHIP, constants, prompt)
    assert pause <= reading * SLACK
    assert prefill_seconds(shape, short, CHIP, constants, prompt) >= reading / SLACK


@settings(max_examples=40)
@given(shapes, stacks, st.integers(1, 512), lengths, lengths)
def test_a_longer_context_and_a_larger_batch_are_never_sooner(shape, constants, batch, context,
                                                              more):
    here = decode_seconds(shape, EIGHT, CHIP, constants, batch, context)
    assert here <= SLACK * decode_seconds(shape, EIGHT, CHIP, constants, batch, context + more)
    assert here <= SLACK * decode_seconds(shape, EIGHT, CHIP, constants, batch + 1, context)


@settings(max_examples=40)
@given(shapes, stacks, loads, st.floats(0.5, 2))
def test_smaller_weights_or_cache_are_never_slower(shape, constants, load, wide):
    traffic = Traffic(concurrency=float(load), prompt_tokens=2000.0, output_tokens=500.0)
    small = replace(EIGHT, dense_bytes=wide / 2, expert_bytes=wide / 2, cache_bytes=wide / 2)
    large = replace(EIGHT, dense_bytes=wide, expert_bytes=wide, cache_bytes=wide)
    one, other = (together(shape, engine, CHIP, constants, traffic) for engine in (small, large))
    # A cache that holds more answers shares each step among more of them.
    if one.batch == other.batch:
        no_later(one, other)
    assert one.tokens_per_second >= other.tokens_per_second / (1 + 1e-6)


@settings(max_examples=40)
@given(shapes, st.integers(2, 300), st.integers(100, 4000), st.integers(100, 1000))
def test_waves_move_waiting_to_the_first_token_and_lose_none(shape, load, prompt, answer):
    """Prompts read all at once delay first tokens by what they spare the later ones."""
    constants = replace(serving_constants(), interference=1.0, burst=0.0)
    traffic = Traffic(concurrency=float(load), prompt_tokens=float(prompt),
                      output_tokens=float(answer), alike=True)
    steady, waved = (together(shape, replace(EIGHT, prefill_first=first), CHIP, constants, traffic)
                     for first in (False, True))
    assume(load <= steady.batch * EIGHT.dp)  # a queue for places waits for whole answers besides
    assert waved.ttft_seconds > steady.ttft_seconds
    assert waved.tpot_seconds < steady.tpot_seconds
    assert (waved.ttft_seconds + answer * waved.tpot_seconds
            == pytest.approx(steady.ttft_seconds + answer * steady.tpot_seconds))


@pytest.mark.parametrize(("first", "alike"), [(False, True), (True, False)])
def test_there_are_no_waves_without_both_a_cause_and_a_rhythm(first, alike):
    traffic = Traffic(concurrency=64.0, prompt_tokens=1000.0, output_tokens=200.0)
    plain = together(SHAPES[0], Engine(), CHIP, STACKS[0], traffic)
    assert plain == together(SHAPES[0], Engine(prefill_first=first), CHIP, STACKS[0],
                             replace(traffic, alike=alike))
