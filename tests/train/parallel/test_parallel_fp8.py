"""Matmuls in fp8: torch's own fp8 matmul on the CPU, as the GPU's in all but speed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

import ranks
from curbcut.errors import InputError
from curbcut.train import precision, refusals
from curbcut.train.parallel import build as parallel
from curbcut.train.parallel import fp8
from curbcut.train.world import World
from tiny import tiny_machine, tiny_run

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None,
                                   reason="torchao is not installed")
KNOWN = tiny_machine(measured_flops={"fp32": 1e12, "bf16": 2e12, "fp8": 3e12})


def run_of(kind="fp8", **changes):
    return tiny_run(machine=KNOWN, recipe={"precision": kind, "micro_batch": 1} | changes)


@needs_torchao
def test_the_blocks_are_in_fp8_and_all_else_in_bf16_with_fp32_masters():
    model, weights, _ = parallel.build(run_of(), World())
    narrow = {name for name, module in model.named_modules()
              if type(module).__name__ == "Float8Linear"}
    assert narrow == {f"model.layers.{i}.{part}" for i in range(2) for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
    plain, _, _ = parallel.build(run_of("bf16"), World())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in weights.masters.values()} == {torch.float32}


@needs_torchao
def test_gradients_are_near_those_of_bf16_and_not_theirs():
    found = {}
    for kind in ("fp8", "bf16", "fp32"):
        _, weights, passes = parallel.build(run_of(kind), World())
        tokens = torch.randint(300, (2, 33), generator=torch.Generator().manual_seed(0))
        loss = passes.gradients(tokens[:, :-1], tokens[:, 1:])
        precision.reduce_gradients(weights)
        found[kind] = (loss, torch.cat([m.grad.flatten() for m in weights.masters.values()]))
    exact = found["fp32"]
    assert found["fp8"][0] == pytest.approx(exact[0], rel=1e-3)
    far = {kind: ((grad - exact[1]).norm() / exact[1].norm()).item()
           for kind, (_, grad) in found.items()}
    assert 2 * far["bf16"] < far["fp8"] < 0.1


@needs_torchao
@pytest.mark.parametrize("more", [{}, {"recompute": "full"}])
def test_two_ranks_of_fsdp_learn_as_one_process(tiny_corpus, more):
    run = run_of(dp_shard=2, **more)
    many, one = (ranks.trace(each, tiny_corpus, 4) for each in (run, ranks.alone(run)))
    # both round to fp8 what bf16 had rounded before, and that of other sums: near, never equal
    assert many.losses == pytest.approx(one.losses, rel=2e-3)
    assert many.losses[-1] < many.losses[0]


@needs_torchao
def test_it_fails_where_it_is_not_applied(monkeypatch):
    monkeypatch.setattr(parallel.fp8, "apply", lambda model, world, recipe: model)
    model, _, _ = parallel.build(run_of(), World())
    assert not any(type(m).__name__ == "Float8Linear" for m in model.modules())


def test_maps_of_odd_sizes_and_heads_stay_wide():
    assert fp8._is_narrow(torch.nn.Linear(32, 16), "model.layers.0.mlp.up_proj")
    assert not fp8._is_narrow(torch.nn.Linear(32, 20), "model.layers.0.mlp.up_proj")
    assert not fp8._is_narrow(torch.nn.Linear(32, 32), "lm_head")


@pytest.mark.parametrize(("machine", "recipe"), [(tiny_machine(), {}), (KNOWN, {"tp": 2})])
def test_a_chip_without_it_and_tensor_parallelism_are_refused(machine, recipe):
    run = run_of(**recipe)
    with pytest.raises(InputError, match="not run") as caught:
        refusals.check(run.model, run.recipe, machine)
    assert caught.value.where == "recipe.precision" and "bf16" in caught.value.mend


def test_a_machine_without_torchao_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = run_of()
    with pytest.raises(InputError, match="torchao") as caught:
        refusals.check(run.model, run.recipe, KNOWN)
    assert "curbcut[fp8]" in caught.value.mend


def test_an_old_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(InputError, match="A100 has no fp8"):
        fp8.check_chip(torch.device("cuda"))
    fp8.check_chip(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_loss_falls():
    run = replace(run_of(), machine=replace(KNOWN, kind="gpu"))
    _, weights, passes = parallel.build(run, World(device=torch.device("cuda")))
    tokens = torch.randint(300, (2, 33), device="cuda")
    assert passes.gradients(tokens[:, :-1], tokens[:, 1:]) < 7
    assert all(m.grad is None or m.grad.isfinite().all() for m in weights.masters.values())
