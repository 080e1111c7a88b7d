from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curbcut.facts import presets
from curbcut.physics import flops, numbers, operations
from curbcut.spec import ModelShape, Recipe, codec

NAMES = ["curb-4m", "Llama-3-8B", "gpt-175b", "DeepSeek-V3", "DeepSeek-V2-Lite", "gpt-oss-20b",
         "Qwen3-30B-A3B", "Llama-4-Maverick", "Mixtral-8x7B", "Gemma-3-1B"]


def preset(name: str) -> ModelShape:
    return codec.build(ModelShape, presets.shape(name))


def recipe_of(**changes) -> Recipe:
    plain = {"sequence_tokens": 4096, "micro_batch": 1, "global_batch": 256, "precision": "bf16",
             "learning_rate": 1e-4}
    return Recipe(**(plain | changes))


def by_name(found) -> dict:
    return {each.name: each for each in found}


@pytest.mark.parametrize("name", NAMES)
def test_matmuls_add_up_to_the_forward_pass(name):
    shape, tokens = preset(name), 512
    expected = flops.forward_flops(shape, 4096)
    found = operations.layer_matmuls(shape, tokens)
    total = sum(each.flops for each in found)
    layers = expected.projections + expected.feed_forward
    assert total == pytest.approx(tokens * layers, rel=1e-12)
    assert operations.head_matmul(shape, tokens).flops == tokens * expected.head
    norms = shape.layers * operations.uncut_layer_parameters(shape)
    assert sum(each.weights for each in found) <= shape.parameters
    assert sum(each.weights for each in found) + norms >= (
        shape.parameters - shape.embedding_parameters - shape.width)


def test_dimensions_of_a_dense_model_cut_four_ways():
    found = by_name(operations.layer_matmuls(preset("Llama-3-8B"), 4096, tp=4))
    assert list(found) == ["qkv", "out", "up", "down"]
    sizes = {name: (x.rows, x.inner, x.columns, x.copies) for name, x in found.items()}
    assert sizes["qkv"] == (4096, 4096, 1536, 32)
    assert sizes["out"] == (4096, 1024, 4096, 32)
    assert sizes["up"] == (4096, 4096, 7168, 32)
    assert sizes["down"] == (4096, 3584, 4096, 32)
    assert operations.head_matmul(preset("Llama-3-8B"), 4096, 4).columns == 128256 / 4


def test_dimensions_of_latent_attention_and_experts():
    shape = preset("DeepSeek-V3")
    found = by_name(operations.layer_matmuls(shape, 4096, tp=2, ep=32, sequence_parallel=True))
    assert (found["q_down"].rows, found["q_down"].columns) == (2048, 1536)
    assert (found["q_up"].inner, found["q_up"].columns) == (1536, 64 * 192)
    assert found["kv_down"].columns == 576
    assert found["kv_up"].columns == 64 * 256
    assert found["out"].inner == 64 * 128
    assert (found["up"].copies, found["router"].copies) == (3, 58)
    expert = found["expert_up"]
    assert (expert.rows, expert.columns, expert.copies) == (4096, 2 * 1024, 58 * 8)
    assert "qkv" not in found


def test_no_query_rank_is_one_projection_from_the_full_width():
    found = by_name(operations.layer_matmuls(preset("DeepSeek-V2-Lite"), 64))
    assert "q_down" not in found
    assert found["q_up"].inner == 2048


def test_key_heads_are_repeated_where_they_are_fewer_than_ranks():
    found = by_name(operations.layer_matmuls(preset("Gemma-3-1B"), 64, tp=4))
    assert found["qkv"].columns == 256 * (1 + 2 * 1)


@settings(max_examples=50)
@given(name=st.sampled_from(NAMES), tp=st.sampled_from([1, 2, 4]), ep=st.sampled_from([1, 2, 8]),
       tokens=st.sampled_from([1, 64, 8192]))
