"""Experts on several ranks against one process: losses, whole gradients, messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ranks
from curbcut.train.parallel import build, experts
from tiny import tiny_run

SPARSE = {"experts": 4, "experts_per_token": 2, "expert_ffn": 24, "shared_experts": 1,
          "dense_layers": 1}
LAYOUTS = {
    "ep 2": {"dp_shard": 2, "ep": 2},
    "ep 2 zero-2 accumulated": {"dp_shard": 2, "ep": 2, "shard": "gradients", "micro_batch": 1,
                                "global_batch": 4},
    "ep 4": {"dp_shard": 4, "ep": 4, "micro_batch": 1},
    "ep 2 x fsdp 2": {"dp_shard": 4, "ep": 2, "micro_batch": 1, "global_batch": 8},
    "ep 2 x replicas 2": {"dp_replicate": 2, "dp_shard": 2, "ep": 2, "micro_batch": 1},
    "ep 2, all made again": {"dp_shard": 2, "ep": 2, "recompute": "full"},
    "ep 2 over cp 2": {"cp": 2, "ep": 2},
    "ep 2 x pp 2": {"dp_shard": 2, "ep": 2, "pp": 2, "micro_batch": 1},
    "fsdp 2, experts whole": {"dp_shard": 2},
    "replicas 2, experts whole": {"dp_replicate": 2},
    "zero-1 2, experts whole": {"dp_shard": 2, "shard": "optimiser"},
    "cp 2, experts whole": {"cp": 2},
}


def run_of(layout: str, **recipe):
    return tiny_run(steps=10, model=SPARSE,
                    recipe={"balance_loss": 0.05} | LAYOUTS[layout] | recipe)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_one_process(tiny_corpus, layout):
    run = run_of(layout)
    ranks.assert_equal(ranks.trace(run, tiny_corpus), ranks.trace(ranks.alone(run), tiny_corpus))


@pytest.mark.parametrize("layout", ["cp 2, experts whole", "replicas 2, experts whole"])
def test_parity_fails_where_apply_is_the_identity(tiny_corpus, monkeypatch, layout):
    """Without it nothing weighs the balance loss, and ranks that share sequences count alone."""
    run = run_of(layout)
    one = ranks.trace(ranks.alone(run), tiny_corpus, steps=1)
    monkeypatch.setattr(build.experts, "apply", lambda model, world, recipe: model)
    with pytest.raises(AssertionError, match="gradient of"):
        ranks.assert_equal(ranks.trace(run, tiny_corpus, steps=1), one)


def test_parity_fails_where_ranks_that_share_sequences_count_alone(tiny_corpus, monkeypatch):
    run = run_of("cp 2, experts whole")
    one = ranks.trace(ranks.alone(run), tiny_corpus, steps=1)
    monkeypatch.setattr(experts, "_summed", lambda counts, group: counts)
    with pytest.raises(AssertionError, match="gradient of"):
        ranks.assert_equal(ranks.trace(run, tiny_corpus, steps=1), one)


def _held(place, run):
    model, _, _ = build.build(run, place)
    return {name: p.to_local().numel() if hasattr(p, "to_local") else p.numel()
            for name, p in model.named_parameters()}


@pytest.mark.parametrize("layout", ["ep 2", "ep 4", "ep 2 x fsdp 2", "ep 2 x replicas 2"])
def test_each_rank_holds_its_part_of_each_stack(layout):
    run = run_of(layout)
    shape, name = run.model, "model.layers.1.mlp.experts.up_proj"
    whole = shape.experts * shape.expert_ffn * shape.width
    held = [one[name] for one in ranks.spawn(_held, run.recipe, run)]
    assert held == [whole // run.recipe.dp_shard] * run.recipe.ranks


def _exchanged(place, rows):
    group = place.group("ep")
    away = [1 + place.rank, 2]
    here = [[1, 2], [2, 2]][place.rank]
    mine = torch.full((sum(away), 3), float(place.rank), requires_grad=True)
    got = experts.exchange(mine, away, here, group)
    got.backward(torch.full_like(got, 10.0 + place.rank))
    return got[:, 0].tolist(), mine.grad[:, 0].tolist()


def test_rows_and_their_gradients_go_there_and_back():
    (first, to_first), (second, to_second) = ranks.spawn(
        _exchanged, tiny_run(recipe={"dp_shard": 2, "ep": 2}).recipe, 3)
    assert first == [0.0, 1.0, 1.0] and second == [0.0, 0.0, 1.0, 1.0]
    assert to_first == [10.0, 11.0, 11.0] and to_second == [10.0, 10.0, 11.0, 11.0]


def test_experts_train_in_bf16_as_on_one_process(tiny_corpus):
    run = run_of("ep 2", precision="bf16")
    many, one = (ranks.trace(each, tiny_corpus, steps=6) for each in (run, ranks.alone(run)))
    assert np.allclose(many.losses, one.losses, rtol=0.01)
    assert many.losses[-1] < many.losses[0]


def test_a_compiled_block_has_the_same_losses(tiny_corpus):
    run = run_of("ep 2", compile=True)
    torch._dynamo.reset()

    def eager(session):
        for block in session.model.model.layers:
            block.compile(backend="eager")

    compiled = ranks.trace(run_of("ep 2"), tiny_corpus, 2, eager)
    ranks.assert_equal(compiled, ranks.trace(ranks.alone(run), tiny_corpus, 2))
