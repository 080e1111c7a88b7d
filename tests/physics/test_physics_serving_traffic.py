from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import presets
from curbcut.physics import serving_traffic as traffic_of
from curbcut.physics.numbers import Columns
from curbcut.physics.serving_constants import KINDS, serving_constants, spread
from curbcut.physics.serving_passes import ChipRates, Engine
from curbcut.physics.serving_traffic import Traffic, apart, batch_that_fits, together
from curbcut.spec.nouns import ModelShape

LLAMA = ModelShape(**presets.shape("Llama-3.1-8B"))
CHIP = ChipRates(dense_flops=989e12, expert_flops=989e12, attention_flops=989e12,
            bytes_per_second=3.35e12, memory_bytes=80 * 2**30, link_bytes_per_second=450e9,
            network_bytes_per_second=50e9)
ANY = serving_constants()
FITS = int(batch_that_fits(LLAMA, Engine(), CHIP, ANY, 1500))


def ask(requests, prompt=1000, answer=500, engine=None, **more):
    return Traffic(concurrency=requests, prompt_tokens=prompt, output_tokens=answer, **more)


def meet(*args, engine=None, **more):
    return together(LLAMA, engine or Engine(), CHIP, ANY, ask(*args, **more))


def disaggregated(requests, prefill_workers=1, decode_workers=1, **more):
    return apart(LLAMA, Engine(), Engine(), prefill_workers, decode_workers, CHIP, ANY,
                 ask(requests, **more))


@settings(max_examples=40)
@given(st.integers(1, FITS), st.integers(1, FITS))
def test_more_requests_are_answered_later_and_more_a_second_until_the_cache_is_full(few, more):
    small, large = meet(min(few, more)), meet(max(few, more))
    assert small.tpot_seconds <= large.tpot_seconds * (1 + 1e-9)
    assert small.ttft_seconds <= large.ttft_seconds * (1 + 1e-9)
    assert small.tokens_per_second <= large.tokens_per_second * (1 + 1e-9)


def test_beyond_the_cache_requests_wait_and_the_batch_stays():
    full, over = meet(FITS), meet(2 * FITS)
    assert over.batch == pytest.approx(full.batch, rel=0.01)
    assert over.tokens_per_second == pytest.approx(full.tokens_per_second, rel=0.05)
    assert over.ttft_seconds > full.ttft_seconds + 0.9 * 500 * full.tpot_seconds


def test_littles_law_holds():
    met = meet(32)
    inside = met.tokens_per_second / 500 * (met.ttft_seconds + 500 * met.tpot_seconds)
    assert inside == pytest.approx(32)


def test_long_prompts_slow_other_answers_and_kept_ones_do_not():
    short, long = meet(32, prompt=100), meet(32, prompt=8000)
    kept = meet(32, prompt=8000, prefix_hit_rate=0.9)
    assert short.tpot_seconds < kept.tpot_seconds < long.tpot_seconds
    assert kept.ttft_seconds < 0.5 * long.ttft_seconds


def test_a_server_that_looks_seldom_keeps_new_requests_waiting():
    often, seldom = (meet(8, engine=Engine(poll_steps=steps)) for steps in (1, 31))
    assert seldom.tpot_seconds == often.tpot_seconds
    assert seldom.ttft_seconds - often.ttft_seconds > 10 * often.tpot_seconds


def test_prefill_apart_leaves_the_decoders_alone():
    mixed, split = meet(64, prompt=8000), disaggregated(64, 8, 1, prompt=8000)
    assert split.tpot_seconds < mixed.tpot_seconds


def test_too_few_prefill_workers_are_the_limit():
    few, enough = (disaggregated(256, workers, 4, prompt=8000) for workers in (1, 32))
    assert few.ttft_seconds > 4 * enough.ttft_seconds
    assert few.batch < enough.batch
    assert few.tokens_per_second < enough.tokens_per_second


def test_prefill_workers_grow_with_the_prompts():
    needed = [traffic_of.prefill_workers(LLAMA, Engine(), Engine(), 1, CHIP, ANY,
                                         ask(64, prompt=prompt)) for prompt in (1000, 8000)]
    assert needed[1] > 2 * needed[0] > 0


def test_speculation_yields_tokens_sooner_where_few_are_answered():
    plain, drafting = meet(4), meet(4, drafted=2, acceptance=0.8)
    assert drafting.tpot_seconds < 0.6 * plain.tpot_seconds


def test_columns_of_loads_say_what_one_load_says():
    loads = np.array([1.0, 8.0, 64.0, 4000.0])
    many = together(LLAMA, Engine(), CHIP, ANY, replace(ask(1), concurrency=loads))
    one = [meet(float(load)) for load in loads]
    assert many.ttft_seconds == pytest.approx([each.ttft_seconds for each in one])
    split = apart(LLAMA, Engine(), Engine(), 2, 1, CHIP, ANY, replace(ask(1), concurrency=loads))
    assert split.tpot_seconds == pytest.approx(
        [disaggregated(float(load), 2).tpot_seconds for load in loads])
    assert isinstance(Columns(a=loads).a, np.ndarray)


@pytest.mark.parametrize("kind", KINDS)
def test_spreads_hold_one_another(kind):
    for quantity in ("ttft", "tpot", "throughput"):
        low80, high80, low95, high95 = spread(quantity, kind)
        assert low95 <= low80 <= 1 <= high80 <= high95


def test_who_drafts_has_a_price_of_its_own():
    free, small, large = (meet(8, drafted=3, acceptance=0.7, drafter=share)
                          for share in (0.0, 0.05, 0.5))
    assert free.tpot_seconds < small.tpot_seconds < large.tpot_seconds
    assert free.ttft_seconds < small.ttft_seconds < large.ttft_seconds
    plain, sure = meet(8), meet(8, drafted=3, acceptance=1.0, drafter=0.02)
    assert sure.tpot_seconds < plain.tpot_seconds  # a small one that is always right pays
    wasteful = meet(8, drafted=3, acceptance=0.9, drafter=1.0)
    assert wasteful.tpot_seconds > plain.tpot_seconds  # one as large as the model never does
    assert meet(8, drafter=0.5) == plain  # where nothing is drafted nobody asks it
