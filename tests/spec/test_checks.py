from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.spec import Machine, ModelShape, Recipe, checks

SHAPE = ModelShape(layers=12, width=768, heads=12, kv_heads=4, head_size=64, ffn=3072, vocab=1000)
SPARSE = replace(SHAPE, experts=8, experts_per_token=2, expert_ffn=768)
RECIPE = Recipe(sequence_tokens=1024, micro_batch=1, global_batch=64, precision="bf16",
                learning_rate=1e-3)


def machine(count=1, **changes):
    plain = {"name": f"{count}xtest", "accelerator": "test", "kind": "gpu", "nodes": count,
             "memory_bytes": 2**36, "memory_bytes_per_second": {"peak": 1e12},
             "peak_flops": {"fp32": 1e13, "bf16": 1e14}}
    return Machine(**(plain | changes))


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return f"{caught.value.what} | {caught.value.mend}"


@pytest.mark.parametrize("tp", [1, 2, 4, 12])
def test_tensor_parallel_ranks_share_or_repeat_key_heads(tp):
    checks.recipe(SHAPE, replace(RECIPE, tp=tp), machine(tp))


@pytest.mark.parametrize(("tp", "said"), [
    (3, "neither divides 4 key and value heads nor is a multiple"), (8, "does not divide 12 heads"),
    (6, "neither divides 4 key and value heads")])
def test_tensor_parallel_ranks_that_do_not(tp, said):
    assert said in refused(checks.recipe, SHAPE, replace(RECIPE, tp=tp), machine(tp))


def test_mla_keeps_its_latent_whole():
    latent = replace(SHAPE, attention="mla", kv_rank=128, rope_size=32, value_size=64)
    checks.recipe(latent, replace(RECIPE, tp=6), machine(6))


def test_the_feed_forward_must_divide_too():
    odd = replace(SHAPE, ffn=3073)
    assert "3073" in refused(checks.recipe, odd, replace(RECIPE, tp=2), machine(2))
    of_experts = replace(SPARSE, expert_ffn=769)
    assert "769 of an expert" in refused(checks.recipe, of_experts, replace(RECIPE, tp=2),
                                         machine(2))


@pytest.mark.parametrize(("changes", "count", "said"), [
    ({"dp_shard": 4}, 8, "recipe.dp_shard = 4 does not multiply to the 8 accelerators"),
    ({"dp_shard": 2, "tp": 2}, 8, "= 4 ranks does not multiply to the 8"),
    ({"dp_shard": 8, "ep": 16}, 8, "needs a model with experts"),
    ({"dp_shard": 8, "global_batch": 20}, 8, "nearest: 16 or 24"),
    ({"dp_shard": 8, "global_batch": 4}, 8, "nearest: 8"),
    ({"pp": 4, "pipeline": "interleaved", "virtual_stages": 3, "global_batch": 6}, 4,
     "micro-batches in whole rounds of 4"),
    ({"pp": 4, "pipeline": "dualpipev", "global_batch": 4}, 4, "needs 8 micro-batches"),
    ({"pp": 4, "pipeline": "interleaved"}, 4, "interleaves nothing"),
    ({"outer_steps": 50}, 1, "needs replicas"),
    ({"precision": "fp8"}, 1, 'nearest: "bf16"'), ({"precision": "nvfp4"}, 1, "no known rate")])
def test_recipes_that_break_a_rule(changes, count, said):
    assert said in refused(checks.recipe, SHAPE, replace(RECIPE, **changes), machine(count))


def test_experts_lie_within_data_and_context_ranks():
    checks.recipe(SPARSE, replace(RECIPE, dp_shard=4, ep=4), machine(4))
    checks.recipe(SPARSE, replace(RECIPE, cp=2, dp_shard=2, ep=4), machine(4))
    said = refused(checks.recipe, SPARSE, replace(RECIPE, tp=2, dp_shard=2, ep=4), machine(4))
    assert "data- and context-parallel ranks (2)" in said and "nearest: 2" in said


def test_precisions_are_those_of_the_chip():
    assert checks.precisions(machine()) == ("fp32", "bf16")
    newer = machine(peak_flops={"bf16": 1e15, "fp8": 2e15, "fp4": 4e15})
    assert checks.precisions(newer) == ("bf16", "fp8", "mxfp8", "nvfp4")
    for precision in ("tf32", "fp16"):
        checks.recipe(SHAPE, replace(RECIPE, precision=precision), machine())
    checks.recipe(SHAPE, replace(RECIPE, precision="nvfp4"), newer)


def test_what_is_not_said_is_not_held_against_anybody():
    checks.asked({}, None, machine(8))
    checks.asked({"tp": 2, "pipeline": "interleaved"}, SHAPE, machine(8))
    checks.asked({"virtual_stages": 3}, SHAPE, machine(8))


@settings(max_examples=50, deadline=None)
@given(heads=st.integers(1, 128), kv=st.integers(1, 128))
def test_the_nearest_key_heads_are_valid_and_nearest(heads, kv):
    shape = replace(SHAPE, heads=heads, kv_heads=kv)
    if heads % kv == 0:
        checks.shape(shape)
        return
    said = refused(checks.shape, shape)
    offered = [int(word) for word in said.partition("nearest: ")[2].split(" or ")]
    assert offered
    for one in offered:
        assert heads % one == 0
        between = range(min(one, kv) + 1, max(one, kv))
        assert not any(heads % other == 0 for other in between if other != kv)


@settings(max_examples=50, deadline=None)
@given(tp=st.integers(1, 64), pp=st.integers(1, 16), shards=st.integers(1, 16),
       count=st.sampled_from([1, 2, 4, 8, 12, 16, 64]))
def test_what_passes_multiplies_and_divides(tp, pp, shards, count):
    recipe = replace(RECIPE, tp=tp, pp=pp, dp_shard=shards)
    try:
        checks.recipe(SHAPE, recipe, machine(count))
    except InputError as error:
        assert error.mend.startswith("nearest: ")
        return
    assert recipe.ranks == count
    assert SHAPE.heads % tp == 0 and pp <= SHAPE.layers and 64 % shards == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(value):
    assert "recipe.learning_rate" in refused(checks.magnitudes, {"recipe.learning_rate": value})
    assert "machine.watts.max" in refused(checks.magnitudes, {"machine.watts": {"max": value}})


def test_every_bound_is_of_a_field_that_exists():
    from curbcut.spec import TrainJob

    nouns = {"model": ModelShape, "recipe": Recipe, "train": TrainJob}
    for key, most in checks.MOST.items():
        table, _, field = key.partition(".")
        assert field in nouns[table].__dataclass_fields__
        checks.magnitudes({key: most})
        assert f"nearest: {most}" in refused(checks.magnitudes, {key: most + 1})


def test_a_power_limit_above_the_whole_is_refused_with_the_whole():
    checks.magnitudes({"recipe.power_limit": 1.0})
    said = refused(checks.magnitudes, {"recipe.power_limit": 1.2})
    assert "recipe.power_limit = 1.2" in said
    assert "nearest: 1.0" in said
