from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import memory
from curbcut.physics.memory_constants import memory_constants
from curbcut.physics.numbers import columns
from curbcut.spec import ModelShape, Recipe

SHAPE = ModelShape(layers=10, width=384, heads=6, kv_heads=6, head_size=64, ffn=1024, vocab=32000)
RECIPE = Recipe(sequence_tokens=512, micro_batch=4, global_batch=8, precision="bf16",
                learning_rate=1e-3, attention="math")


@pytest.mark.parametrize(("precision", "bytes_"), [("bf16", 20), ("fp8", 20), ("fp32", 16)])
def test_states_a_parameter(precision, bytes_):
    recipe = replace(RECIPE, precision=precision)
    assert memory.state_bytes(recipe).total == bytes_
    parts = memory.training(SHAPE, recipe, "cpu")
    states = parts["parameters"] + parts["gradients"] + parts["optimiser"]
    assert states == bytes_ * SHAPE.parameters


def test_peak_is_the_sum_of_the_kinds():
    parts = dict(memory.training(SHAPE, RECIPE, "gpu"))
    assert parts.pop("peak") == pytest.approx(sum(parts.values()))


# Peak resident bytes (MiB) of eight training steps of this stack on a two-core CPU: layers, width,
# heads, ffn, vocab, micro-batch, sequence, precision, optimiser (benchmarks/step_forecast.py).
MEASURED = [
    ((4, 256, 4, 704, 4096, 16, 256, "bf16", "muon"), 724),
    ((4, 256, 4, 704, 4096, 8, 256, "bf16", "adamw"), 563),
    ((4, 256, 4, 704, 4096, 8, 256, "fp32", "adamw"), 724),
    ((4, 128, 2, 384, 4096, 16, 256, "bf16", "adamw"), 522),
    ((10, 256, 4, 704, 8192, 8, 512, "bf16", "adamw"), 1278),
    ((8, 384, 6, 1024, 8192, 8, 512, "bf16", "muon"), 1525),
    ((10, 384, 6, 1024, 32000, 4, 512, "bf16", "adamw"), 1663),
    ((10, 384, 6, 1024, 32000, 4, 512, "fp32", "adamw"), 2042),
]


@pytest.mark.parametrize(("setting", "mebibytes"), MEASURED)
def test_peak_against_measured_training_steps(setting, mebibytes):
    layers, width, heads, ffn, vocab, micro, sequence, precision, optimiser = setting
    shape = ModelShape(layers=layers, width=width, heads=heads, kv_heads=heads, head_size=64,
                       ffn=ffn, vocab=vocab, qk_norm=True)
    recipe = replace(RECIPE, micro_batch=micro, global_batch=micro, sequence_tokens=sequence,
                     precision=precision, optimiser=optimiser)
    assert memory.training(shape, recipe, "cpu")["peak"] / 2**20 == pytest.approx(mebibytes,
                                                                                  rel=0.08)


def test_recompute_and_fused_attention_save_activations():
    math = memory.activations(SHAPE, RECIPE)
    fused = memory.activations(SHAPE, replace(RECIPE, attention="fused"))
    selective = memory.activations(SHAPE, replace(RECIPE, recompute="selective"))
    full = memory.activations(SHAPE, replace(RECIPE, recompute="full"))
    assert math > fused > selective > full
    # math attention keeps a 16-bit probability for each head and pair of positions, up to the end
    # of the query's block; fused attention keeps a 4-byte log-sum-exp a head
    assert math - selective == 10 * 6 * 512 * (512 + 128) / 2 * 4 * 2
    assert fused - selective == 10 * 6 * 4 * 512 * 4


def test_sharding_divides_states_and_gathers_layers():
    whole = memory.training(SHAPE, RECIPE, "gpu")
    shared = memory.training(SHAPE, replace(RECIPE, dp_shard=4), "gpu")
    # fp32 shards are the masters, and gradients are reduced in fp32 as they come
    held = {"parameters": 4, "gradients": 4, "optimiser": 8}
    assert {kind: shared[kind] for kind in held} == {
        kind: each * SHAPE.parameters / 4 for kind, each in held.items()}
    assert sum(held.values()) < sum(whole[kind] for kind in held) / SHAPE.parameters
    assert shared["activations"] == whole["activations"]
    gathered = 2 * 2 * SHAPE.vocab * SHAPE.width
    assert shared["buffers"] == pytest.approx(whole["buffers"] + gathered)


def test_logits_do_not_grow_beyond_a_chunk():
    small, large = (memory.logits(SHAPE, replace(RECIPE, micro_batch=b)) for b in (2, 64))
    assert small == large
    assert memory.logits(SHAPE, replace(RECIPE, micro_batch=1, sequence_tokens=128)) < small


def test_serving_counts_weights_and_cache():
    shape = ModelShape(layers=2, width=8, heads=4, kv_heads=2, head_size=4, ffn=16, vocab=10)
    assert memory.cache_bytes_per_token(shape) == 2 * 2 * 2 * 4 * 2
    parts = memory.serving(shape, batch=3, tokens=100, kind="cpu")
    assert parts["cache"] == 3 * 100 * 64
    assert parts["parameters"] == 2 * shape.parameters
    windowed = replace(shape, attention="sliding", window_tokens=10)
    assert memory.serving(windowed, 3, 100, "cpu")["cache"] == 3 * 10 * 64


