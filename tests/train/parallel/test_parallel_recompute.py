"""What is computed again is the same to the bit, and less is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ranks
from curbcut.model.decoder import fused_attention
from curbcut.physics import activations
from curbcut.physics.memory_constants import memory_constants
from curbcut.train import precision
from curbcut.train.parallel import build as parallel
from curbcut.train.parallel import recompute
from curbcut.train.world import World
from tiny import tiny_run

MODES = ("none", "selective", "full")


def run_of(mode, attention="math", **changes):
    return tiny_run(model={"layers": 3, "kv_heads": 2, "context_tokens": 256},
                    recipe={"recompute": mode, "attention": attention,
                            "sequence_tokens": 192} | changes)


def gradients(run):
    _, weights, passes = parallel.build(run, World())
    tokens = torch.randint(300, (2, 193), generator=torch.Generator().manual_seed(0))
    loss = passes.gradients(tokens[:, :-1], tokens[:, 1:])
    precision.reduce_gradients(weights)
    return loss, {name: master.grad for name, master in weights.masters.items()}


def saved_bytes(run):
    """Bytes of the unique storages that autograd keeps of the blocks, weights apart."""
    model, _, _ = parallel.build(run, World())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros((2, 192), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(tokens)
    assert hidden.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("attention", ["math", "fused"])
@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_gradients_are_the_same_to_the_bit(mode, attention, kind):
    wanted, ours = (gradients(run_of(one, attention, precision=kind)) for one in ("none", mode))
    assert ours[0] == wanted[0]
    for name, grad in wanted[1].items():
        assert torch.equal(ours[1][name], grad), name


def layer_bytes(run):
    """Bytes a token that one more layer keeps."""
    counted = [saved_bytes(replace(run, model=replace(run.model, layers=n))) for n in (2, 4)]
    return (counted[1] - counted[0]) / 2 / (2 * 192)


@pytest.mark.parametrize("attention", ["math", "fused"])
@pytest.mark.parametrize("mode", MODES)
def test_what_a_layer_keeps_is_what_the_plan_says(mode, attention):
    run = run_of(mode, attention)
    kept, _ = activations.layer_bytes(run.model, run.recipe, memory_constants("torch", "cpu"))
    assert layer_bytes(run) == pytest.approx(kept, rel=0.03)


def test_each_mode_keeps_less_than_the_one_before():
    held = [saved_bytes(run_of(mode)) for mode in MODES]
    assert held[0] > 1.2 * held[1] > 3 * held[2]


def test_fused_attention_has_no_scores_to_drop():
    assert recompute.without_scores(fused_attention) is fused_attention
    assert saved_bytes(run_of("selective", "fused")) == saved_bytes(run_of("none", "fused"))


def test_an_attention_of_another_kind_is_done_again_whole():
    calls = []

    def attend(query, key, value):
        calls.append(1)
        return fused_attention(query, key, value)

    again = recompute.without_scores(attend)
    some = [torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3)]
    again(*some).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        again(*some)
    assert len(calls) == 3


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("layout", [{"dp_shard": 2}, {"tp": 2}])
def test_two_ranks_equal_one_process(tiny_corpus, mode, layout):
    run = tiny_run(steps=4, model={"kv_heads": 2},
                   recipe={"recompute": mode, "micro_batch": 1} | layout)
    ranks.assert_equal(ranks.trace(run, tiny_corpus, 4),
                       ranks.trace(ranks.alone(run), tiny_corpus, 4))


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_compiled_blocks_have_the_same_gradients(monkeypatch, mode):
    monkeypatch.setattr(parallel.compiled, "BACKEND", "aot_eager")
    # in a process of its own: what the compiler starts would not live on in later tests' ranks
    assert ranks.spawn(_compiled_is_the_same, run_of(mode).recipe, mode) == [True]


def _compiled_is_the_same(world, mode):
    del world
    wanted, ours = gradients(run_of("none")), gradients(run_of(mode, compile=True))
    assert ours[0] == pytest.approx(wanted[0], rel=1e-6)
    for name, grad in wanted[1].items():
        torch.testing.assert_close(ours[1][name], grad, atol=1e-6, rtol=1e-4)
    return True


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_it_fails_where_it_is_not_applied(monkeypatch, mode):
    monkeypatch.setattr(parallel.recompute, "apply", lambda model, world, recipe: model)
    assert saved_bytes(run_of(mode)) == saved_bytes(run_of("none"))
