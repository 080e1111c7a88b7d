"""What stacks keep: published formulas and shapes, stages of pipelines, states by sharding."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curbcut.physics import activations, memory
from curbcut.physics.memory_constants import memory_constants
from curbcut.spec import ModelShape, Recipe

GPT = ModelShape(layers=96, width=12288, heads=96, kv_heads=96, head_size=128, ffn=49152,
                 vocab=51200, feed_forward="plain")
EARLY = Recipe(sequence_tokens=2048, micro_batch=1, global_batch=64, precision="fp16",
               learning_rate=1e-4, attention="math", chunked_loss=False, stack="", tp=8)
MOE = ModelShape(layers=4, width=512, heads=8, kv_heads=8, head_size=64, ffn=2048, vocab=32000,
                 experts=16, experts_per_token=2, shared_experts=1, expert_ffn=256, dense_layers=1,
                 tied_embeddings=False)
KNOWN = memory_constants("")


@pytest.mark.parametrize(("mode", "parallel", "factor"), [
    ("none", False, 10 + 24 / 8 + 5 * 96 * 2048 / (12288 * 8)),   # equation 2
    ("none", True, (34 + 5 * 96 * 2048 / 12288) / 8),             # equation 4
    ("selective", False, 10 + 24 / 8),                            # table 2
    ("selective", True, 34 / 8),                                  # equation 6
    ("full", False, 2.0)])
def test_activations_of_gpt_are_those_of_korthikanti(mode, parallel, factor):
    recipe = replace(EARLY, recompute=mode, sequence_parallel=parallel)
    expected = 2048 * 12288 * 96 * factor
    assert memory.activations(GPT, recipe, KNOWN) == pytest.approx(expected)


def test_eighteen_bytes_a_parameter_and_zero():
    states = memory.mean_states(GPT, EARLY, KNOWN)
    assert states == pytest.approx(18 * GPT.parameters / 8)
    zero1 = replace(EARLY, dp_shard=4, shard="optimiser")
    assert memory.mean_states(GPT, zero1, KNOWN) == pytest.approx(9 * GPT.parameters / 8)
    zero2 = replace(zero1, shard="gradients")
    assert memory.mean_states(GPT, zero2, KNOWN) == pytest.approx(6 * GPT.parameters / 8)
    zero3 = replace(zero1, shard="parameters")
    assert memory.mean_states(GPT, zero3, KNOWN) == pytest.approx(4 * GPT.parameters / 8)


def test_context_parallel_ranks_share_the_states_too():
    alone = replace(EARLY, cp=4, shard="parameters")
    assert memory.mean_states(GPT, alone, KNOWN) == pytest.approx(4 * GPT.parameters / 8)
    replicas = replace(alone, dp_replicate=2)
    assert memory.mean_states(GPT, replicas, KNOWN) == memory.mean_states(GPT, alone, KNOWN)


def test_optimisers_and_offload():
    def optimiser(**changed):
        return memory.training(GPT, replace(EARLY, **changed), "gpu", KNOWN)["optimiser"]

    adamw = optimiser()
    assert adamw == pytest.approx(12 / 8 * GPT.parameters, rel=1e-3)
    assert optimiser(optimiser="muon") == pytest.approx(8 / 12 * adamw, rel=0.01)
    assert optimiser(optimiser="adamw8") == pytest.approx(6.03 / 12 * adamw, rel=0.01)
    assert optimiser(optimiser="adafactor") == pytest.approx(4 / 12 * adamw, rel=0.01)
    assert optimiser(offload="optimiser") == 0
    resting = memory.training(GPT, replace(EARLY, offload="parameters"), "gpu", KNOWN)
    assert resting["parameters"] == resting["optimiser"] == 0 and resting["buffers"] > 0
    kept = memory.activations(GPT, replace(EARLY, offload="activations"), KNOWN)
    assert kept == pytest.approx(memory.activations(GPT, EARLY, KNOWN) * 2 / 96)


@pytest.mark.parametrize(("changed", "first", "last"), [
    ({}, 8, 1), ({"global_batch": 4}, 4, 1), ({"pipeline": "gpipe"}, 64, 64),
    ({"pipeline": "interleaved", "virtual_stages": 3}, 8 * (1 + 7 / 24), 1 + 7 / 3),
    ({"pipeline": "zero-bubble"}, 8, 8), ({"pipeline": "dualpipev"}, 8.5, 8), ({"pp": 1}, 1, 1)])
def test_micro_batches_in_flight(changed, first, last):
    recipe = replace(EARLY, **{"pp": 8, **changed})
    assert memory.in_flight(recipe) == pytest.approx((first, last))


def test_the_ends_of_a_pipeline():
    recipe = replace(EARLY, pp=8, micro_batch=4)
    first, last = (memory.stage(GPT, recipe, "gpu", end, KNOWN) for end in (False, True))
    assert first["logits"] == 0 < last["logits"]
    assert first["activations"] == pytest.approx(8 * last["activations"])
    table, layers = GPT.vocab * GPT.width, GPT.parameters - GPT.embedding_parameters - GPT.width
    for part, norm in ((first, 0), (last, GPT.width)):  # a tied head stands on both ends
        assert part["parameters"] == pytest.approx(2 / 8 * (layers / 8 + table + norm))
    assert memory.training(GPT, recipe, "gpu", KNOWN)["peak"] == max(first["peak"], last["peak"])


def test_experts_are_cut_by_their_own_degree_and_come_after_dense_layers():
    recipe = replace(EARLY, tp=1, attention="fused", ep=4, dp_shard=8, shard="optimiser")
    parts = memory.training(MOE, recipe, "gpu", KNOWN)
    routed = 3 * 16 * 3 * 512 * 256
    assert MOE.routed_parameters == routed
    dense = MOE.parameters - routed
    assert parts["parameters"] == pytest.approx(2 * (dense + routed / 4))
    assert parts["optimiser"] == pytest.approx(12 * (dense / 8 + routed / 4 / 2))
    piped, small = replace(recipe, pp=2, ep=1), replace(MOE, vocab=100)
    first, last = (memory.stage(small, piped, "gpu", end, KNOWN) for end in (False, True))
    assert last["parameters"] > first["parameters"]  # two layers with experts against one


def test_kept_tokens_of_experts():
    one = activations.feed_forward_elements(MOE, 3.0, share=1.0)
    assert one == 3 * 256 * 3 + 2 * 512  # two routed and one shared, and the tokens sent
    assert activations.feed_forward_elements(MOE, 3.0, share=0.0) == 3 * 2048
    assert activations.feed_forward_elements(MOE, 3.0) == pytest.approx(0.75 * one
                                                                        + 0.25 * 3 * 2048)


def test_latent_attention_keeps_its_compressed_vectors():
    shape = replace(MOE, attention="mla", query_rank=128, kv_rank=64, rope_size=16, value_size=48)
    heads = 2 * 8 * (64 + 16) + 2 * 8 * 48
    assert activations.attention_elements(shape) == heads + 2 * 128 + 2 * 64 + 16
    assert activations.attention_elements(shape, 4) == heads / 4 + 2 * 128 + 2 * 64 + 16


def test_a_head_weighed_as_layers_leaves_the_last_stage_fewer():
    shape = replace(GPT, layers=16, width=2048, heads=32, kv_heads=32, head_size=64, ffn=8192,
                    vocab=131072, feed_forward="gated")
    weighed = memory_constants("nanotron")
    recipe = replace(EARLY, tp=1, pp=2)
    assert memory.stage_layers(shape, recipe, weighed) == (11, 5)
    assert memory.stage_layers(shape, recipe, KNOWN) == (8, 8)
    told = {pp: memory.fills_stages(shape, replace(recipe, pp=pp), weighed)
            for pp in (1, 2, 4, 8, 16, 32)}
    assert told == {1: True, 2: True, 4: True, 8: True, 16: False, 32: False}
    assert memory.fills_stages(shape, replace(recipe, pp=16), KNOWN)
    assert not memory.fills_stages(shape, replace(recipe, pp=32), KNOWN)


def test_compiling_and_low_precision_keep_less():
    llama = replace(GPT, feed_forward="gated")
    recipe = replace(EARLY, attention="fused", precision="bf16")
    whole = memory.activations(llama, recipe, KNOWN)
    assert memory.activations(llama, replace(recipe, compile=True), KNOWN) < whole
    eighth = memory_constants("Megatron-LM")
    assert (memory.activations(llama, replace(recipe, precision="fp8"), eighth)
            < memory.activations(llama, recipe, eighth))


def test_sharded_parameters_stay_gathered_in_a_pipeline():
    recipe = replace(EARLY, dp_shard=8, shard="parameters", pp=4)
    stage = memory.stage(GPT, recipe, "gpu", False, KNOWN)
    whole = (GPT.parameters - GPT.embedding_parameters) / 4 / 8
    assert stage["buffers"] > 2 * whole > memory.stage(
        GPT, replace(recipe, pp=1), "gpu", False, KNOWN)["buffers"]


def test_fitted_values_of_a_stack_do_not_speak_of_it_unseen():
    seen, unseen = memory_constants("nanotron"), memory_constants("nanotron", without="nanotron")
    assert seen.fragmentation == 0.05 and unseen.fragmentation == KNOWN.fragmentation
    assert unseen.bucket_bytes == seen.bucket_bytes == 2  # read in its code, not fitted
    assert memory_constants("no such stack") == KNOWN
    assert memory_constants("torch", "cpu").context_bytes != memory_constants("torch").context_bytes
    assert KNOWN.spread90 > 1


def test_selective_recompute_by_operation_keeps_every_second_matmul():
    llama = replace(GPT, feed_forward="gated", kv_heads=8, ffn=28672)
    recipe = replace(EARLY, tp=1, attention="fused", precision="bf16", recompute="selective")
    sharded = replace(recipe, dp_shard=8)
    tokens, width, keys = 2048, 12288, 8 * 128
    kept = 2 * (width + width + keys + width + 28672 + width) + 4 * 96
    assert memory.activations(llama, sharded, KNOWN) == pytest.approx(96 * tokens * kept)
    assert memory.activations(llama, recipe, KNOWN) > 96 * tokens * kept
    by_scores = memory_constants("Megatron-LM")
    assert memory.activations(llama, sharded, by_scores) == pytest.approx(
        memory.activations(llama, replace(sharded, recompute="none"), by_scores))


@settings(max_examples=50, deadline=None)
@example(stack="torch", precision="fp32", shard="gradients", experts=64, pp=4, dp_shard=16,
         layers=8)
@given(stack=st.sampled_from(["torch", "nanotron", "NeMo", "Megatron-LM", "torchtitan", ""]),
       precision=st.sampled_from(["fp32", "bf16", "fp8"]),
       shard=st.sampled_from(["optimiser", "gradients", "parameters"]),
       experts=st.sampled_from([0, 8, 64]), pp=st.sampled_from([1, 2, 4]),
       dp_shard=st.sampled_from([1, 2, 16]), layers=st.sampled_from([4, 8, 32]))
def test_offloaded_parameters_never_raise_the_peak(stack, precision, shard, experts, pp, dp_shard,
                                                   layers):
    sparse = {"experts": experts, "experts_per_token": 2, "expert_ffn": 1408} if experts else {}
    shape = ModelShape(layers=layers, width=2048, heads=16, kv_heads=16, head_size=128, ffn=5632,
                       vocab=32000, **sparse)
    recipe = Recipe(sequence_tokens=2048, micro_batch=1, global_batch=dp_shard * 8, pp=pp,
                    dp_shard=dp_shard, shard=shard, precision=precision, learning_rate=1e-3,
                    stack=stack)
    for kind in ("gpu", "cpu"):
        before, after = (memory.training(shape, replace(recipe, offload=offload), kind)["peak"]
                         for offload in ("optimiser", "parameters"))
        assert after <= before * (1 + 1e-12)


@pytest.mark.parametrize("rests", ["optimiser", "parameters", "activations"])
def test_nothing_leaves_the_memory_of_a_cpu(rests):
    plain = replace(EARLY, shard="parameters", dp_shard=2)
    moved = replace(plain, offload=rests)
    assert memory.training(GPT, moved, "cpu") == memory.training(GPT, plain, "cpu")
    assert memory.training(GPT, moved, "gpu")["peak"] < memory.training(GPT, plain, "gpu")["peak"]
