"""Activations that rest in host memory: here, where that is the same memory, as copies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from curbcut.errors import InputError
from curbcut.train import precision, refusals
from curbcut.train.parallel import build as parallel
from curbcut.train.parallel import offload
from curbcut.train.world import World
from tiny import tiny_machine, tiny_run

RESTING = {"offload": "activations"}


def gradients(run, device="cpu"):
    _, weights, passes = parallel.build(run, World(device=torch.device(device)))
    tokens = torch.randint(300, (2, 33), generator=torch.Generator().manual_seed(0)).to(device)
    loss = passes.gradients(tokens[:, :-1], tokens[:, 1:])
    precision.reduce_gradients(weights)
    return loss, {name: master.grad.cpu() for name, master in weights.masters.items()}


@pytest.mark.parametrize("more", [{}, {"recompute": "full"}, {"recompute": "selective"},
                                  {"attention": "fused"}, {"precision": "bf16"}])
def test_gradients_are_the_same_to_the_bit(more):
    wanted, ours = gradients(tiny_run(recipe=more)), gradients(tiny_run(recipe=RESTING | more))
    assert ours[0] == wanted[0]
    assert all(torch.equal(ours[1][name], grad) for name, grad in wanted[1].items())


def sent(monkeypatch, recipe, layers=2):
    """What is copied to the host in one forward pass."""
    seen = []
    monkeypatch.setattr(offload, "to_host", lambda tensor: seen.append(tensor) or tensor.clone())
    model, _, _ = parallel.build(tiny_run(model={"layers": layers}, recipe=recipe), World())
    model(torch.zeros((2, 32), dtype=torch.long))
    return model, seen


def test_activations_go_once_and_weights_stay(monkeypatch):
    model, seen = sent(monkeypatch, RESTING)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert seen and not any(t.untyped_storage().data_ptr() in weights for t in seen)
    _, more = sent(monkeypatch, RESTING, layers=4)
    assert len(more) == 2 * len(seen)
    _, inputs = sent(monkeypatch, RESTING | {"recompute": "full"})
    assert len(inputs) < len(seen) / 3


def test_small_tensors_stay(monkeypatch):
    _, seen = sent(monkeypatch, RESTING)
    assert all(t.numel() * t.element_size() >= offload.LEAST_BYTES for t in seen)


def test_nothing_goes_where_it_is_not_applied_or_nothing_is_trained(monkeypatch):
    assert sent(monkeypatch, {})[1] == []
    with torch.no_grad():
        assert sent(monkeypatch, RESTING)[1] == []
    monkeypatch.setattr(parallel.offload, "apply", lambda model, world, recipe: model)
    assert sent(monkeypatch, RESTING)[1] == []


@pytest.mark.parametrize(("machine", "more"), [("cpu", {}), ("gpu", {"compile": True})])
def test_where_it_moves_nothing_or_does_not_run_it_is_refused(machine, more):
    run = tiny_run(recipe=RESTING | more)
    with pytest.raises(InputError, match="not run") as caught:
        refusals.check(run.model, run.recipe, replace(tiny_machine(), kind=machine))
    assert caught.value.where == "recipe.offload" and "none" in caught.value.mend


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_less_memory_is_held_and_gradients_are_the_same():
    shape = {"layers": 8, "width": 256, "heads": 4, "kv_heads": 4, "head_size": 64, "ffn": 1024}
    results, held = [], []
    for recipe in ({}, RESTING):
        run = tiny_run(model=shape, recipe=recipe | {"attention": "fused"})
        torch.cuda.reset_peak_memory_stats()
        results.append(gradients(run, "cuda"))
        held.append(torch.cuda.max_memory_allocated())
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[1][1][n], g) for n, g in results[0][1].items())
