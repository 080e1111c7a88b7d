"""Saved on any layout of ranks, read on any other: masters, moments and scalars, uneven shards."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import ranks
from curbcut.train import checkpoint
from curbcut.train.checkpoint.pieces import piece_of, pieces
from saved import RUN, progress, whole
from tiny import tiny_run

LAYOUTS = {
    "alone": {},
    "replicas": {"dp_replicate": 2},
    "shards": {"dp_shard": 2},
    "tensor": {"tp": 2},
    "stages": {"pp": 2},
    "shards of tensor": {"dp_shard": 2, "tp": 2},
    "replicas of shards": {"dp_replicate": 2, "dp_shard": 2},
    "stages of shards": {"pp": 2, "dp_shard": 2},
    "four shards": {"dp_shard": 4},
}
SIZES = {"layers.0.a": (7, 5), "layers.0.b": (16, 4), "layers.1.a": (7, 5), "layers.1.b": (1, 9),
         "norm": (5,), "head": (3, 2)}


def recipe(layout):
    return replace(tiny_run().recipe, global_batch=8, micro_batch=1, **LAYOUTS[layout])


def truth(name):
    generator = torch.Generator().manual_seed(sorted(SIZES).index(name))
    return torch.randn(SIZES[name], generator=generator)


def laid_out(world, value):
    """Master-like parameters of this rank: a stage's own, cut along tp, then along shares."""
    found = {}
    for name in SIZES:
        stage = int(name.split(".")[1]) if name.startswith("layers") else 0
        if world.degree("pp") > 1 and world.coordinate("pp") != stage:
            continue
        full = value(name)
        if world.degree("tp") > 1 and world.degree("shares") > 1:
            inner = Shard(full.ndim - 1) if name.endswith("a") else Shard(0)
            full = distribute_tensor(full, world.axis("shares", "tp"), [Shard(0), inner])
        elif world.degree("tp") > 1:
            full = distribute_tensor(full, world.axis("tp"), [Shard(full.ndim - 1)])
        elif world.degree("shares") > 1:
            names = ("dp_replicate", "shares") if world.degree("dp_replicate") > 1 else ("shares",)
            places = [Replicate()] * (len(names) - 1) + [Shard(0)]
            full = distribute_tensor(full, world.axis(*names), places)
        found[name] = full
    return found


def save(world, root):
    masters = laid_out(world, truth)
    named = {f"master.{n}": t for n, t in masters.items()}
    named |= {f"exp_avg.{n}": t * 2 for n, t in masters.items()}
    named |= {f"step.{n}": torch.tensor(4.0) for n in masters}
    folder = checkpoint.Saver(root, RUN, 2, world).save(progress(), named)
    return folder.name, {n: piece_of(n, t).size for n, t in masters.items()}


def load(world, root):
    masters = laid_out(world, lambda name: torch.zeros(SIZES[name]))
    stored = checkpoint.newest(root, RUN, world)
    laid = checkpoint.Laid(stored, masters)
    for name, master in masters.items():
        for kind, factor in (("master", 1), ("exp_avg", 2)):
            found = laid[f"{kind}.{name}"]
            if isinstance(master, DTensor):
                assert found.placements == master.placements
                assert found.to_local().shape == master.to_local().shape
                found = found.full_tensor()
            assert torch.equal(found, factor * truth(name)), (kind, name)
        assert laid[f"step.{name}"] == 4.0
        master.copy_(laid[f"master.{name}"])
    return stored.manifest.ranks


CHANGES = [("alone", "shards"), ("shards", "alone"), ("replicas", "shards of tensor"),
           ("shards of tensor", "stages"), ("stages", "tensor"), ("tensor", "replicas of shards"),
           ("replicas of shards", "four shards"), ("four shards", "stages of shards"),
           ("stages of shards", "alone")]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_what_one_layout_saves_another_reads(tmp_path, before, after):
    told = ranks.spawn(save, recipe(before), tmp_path)
    assert {name for name, _ in told} == {"step-00000003"}
    assert ranks.spawn(load, recipe(after), tmp_path) == [recipe(before).ranks] * recipe(
        after).ranks


def _balance(world, root):
    named = {f"master.{i}": torch.ones(100) for i in range(10)}
    checkpoint.Saver(root, RUN, 2, world).save(progress(), named)
    return [facts.bytes for facts in checkpoint.newest(root, RUN, world).manifest.files]


def test_replicas_share_the_writing_and_no_byte_is_written_twice(tmp_path):
    sizes = ranks.spawn(_balance, recipe("replicas"), tmp_path)[0]
    assert len(sizes) == 2
    assert all(5 * 400 < size < 5 * 400 + 1500 for size in sizes)


def _over_tensor(world, root):
    """FSDP on top of tensor parallelism: shards of one dim along two axes, unevenly."""
    chance = random.Random(5)
    for size in [(8, 6), (12, 4), (chance.randrange(4, 20) * 2, 3)]:
        torch.manual_seed(0)
        module = nn.Linear(size[1], size[0], bias=False)
        full = module.weight.detach().clone()
        module.weight = nn.Parameter(distribute_tensor(full, world.axis("tp"), [Shard(0)]))
        fully_shard(module, mesh=world.axis("shares"))
        named = {"master.weight": module.weight.data}
        checkpoint.Saver(root, RUN, 1, world).save(progress(), named)
        stored = checkpoint.newest(root, RUN, world)
        assert torch.equal(whole(stored)["master.weight"], full)
        again = checkpoint.Laid(stored, {"weight": module.weight})["master.weight"]
        assert torch.equal(again.to_local(), module.weight.to_local())
    return len(pieces(named))


def test_fsdp_over_tensor_parallel_parameters(tmp_path):
    assert ranks.spawn(_over_tensor, recipe("shards of tensor"), tmp_path) == [1] * 4


def _one_disk_refuses(world, root):
    from curbcut.errors import InputError
    from curbcut.train import faults

    saver = checkpoint.Saver(root, RUN, 2, world)
    saver.save(progress(1), laid_out(world, truth))
    faults.arm("save: before sync", faults.error(OSError(28, "No space left on device")), rank=1)
    try:
        saver.save(progress(2), laid_out(world, truth))
    except InputError as error:
        return str(error)
    return "saved"


def test_a_disk_that_refuses_one_rank_is_told_to_all(tmp_path):
    told = ranks.spawn(_one_disk_refuses, recipe("shards"), tmp_path)
    assert all("rank 1: [Errno 28] No space left" in text for text in told)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