def test_cuts_share_the_work_and_add_none(name, tp, ep, tokens):
    shape = preset(name)
    whole = by_name(operations.layer_matmuls(shape, tokens))
    for key, part in by_name(operations.layer_matmuls(shape, tokens, tp, ep)).items():
        if key in ("q_down", "kv_down", "router"):
            assert part.flops == whole[key].flops
        elif key != "qkv":  # of which few key heads are repeated
            assert part.flops * tp == pytest.approx(whole[key].flops, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_world_of_one_has_no_collectives(name):
    for shard in ("optimiser", "gradients", "parameters"):
        for pipeline in ("1f1b", "dualpipev", "interleaved"):
            alone = recipe_of(shard=shard, pipeline=pipeline, sequence_parallel=True,
                              recompute="full", outer_steps=8)
            assert operations.collectives(preset(name), alone) == ()


def test_zero_stages_differ_in_how_often_they_meet():
    shape, weights = preset("Llama-3-8B"), preset("Llama-3-8B").parameters * 2
    sums = {}
    for shard in ("optimiser", "gradients", "parameters"):
        recipe = recipe_of(dp_shard=8, shard=shard)
        found = operations.collectives(shape, recipe)
        assert {each.ranks for each in found} == {8}
        sums[shard] = {kind: sum(each.step_bytes for each in found if each.kind == kind)
                       for kind in ("all_gather", "reduce_scatter", "all_reduce")}
    assert recipe.accumulation == 32
    once = {"all_gather": weights, "reduce_scatter": weights, "all_reduce": 0}
    assert sums["optimiser"] == once
    assert sums["gradients"] == once | {"reduce_scatter": 32 * weights}
    ends = 2 * (shape.embedding_parameters + shape.width)
    assert sums["parameters"] == {"all_gather": 32 * (2 * weights - ends), "all_reduce": 0,
                                  "reduce_scatter": 32 * weights}


def test_context_ranks_share_states_with_and_without_shards_of_the_data():
    shape = preset("curb-4m")
    shared = by_name(operations.collectives(shape, recipe_of(dp_shard=4, cp=2, tp=2)))
    assert (shared["layer weights"].ranks, shared["layer weights"].stride) == (8, 2)
    same = by_name(operations.collectives(shape, recipe_of(dp_replicate=4, cp=2, tp=2)))
    assert (same["layer weights"].ranks, same["layer weights"].stride) == (2, 2)
    assert (same["layer gradients"].kind, same["layer gradients"].ranks) == ("all_reduce", 4)
    assert same["layer gradients"].stride == 4


def test_experts_have_data_parallel_groups_of_their_own():
    shape = preset("Qwen3-30B-A3B")
    found = by_name(operations.collectives(shape, recipe_of(dp_shard=16, ep=8)))
    experts = found["experts weights"]
    assert (experts.ranks, experts.stride) == (2, 8)
    assert experts.bytes_ * experts.times * 8 == pytest.approx(
        shape.routed_parameters * 2 * 2 * 16)
    spread = by_name(operations.collectives(shape, recipe_of(dp_replicate=16, ep=8)))
    assert (spread["experts gradients"].ranks, spread["experts gradients"].stride) == (2, 8)
    beyond = by_name(operations.collectives(shape, recipe_of(dp_shard=4, dp_replicate=4, ep=8)))
    assert beyond["experts gradients"].ranks == 2
    sent = found["expert dispatch"]
    assert sent.bytes_ == 4096 * 8 * 2048 * 2
    assert (sent.ranks, sent.times) == (8, 48 * 2 * 16)


def test_replicas_that_train_apart_meet_once_in_many_steps():
    shape = preset("Llama-3-8B")
    near = operations.collectives(shape, recipe_of(dp_replicate=8))
    far = operations.collectives(shape, recipe_of(dp_replicate=8, outer_steps=100))
    assert sum(each.step_bytes for each in near) == 2 * shape.parameters
    assert sum(each.step_bytes for each in far) == pytest.approx(4 * shape.parameters / 100)
    mixed = by_name(operations.collectives(shape, recipe_of(dp_shard=4, dp_replicate=2,
                                                            outer_steps=100)))
    assert mixed["layer outer"].ranks == 2
    assert "all_reduce" not in {x.kind for x in mixed.values() if "outer" not in x.name}


def test_pipelines_send_once_each_way_for_each_piece():
    shape = preset("Llama-3-8B")
    plain = by_name(operations.collectives(shape, recipe_of(pp=4)))["stages"]
    assert (plain.bytes_, plain.ranks, plain.times) == (4096 * 4096 * 2, 2, 2 * 256)
    piped = {kind: by_name(operations.collectives(
        shape, recipe_of(pp=4, tp=2, dp_shard=2, pipeline=kind, virtual_stages=4,
                         sequence_parallel=True)))["stages"]
             for kind in ("1f1b", "zero-bubble", "interleaved", "dualpipev")}
    assert [each.times / 128 for each in piped.values()] == [2, 2, 8, 4]
    assert piped["1f1b"].bytes_ * 2 == plain.bytes_
    assert piped["1f1b"].stride == 4
    tied = by_name(operations.collectives(preset("curb-4m"), recipe_of(pp=4)))["tied embedding"]
    assert (tied.ranks, tied.stride, tied.bytes_) == (2, 3, 4096 * 256 * 2)


def test_ring_passes_keys_and_ulysses_changes_heads():
    shape = preset("Llama-3-8B")
    ring = by_name(operations.collectives(shape, recipe_of(cp=4)))["ring keys and values"]
    assert ring.bytes_ == 1024 * 8 * 256 * 2
    assert ring.times == 32 * 256 * 3 * 3
    spread = by_name(operations.collectives(shape, recipe_of(cp=4, context="ulysses")))
    assert spread["ulysses qkv"].bytes_ == 1024 * (4096 + 8 * 256) * 2
    assert spread["ulysses out"].bytes_ == 1024 * 4096 * 2
    wide = by_name(operations.collectives(shape, recipe_of(cp=16, context="ulysses")))
    assert wide["ulysses qkv"].bytes_ == 256 * (4096 + 16 * 256) * 2  # 8 key heads, twice


def test_full_recompute_reduces_activations_again_and_megatron_gathers_inputs_again():
    shape = preset("Llama-3-8B")
    times = {}
    for again in ("none", "full"):
        recipe = recipe_of(tp=8, recompute=again, sequence_parallel=True)
        times[again] = by_name(x for x in operations.collectives(shape, recipe)
                               if x.kind == "all_gather")["tp activations"].times
    assert times == {"none": 256 * (32 * 4 + 2), "full": 256 * (32 * 6 + 2)}
    more = operations.collectives(shape, recipe_of(tp=8, sequence_parallel=True),
                                  habits=operations.Habits(regather=True))
    gathers = by_name(x for x in more if x.kind == "all_gather")["tp activations"]
    assert gathers.times == 256 * (32 * 6 + 2)


degree = st.sampled_from([1, 2, 4])
recipes = st.builds(
    recipe_of, dp_replicate=degree, dp_shard=degree, tp=degree, pp=degree, cp=degree,
    ep=st.sampled_from([1, 2]), sequence_parallel=st.booleans(),
    shard=st.sampled_from(["optimiser", "gradients", "parameters"]),
    pipeline=st.sampled_from(["1f1b", "interleaved", "dualpipev"]), virtual_stages=degree,
    context=st.sampled_from(["ring", "ulysses"]), outer_steps=st.sampled_from([1, 50]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    precision=st.sampled_from(["bf16", "fp32", "fp8"]))


@settings(max_examples=50)
@given(recipe=recipes, name=st.sampled_from(NAMES))
def test_groups_lie_within_the_machine(recipe, name):
    assume(recipe.ep <= recipe.dp_replicate * recipe.dp_shard * recipe.cp)
    for each in operations.collectives(preset(name), recipe):
        assert each.ranks > 1
        assert each.bytes_ > 0
        assert each.times > 0
        if each.name != "tied embedding":
            assert each.ranks * each.stride <= recipe.ranks


@settings(max_examples=30)
@given(many=st.lists(st.tuples(recipes, st.sampled_from(NAMES)), min_size=1, max_size=12))
def test_columns_say_what_each_recipe_says_alone(many):
    shapes = [preset(name) for _, name in many]
    rows = [recipe for recipe, _ in many]
    together = operations.collectives(numbers.columns(shapes), numbers.columns(rows))
    for i, (shape, recipe) in enumerate(zip(shapes, rows, strict=True)):
        alone = {(x.kind, x.name): figures(x) for x in operations.collectives(shape, recipe)}
        there = {(x.kind, x.name): tuple(float(np.broadcast_to(v, len(rows))[i])
                                         for v in figures(x)) for x in together}
        there = {key: value for key, value in there.items() if value[1] > 1 and value[3] > 0}
        assert there == {key: pytest.approx(value) for key, value in alone.items()}
    cut = operations.layer_matmuls(numbers.columns(shapes), 4096.0, numbers.columns(rows).tp)
    total = sum(each.flops for each in cut)
    single = [sum(x.flops for x in operations.layer_matmuls(shape, 4096, recipe.tp))
              for shape, recipe in zip(shapes, rows, strict=True)]
    np.testing.assert_allclose(total, single, rtol=1e-12)


def figures(each: operations.Collective) -> tuple:
    return each.bytes_, each.ranks, each.stride, each.times


def test_a_block_of_degrees_with_one_shape_broadcasts():
    shape = preset("gpt-175b")
    names = {"shard": "optimiser", "pipeline": "interleaved", "context": "ring",
             "precision": "bf16", "recompute": "full", "optimiser": "muon"}
    tp = np.array([1.0, 2, 4, 8])
    block = numbers.Columns(dp_replicate=1.0, dp_shard=64 / tp, tp=tp, pp=4.0, cp=1.0, ep=1.0,
                            sequence_tokens=2048.0, micro_batch=1.0, accumulation=24 * tp / 64,
                            sequence_parallel=tp > 1, virtual_stages=2.0, outer_steps=1.0, **names)
    found = by_name(operations.collectives(shape, block))
    assert np.broadcast_to(found["stages"].bytes_, 4)[3] == 2048 * 12288 * 2 / 8
    np.testing.assert_array_equal(found["layer weights"].ranks, 64 / tp)
