"""Every optimiser takes one process's steps on every layout, and its state survives."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor, Shard

import ranks
from curbcut.train import gather, muon, optimiser
from curbcut.train.loop import take_step
from tiny import tiny_run

EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 32}
LAYOUTS = {
    "fsdp": {"dp_shard": 2}, "fsdp of 3": {"dp_shard": 3, "global_batch": 3},
    "zero-1": {"dp_shard": 2, "shard": "optimiser"}, "tp": {"tp": 2},
    "hsdp": {"dp_shard": 2, "dp_replicate": 2},
}


def run_of(kind, layout, **model):
    return tiny_run(steps=4, model={"kv_heads": 2} | model, recipe={
        "optimiser": kind, "micro_batch": 1} | LAYOUTS[layout])


def near(run, corpus, tolerance=1e-5):
    many, one = (ranks.trace(each, corpus, 4) for each in (run, ranks.alone(run)))
    np.testing.assert_allclose(many.losses, one.losses, rtol=tolerance)
    for name, wanted in one.weights.items():
        assert np.abs(many.weights[name] - wanted).max() <= tolerance, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_muon_equals_one_process(tiny_corpus, layout):
    near(run_of("muon", layout), tiny_corpus)


@pytest.mark.parametrize("layout", ["fsdp", "zero-1", "tp"])
def test_adafactor_equals_one_process(tiny_corpus, layout):
    near(run_of("adafactor", layout), tiny_corpus)


def test_adamw8_is_near_one_process(tiny_corpus):
    # blocks of 256 lie within a rank's part, so their scales are others
    many, one = (ranks.trace(each, tiny_corpus, 4) for each in (
        run_of("adamw8", "fsdp"), ranks.alone(run_of("adamw8", "fsdp"))))
    assert many.losses == pytest.approx(one.losses, rel=1e-3)


@pytest.mark.parametrize("layout", ["fsdp", "zero-1"])
def test_muon_turns_stacks_of_experts(tiny_corpus, layout):
    near(run_of("muon", layout, **EXPERTS), tiny_corpus)


def test_a_rank_that_turns_its_own_part_alone_is_found_out(tiny_corpus, monkeypatch):
    monkeypatch.setattr(muon, "orthogonalised",
                        lambda updates, masters: [muon.newton_schulz(u) for u in updates])
    with pytest.raises(AssertionError):
        near(run_of("muon", "fsdp"), tiny_corpus)


def _spread_two_ways(world):
    """Matrices cut along two axes, and along their columns, against one whole."""
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    wanted = muon.newton_schulz(whole)
    far = []
    for mesh, placements in ((world.mesh["shares", "tp"], [Shard(0), Shard(1)]),
                             (world.mesh["tp"], [Shard(1)]), (world.mesh["tp"], [Shard(0)])):
        from torch.distributed.tensor import distribute_tensor

        spread = distribute_tensor(whole, mesh, placements, src_data_rank=None)
        (part,) = muon.orthogonalised([spread.to_local()], [spread])
        back = DTensor.from_local(part, mesh, placements, run_check=False, shape=whole.shape,
                                  stride=whole.stride()).full_tensor()
        far.append(float((back - wanted).abs().max()))
    return far


def test_matrices_cut_in_any_way_turn_as_they_do_whole():
    recipe = tiny_run(recipe={"dp_shard": 2, "tp": 2, "micro_batch": 1}).recipe
    for far in ranks.spawn(_spread_two_ways, recipe):
        assert max(far) < 1e-5


def _resumed(world, run, corpus):
    """Whether a session that takes up whole or own tensors steps on to the bit."""
    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.session import open_session

    sessions = [open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                             world=world) for _ in range(3)]
    for session in sessions[:2]:
        for _ in range(2):
            take_step(session)
    broken = sessions[1].tensors()
    spread = [isinstance(t, DTensor) for n, t in broken.items() if n.startswith("exp_avg.")]
    sessions[2].restore(sessions[1].progress(), {n: t.clone() for n, t in broken.items()})
    for session in (sessions[0], sessions[2]):
        take_step(session)
    same = all(torch.equal(gather_local(m), gather_local(sessions[2].weights.masters[n]))
               for n, m in sessions[0].weights.masters.items())
    names = sorted(name for name, _ in gather.whole(broken, world))
    return same, all(spread), names


def gather_local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@pytest.mark.parametrize("kind", ["adamw", "muon", "adamw8", "adafactor"])
def test_state_is_laid_open_by_name_and_taken_up_to_the_bit(tiny_corpus, kind):
    run = run_of(kind, "fsdp", width=64, ffn=128)
    (same, spread, names), _ = ranks.spawn(_resumed, run.recipe, run, tiny_corpus)
    assert same
    assert spread or kind == "adafactor"
    first = {"adafactor": "row", "muon": "momentum_buffer"}.get(kind, "exp_avg")
    assert f"{first}.model.layers.0.mlp.up_proj.weight" in names


def test_a_whole_tensor_is_cut_to_the_own_part(tiny_corpus):
    assert ranks.spawn(_cut, run_of("adamw", "fsdp").recipe) == [True, True]


def _cut(world):
    from torch.distributed.tensor import distribute_tensor

    whole = torch.arange(12.0).view(6, 2)
    master = torch.nn.Parameter(distribute_tensor(whole, world.axis("shares"), [Shard(0)]))
    own = optimiser._own_part(whole + 100, master)
    return torch.equal(own, master.to_local().detach() + 100)
