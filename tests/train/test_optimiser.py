from __future__ import annotations

import pytest
import torch
from torch import nn

from curbcut.errors import DamagedFile
from curbcut.train import optimiser
from tiny import tiny_run

RECIPES = {kind: tiny_run(recipe={"weight_decay": 0.1, "learning_rate": 0.01,
                                  "optimiser": kind}).recipe for kind in ("adamw", "muon", "adamw8",
                                                            "adafactor")}
MATRIX = "model.layers.0.mlp.up_proj.weight"


def masters():
    torch.manual_seed(0)
    return {MATRIX: nn.Parameter(torch.randn(8, 4)),
            "model.embed_tokens.weight": nn.Parameter(torch.randn(6, 4)),
            "model.norm.weight": nn.Parameter(torch.ones(4))}


def step(updater, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in updater.masters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    updater.step(0.01)


def test_norms_do_not_decay_and_matrices_do():
    named = masters()
    updater = optimiser.updater(named, RECIPES["adamw"])
    before = {n: p.detach().clone() for n, p in named.items()}
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    updater.step(0.01)
    assert torch.equal(named["model.norm.weight"], before["model.norm.weight"])
    assert torch.allclose(named[MATRIX], before[MATRIX] * (1 - 0.01 * 0.1))


def test_muon_moves_the_blocks_and_adamw_the_rest():
    updater = optimiser.updater(masters(), RECIPES["muon"])
    step(updater, 0)
    assert sorted(updater.moments()) == sorted(
        [f"momentum_buffer.{MATRIX}"] + [f"{key}.{name}" for name in (
            "model.embed_tokens.weight", "model.norm.weight")
            for key in ("exp_avg", "exp_avg_sq", "step")])


def test_muons_update_is_nearly_orthogonal():
    named = masters()
    updater = optimiser.updater(named, tiny_run(
        recipe={"optimiser": "muon", "weight_decay": 0.0}).recipe)
    before = named[MATRIX].detach().clone()
    step(updater, 0)
    moved = (before - named[MATRIX].detach()) / (0.01 * 0.2 * 8 ** 0.5)
    singular = torch.linalg.svdvals(moved)
    assert singular.min() > 0.4
    assert singular.max() < 1.4


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_moments_taken_up_give_the_same_next_step(kind):
    unbroken = optimiser.updater(masters(), RECIPES[kind])
    broken = optimiser.updater(masters(), RECIPES[kind])
    for seed in range(3):
        step(unbroken, seed)
        step(broken, seed)
    kept = {n: t.clone() for n, t in broken.moments().items()}
    fresh = optimiser.updater({n: nn.Parameter(p.detach().clone())
                               for n, p in broken.masters.items()}, RECIPES[kind])
    fresh.restore(kept)
    step(unbroken, 9)
    step(fresh, 9)
    assert all(torch.equal(p, fresh.masters[n]) for n, p in unbroken.masters.items())


def test_a_missing_moment_is_named():
    updater = optimiser.updater(masters(), RECIPES["adamw"])
    step(updater, 0)
    kept = updater.moments()
    del kept[f"exp_avg.{MATRIX}"]
    with pytest.raises(DamagedFile, match="exp_avg"):
        optimiser.updater(masters(), RECIPES["adamw"]).restore(kept)


def test_muon_needs_nothing_of_a_torch_that_has_none(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    step(optimiser.updater(masters(), RECIPES["muon"]), 0)


def test_routers_are_adamws_and_stacks_of_experts_are_muons():
    named = masters() | {"model.layers.0.mlp.gate.weight": nn.Parameter(torch.randn(4, 4)),
                         "model.layers.0.mlp.experts.up_proj": nn.Parameter(torch.randn(4, 8, 4))}
    updater = optimiser.updater(named, RECIPES["muon"])
    step(updater, 0)
    by_muon = {name for name in updater.moments() if name.startswith("momentum_buffer.")}
    assert by_muon == {f"momentum_buffer.{MATRIX}",
                       "momentum_buffer.model.layers.0.mlp.experts.up_proj"}


def test_state_bytes_are_counted():
    updater = optimiser.updater(masters(), RECIPES["adamw"])
    assert list(updater.tensors()) == []
    step(updater, 0)
    elements = sum(p.numel() for p in updater.masters.values())
    assert sum(t.numel() for t in updater.tensors()) == 2 * elements + 3
