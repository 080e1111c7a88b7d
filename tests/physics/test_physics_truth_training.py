"""Collectives against those of the real training step, counted on 2 to 4 ranks over gloo."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

import measured
import ranks
from curbcut.meter.clock import SystemClock
from curbcut.physics import collectives, constants, memory, operations, rates, step
from curbcut.spec import Account, Run
from curbcut.train.loop import take_step
from curbcut.train.session import open_session
from tiny import tiny_machine, tiny_run

KINDS = {
    "_allgather_base_": "all_gather", "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter", "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce", "all_reduce": "all_reduce", "alltoall_base_": "all_to_all",
    "all_to_all_single": "all_to_all", "send": "send",
    "reduce_": "reduce_scatter", "broadcast_": "all_gather"}
"""ZeRO-1 hands whole tensors to their owners: as many bytes as a scatter and a gather of them."""
CONTROL_BYTES = 64
MODEL = {"layers": 4, "width": 32, "heads": 4, "kv_heads": 4, "head_size": 8, "ffn": 64,
         "tied_embeddings": False}
EXPERTS = MODEL | {"experts": 4, "experts_per_token": 2, "expert_ffn": 32}
MICRO_BATCHES = 4


class Heard(TorchDispatchMode):
    """Bytes and messages by kind, control words apart."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter = Counter()
        self.calls: Counter = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        name = op.__name__.partition(".")[0]
        if op.namespace in ("c10d", "_c10d_functional") and name in KINDS:
            sizes = [x.nbytes for x in torch.utils._pytree.tree_leaves((args, kwargs))
                     if isinstance(x, torch.Tensor)]
            whole = sizes[0] * args[1] if name == "all_gather_into_tensor" else max(sizes)
            if whole > CONTROL_BYTES:
                self.bytes[KINDS[name]] += whole
                self.calls[KINDS[name]] += 1
        return op(*args, **(kwargs or {}))


def _heard(place, run: Run, corpus) -> tuple[Counter, Counter]:
    session = open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                           world=place)
    take_step(session)
    with Heard() as ears:
        take_step(session)
    return ears.bytes, ears.calls


def run_of(model=MODEL, **recipe) -> Run:
    data = recipe.get("dp_replicate", 1) * recipe.get("dp_shard", 1)
    machine = tiny_machine(accelerators_per_node=ranks_of(recipe), link_bytes_per_second=10**9)
    return tiny_run(model=model, machine=machine,
                    recipe={"micro_batch": 1, "global_batch": MICRO_BATCHES * data} | recipe)


def ranks_of(recipe: dict) -> int:
    count = 1
    for name in ("dp_replicate", "dp_shard", "tp", "pp", "cp"):
        count *= recipe.get(name, 1)
    return count


def foretold(run: Run) -> tuple[operations.Collective, ...]:
    """As a step's time counts them: with the stack's habits and fp32 gradients."""
    known = constants.of(run.machine, run.recipe)
    wide = operations.element_bytes(run.recipe)
    elements = operations.ElementBytes(wide.weight, 4, wide.activation)
    assert step.gradient_bytes(run.recipe, known) == 4
    return operations.collectives(run.model, run.recipe, elements, step.habits(known))