STACKS = ("", "torch", "Megatron-LM", "nanotron", "torchtitan")
MODES = ("none", "selective", "full")


@st.composite
def recipes(draw):
    """Recipes over all kinds of parallelism, that divide the shape."""
    return replace(
        RECIPE, stack=draw(st.sampled_from(STACKS)), micro_batch=draw(st.integers(1, 8)),
        global_batch=256, sequence_tokens=draw(st.sampled_from([128, 512, 4096])),
        tp=draw(st.sampled_from([1, 2])), pp=draw(st.sampled_from([1, 2, 5])),
        dp_shard=draw(st.sampled_from([1, 2, 8])), dp_replicate=draw(st.sampled_from([1, 2])),
        shard=draw(st.sampled_from(["optimiser", "gradients", "parameters"])),
        pipeline=draw(st.sampled_from(["gpipe", "1f1b", "interleaved", "zero-bubble",
                                       "dualpipev"])),
        precision=draw(st.sampled_from(["fp32", "bf16", "fp8"])),
        recompute=draw(st.sampled_from(MODES)), sequence_parallel=draw(st.booleans()),
        chunked_loss=draw(st.booleans()), compile=draw(st.booleans()),
        attention=draw(st.sampled_from(["math", "fused"])),
        offload=draw(st.sampled_from(["none", "optimiser", "parameters", "activations"])),
        optimiser=draw(st.sampled_from(["adamw", "adamw8", "muon", "adafactor"])))


def peak(shape, recipe, kind="gpu"):
    return memory.training(shape, recipe, kind)["peak"]


@settings(max_examples=50, deadline=None)
@given(recipe=recipes())
def test_laws_of_the_peak(recipe):
    parts = dict(memory.training(SHAPE, recipe, "gpu"))
    total = parts.pop("peak")
    assert total == pytest.approx(sum(parts.values())) and min(parts.values()) >= 0
    longer = replace(recipe, sequence_tokens=2 * recipe.sequence_tokens)
    assert peak(SHAPE, longer) > total
    for accumulation in (1, recipe.accumulation):  # the same micro-batches in flight
        data_ranks = recipe.dp_shard * recipe.dp_replicate
        one, two = (replace(recipe, micro_batch=n, global_batch=n * accumulation * data_ranks)
                    for n in (1, 2))
        assert peak(SHAPE, two) > peak(SHAPE, one)


@settings(max_examples=50, deadline=None)
@given(recipe=recipes())
def test_sharing_more_never_needs_more(recipe):
    recipe = replace(recipe, global_batch=recipe.micro_batch * 64, dp_replicate=1, dp_shard=2)
    wider = replace(recipe, dp_shard=4, global_batch=2 * recipe.global_batch)
    assert peak(SHAPE, wider) <= peak(SHAPE, recipe)
    # (torch's ZeRO-2 keeps shards beside whole parameters: little gained where few share)
    others = replace(recipe, stack="another")
    assert peak(SHAPE, replace(others, shard="gradients")) <= peak(
        SHAPE, replace(others, shard="optimiser"))
    assert peak(SHAPE, replace(recipe, sequence_parallel=True)) <= peak(
        SHAPE, replace(recipe, sequence_parallel=False))


@settings(max_examples=50, deadline=None)
@given(recipe=recipes())
def test_more_recompute_keeps_less(recipe):
    recipe = replace(recipe, compile=False)
    known = memory_constants(recipe.stack)
    none, some, full = (memory.activations(SHAPE, replace(recipe, recompute=mode), known)
                        for mode in MODES)
    assert full <= some <= none


def test_arrays_of_recipes_give_what_each_gives_alone():
    variants = [replace(RECIPE, stack="", pp=pp, micro_batch=micro, recompute=mode, dp_shard=shard,
                        global_batch=64, chunked_loss=chunked, shard=what)
                for pp in (1, 2) for micro in (1, 4) for mode in MODES for shard in (1, 4)
                for chunked in (True, False) for what in ("optimiser", "parameters")]
    known = memory_constants("")
    together = memory.training(SHAPE, columns(variants), "gpu", known)
    for place, recipe in enumerate(variants):
        alone = memory.training(SHAPE, recipe, "gpu", known)
        for kind, value in alone.items():
            assert together[kind][place] == pytest.approx(value), kind


@settings(max_examples=50)
@given(micro=st.integers(1, 32), layers=st.integers(1, 48), width=st.integers(1, 64))
def test_memory_grows_with_batch_depth_and_width(micro, layers, width):
    shape = replace(SHAPE, layers=layers, width=16 * width)
    recipe = replace(RECIPE, micro_batch=micro)
    peak = memory.training(shape, recipe, "cpu")["peak"]
    assert memory.training(replace(shape, layers=layers + 1), recipe, "cpu")["peak"] > peak
    assert memory.training(replace(shape, width=16 * width + 16), recipe, "cpu")["peak"] > peak
    assert memory.training(shape, replace(recipe, micro_batch=micro + 1), "cpu")["peak"] > peak
