"""Tensor and sequence parallelism against one process."""

from __future__ import annotations

import pytest
import torch

import ranks
from tiny import tiny_run

FOUR = {"heads": 4, "kv_heads": 4, "head_size": 8}
EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 24, "shared_experts": 1,
           "dense_layers": 1}
LAYOUTS = {
    "tp 2": ({"tp": 2}, {"tied_embeddings": False}),
    "tp 2, a key head for each": ({"tp": 2}, FOUR | {"kv_heads": 2, "qk_norm": True}),
    "tp 2, tied": ({"tp": 2}, {}),
    "tp 4": ({"tp": 4}, FOUR | {"tied_embeddings": False}),
    "tp 4, two key heads": ({"tp": 4}, FOUR | {"kv_heads": 2, "qk_norm": True}),
    "tp 2, sequence": ({"tp": 2, "sequence_parallel": True},
                       {"qk_norm": True, "tied_embeddings": False}),
    "tp 2, sequence, tied": ({"tp": 2, "sequence_parallel": True}, {}),
    "tp 4, sequence": ({"tp": 4, "sequence_parallel": True}, FOUR | {"kv_heads": 2}),
    "tp 2, odd vocabulary": ({"tp": 2}, {"vocab": 301}),
    "tp 2, biases": ({"tp": 2}, {"qkv_bias": True}),
    "tp 4, sequence, biases of two key heads": ({"tp": 4, "sequence_parallel": True},
                                                FOUR | {"kv_heads": 2, "qkv_bias": True}),
    "shards 2, tp 2, biases": ({"dp_shard": 2, "tp": 2}, {"qkv_bias": True}),
    "tp 2, scores at once, kept small": ({"tp": 2, "chunked_loss": False, "z_loss": 0.05}, {}),
    "tp 2, experts": ({"tp": 2, "balance_loss": 0.05}, EXPERTS),
    "shards 2, tp 2": ({"dp_shard": 2, "tp": 2}, {"tied_embeddings": False}),
    "shards 2, tp 2, sequence, experts": ({"dp_shard": 2, "tp": 2, "sequence_parallel": True},
                                          EXPERTS),
    "shards 2, tp 2, sequence": ({"dp_shard": 2, "tp": 2, "sequence_parallel": True}, {}),
    "replicas 2, tp 2": ({"dp_replicate": 2, "tp": 2}, {}),
    "gradients 2, tp 2, odd vocabulary": ({"dp_shard": 2, "shard": "gradients", "tp": 2},
                                          {"vocab": 301}),
    "optimiser 2, tp 2": ({"dp_shard": 2, "shard": "optimiser", "tp": 2}, {}),
}


def both(layout, corpus, steps=10, **changes):
    recipe, model = layout
    # A high rate would show rounding of near-zero gradients: AdamW's first steps are of one size.
    run = tiny_run(steps=steps, recipe={"learning_rate": 1e-4} | recipe | changes, model=model)
    return ranks.trace(run, corpus, steps), ranks.trace(ranks.alone(run), corpus, steps)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_one_process(tiny_corpus, layout):
    ranks.assert_equal(*both(LAYOUTS[layout], tiny_corpus))


@pytest.mark.parametrize("recipe", [{"tp": 2}, {"dp_shard": 2, "tp": 2},
                                    {"tp": 2, "sequence_parallel": True}])
def test_a_model_that_is_not_split_is_seen_by_its_parts(monkeypatch, recipe):
    """Whole matrices on each rank would train alike: what tells them apart is what a rank holds."""
    from curbcut.train.parallel import build

    run = tiny_run(recipe=recipe, model={"kv_heads": 2})
    split = ranks.spawn(held_elements, run.recipe, run)
    monkeypatch.setattr(build.tensor, "apply", lambda model, world, recipe: model)
    whole = ranks.spawn(held_elements, run.recipe, run)
    norms = (2 * 2 * 32 + 32) / run.recipe.dp_shard
    assert all(held == (whole[0] + norms) / 2 for held in split)


def held_elements(place, run):
    from curbcut.train.norm import local
    from curbcut.train.parallel.build import build

    return sum(local(master).numel() for master in build(run, place)[1].masters.values())


def messages(place, run):
    """Collectives of one micro-batch forward and backward, by kind, and positions of the stream."""
    from torch.distributed.tensor.debug import CommDebugMode

    from curbcut.train.parallel.build import build

    model, _, passes = build(run, place)
    streams = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, given: streams.append(given[0].shape[1]))
    tokens = torch.zeros(2, 32, dtype=torch.int64)
    with CommDebugMode() as seen:
        passes.gradients(tokens, tokens)
    counts = {str(op).split(".")[-1]: n for op, n in seen.get_comm_counts().items()}
    return counts, streams[0]


def test_messages_are_those_that_the_plan_prices():
    """Two all-reduces a layer each way, with sequence parallelism a gather and a scatter each."""
    run = tiny_run(recipe={"tp": 2, "global_batch": 2})
    counts, stream = ranks.spawn(messages, run.recipe, run)[0]
    ends = 1 + 1  # the embedding forward, the head backward
    assert counts == {"all_reduce": 2 * 4 + ends + 2 * 2, "all_gather_into_tensor": 1}
    assert stream == 32
    run = tiny_run(recipe={"tp": 2, "global_batch": 2, "sequence_parallel": True})
    counts, stream = ranks.spawn(messages, run.recipe, run)[0]
    norms = 2 * 2 + 1
    assert counts["reduce_scatter_tensor"] == 2 * 4 + ends
    assert counts["all_gather_into_tensor"] == 2 * 4 + ends + 1
    assert counts["all_reduce"] == norms + 2 * 2
    assert stream == 16


def nats(place, run, tokens):
    """Nats of a text whose length no degree divides, on this rank."""
    from curbcut.model.loss import IGNORED
    from curbcut.train.parallel.build import build

    text = torch.arange(2 * tokens).view(2, -1) % 300
    wanted = (text + 1) % 300
    wanted[:, :3] = IGNORED
    return build(run, place)[2].nats(text, wanted)


@pytest.mark.parametrize("recipe", [
    {"tp": 2}, {"tp": 2, "sequence_parallel": True}, {"cp": 2}, {"cp": 2, "context": "ulysses"},
    {"cp": 2, "tp": 2, "sequence_parallel": True}])
def test_evaluation_says_the_same_on_any_layout_and_for_any_length(recipe):
    run = tiny_run(recipe=recipe)
    one = ranks.alone(run)
    said = ranks.spawn(nats, run.recipe, run, 29)
    wanted = ranks.spawn(nats, one.recipe, one, 29)[0]
    assert sum(said) / run.recipe.tp == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("recipe", [
    {"tp": 2}, {"tp": 2, "dp_replicate": 2}, {"tp": 2, "dp_shard": 2, "sequence_parallel": True}])
def test_bf16_follows_its_fp32_masters(tiny_corpus, recipe):
    run = tiny_run(steps=3, recipe={"precision": "bf16"} | recipe, model={"vocab": 301})
    many, one = ranks.trace(run, tiny_corpus, 3), ranks.trace(ranks.alone(run), tiny_corpus, 3)
    assert many.losses == pytest.approx(one.losses, rel=2e-3)
    for name, theirs in one.gradients[0].items():
        assert abs(many.gradients[0][name] - theirs).max() < 0.05 * abs(theirs).max() + 1e-4