LAYOUTS = {
    "DDP in bf16": {"dp_replicate": 2, "precision": "bf16"},
    "ZeRO-1 in bf16": {"dp_shard": 2, "shard": "optimiser", "precision": "bf16"},
    "ZeRO-1 with replicas": {"dp_replicate": 2, "dp_shard": 2, "shard": "optimiser"},
    "ZeRO-2": {"dp_shard": 2, "shard": "gradients"},
    "ZeRO-3 in bf16": {"dp_shard": 2, "precision": "bf16"},
    "HSDP": {"dp_replicate": 2, "dp_shard": 2},
    "TP, all again": {"tp": 2, "recompute": "full"},
    "TP and SP, all again": {"tp": 2, "sequence_parallel": True, "recompute": "full"},
    "ring, all again": {"cp": 2, "recompute": "full"},
    "Ulysses": {"cp": 2, "context": "ulysses"},
    "ring with replicas": {"cp": 2, "dp_replicate": 2},
    "ring and ZeRO-1": {"cp": 2, "shard": "optimiser"},
    "Muon on shards": {"dp_shard": 2, "optimiser": "muon"},
    "Muon on pieces": {"tp": 2, "optimiser": "muon"},
    "Muon on owned matrices": {"dp_shard": 2, "shard": "optimiser", "optimiser": "muon"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_step_moves_the_bytes_that_are_priced(name, tiny_corpus):
    run = run_of(**LAYOUTS[name])
    said: Counter = Counter()
    for each in foretold(run):
        said[each.kind] += each.step_bytes
    for heard, _ in ranks.spawn(_heard, run.recipe, run, tiny_corpus):
        # Owners under ZeRO-1 have tensors of unequal sizes, so replicas of them do too.
        assert heard == pytest.approx(said, rel=0.002)


def test_replicas_meet_once_a_step_and_shards_in_each_micro_batch(tiny_corpus):
    run = run_of(dp_replicate=2, dp_shard=2)
    said = Counter()
    for each in foretold(run):
        said[each.kind] += each.times
    units = MODEL["layers"] + 1
    assert said == {"all_gather": MICRO_BATCHES * (2 * units - 1),
                    "reduce_scatter": MICRO_BATCHES * units, "all_reduce": units}
    for _, calls in ranks.spawn(_heard, run.recipe, run, tiny_corpus):
        assert calls == said


@pytest.mark.parametrize("recipe", [
    {"pipeline": "gpipe"}, {"pipeline": "zero-bubble"},
    {"pipeline": "interleaved", "virtual_stages": 2}, {"pipeline": "dualpipev"}])
def test_stages_in_the_middle_send_what_is_priced(recipe, tiny_corpus):
    """The rank that sends most: those at the ends send half of it."""
    many = 8 if recipe["pipeline"] == "dualpipev" else MICRO_BATCHES
    run = run_of(MODEL | {"layers": 8}, pp=4, global_batch=many, **recipe)
    (said,) = foretold(run)
    sent = [heard["send"] for heard, _ in ranks.spawn(_heard, run.recipe, run, tiny_corpus)]
    assert max(sent) == said.step_bytes


@pytest.mark.parametrize("recipe", [
    {"shard": "parameters"}, {"shard": "gradients"}, {"shard": "optimiser"},
    {"shard": "parameters", "pipeline": "dualpipev"}])
def test_a_pipelines_shards_are_gathered_and_scattered_once_a_step(recipe, tiny_corpus):
    run = run_of(pp=2, dp_shard=2, **recipe)
    said = Counter()
    for each in foretold(run):
        said[each.kind] += each.step_bytes
    heard = [heard for heard, _ in ranks.spawn(_heard, run.recipe, run, tiny_corpus)]
    for kind in ("all_gather", "reduce_scatter"):
        assert max(one[kind] for one in heard) == pytest.approx(said[kind], rel=0.002), kind


@pytest.mark.parametrize("recipe", [
    {"dp_shard": 2, "shard": "optimiser"}, {"dp_shard": 2}, {}])
def test_tied_ends_exchange_what_a_rank_has_of_the_gradient(recipe, tiny_corpus):
    run = run_of(MODEL | {"tied_embeddings": True}, pp=2, **recipe)
    said = {each.name: each.step_bytes for each in foretold(run)}
    for heard, _ in ranks.spawn(_heard, run.recipe, run, tiny_corpus):
        assert heard["send"] == said["stages"] / 2 + said["tied embedding"]


def test_experts_tokens_go_out_and_come_back(tiny_corpus):
    run = run_of(EXPERTS, dp_shard=2, ep=2)
    said = Counter()
    for each in foretold(run):
        said[each.kind] += each.step_bytes
    heard = [heard for heard, _ in ranks.spawn(_heard, run.recipe, run, tiny_corpus)]
    for kind in ("all_gather", "reduce_scatter"):
        assert all(one[kind] == said[kind] for one in heard)
    sent = sum(one["all_to_all"] for one in heard) / len(heard)
    assert 1.0 <= sent / said["all_to_all"] < 1.4  # the fuller of what goes out and comes in


@pytest.mark.parametrize(("recipe", "precision"), [
    ({"pp": 2, "dp_shard": 2}, "bf16"), ({"pp": 2, "dp_shard": 2}, "fp32"),
    ({"dp_shard": 2}, "fp32"), ({"cp": 2}, "fp32"), ({"dp_replicate": 2}, "bf16")])
def test_the_peak_of_tensors_is_what_is_priced(recipe, precision, tiny_corpus):
    wide = MODEL | {"width": 256, "head_size": 64, "ffn": 1024}
    run = run_of(wide, precision=precision, **recipe)
    said = memory.training(run.model, run.recipe, "cpu")
    peak = max(step.peak for step in measured.measure(run, tiny_corpus))
    assert said["peak"] - said["overhead"] == pytest.approx(peak, rel=0.12)


def test_what_is_priced_takes_time_on_this_machine():
    run = run_of(dp_replicate=2, dp_shard=2)
    chip, known = rates.chip(run.machine, "fp32"), constants.of(run.machine, run.recipe)
    assert chip is not None
    for each in foretold(run):
        assert collectives.seconds(each, chip, known) > 0
