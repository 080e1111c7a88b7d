from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import ranks
from curbcut.train import gather
from curbcut.train.averages import Averages
from curbcut.train.loop import take_step
from tiny import tiny_run

DECAY = 0.5


def test_a_mean_follows_faster_while_young():
    master = {"x": nn.Parameter(torch.zeros(3))}
    means = Averages(master, 0.9)
    expected = 0.0
    for step in range(200):
        master["x"].data.fill_(float(step))
        means.follow(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert means.means["x"][0].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert 199 - expected == pytest.approx(9.0, abs=0.1)  # a lag of d / (1 - d) steps


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_the_model_computes_with_the_means_while_they_stand_in(opened, kind):
    session = opened(tiny_run(recipe={"ema_decay": DECAY, "precision": kind}))
    for _ in range(3):
        take_step(session)
    masters = {n: p.detach().clone() for n, p in session.weights.masters.items()}
    compute = {n: p.detach().clone() for n, p in session.model.named_parameters()}
    means = {n: m.clone() for n, m in session.averages.means.items()}
    with session.averaged():
        for name, parameter in session.model.named_parameters():
            assert torch.equal(parameter, means[name].to(parameter.dtype))
    assert all(torch.equal(p, masters[n]) for n, p in session.weights.masters.items())
    assert all(torch.equal(p, compute[n]) for n, p in session.model.named_parameters())
    assert all(torch.equal(m, means[n]) for n, m in session.averages.means.items())
    assert any(not torch.equal(means[n], masters[n]) for n in masters)


def test_without_a_decay_there_are_none(opened):
    session = opened(tiny_run())
    assert session.averages is None
    with session.averaged():
        take_step(session)
    assert not any(name.startswith("ema.") for name in session.tensors())


def test_they_do_not_touch_what_is_trained(tiny_corpus):
    plain, averaged = tiny_run(steps=3), tiny_run(steps=3, recipe={"ema_decay": DECAY})
    ranks.assert_equal(ranks.trace(plain, tiny_corpus, 3), ranks.trace(averaged, tiny_corpus, 3),
                       tolerance=0.0)


def test_a_resumed_run_has_the_same_means_to_the_bit(opened, tmp_path):
    run = tiny_run(recipe={"ema_decay": DECAY})
    unbroken, broken, fresh = (opened(run, tmp_path / str(n)) for n in range(3))
    for session in (unbroken, broken):
        for _ in range(2):
            take_step(session)
    kept = {name: tensor.clone() for name, tensor in broken.tensors().items()}
    assert sum(name.startswith("ema.") for name in kept) == len(broken.weights.masters)
    fresh.restore(broken.progress(), kept)
    for session in (unbroken, fresh):
        take_step(session)
    for name, mean in unbroken.averages.means.items():
        assert torch.equal(mean, fresh.averages.means[name])


def _means(world, run, corpus, folder):
    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.session import open_session

    session = open_session(run, folder, corpus, SystemClock(), Account(), world=world)
    for _ in range(3):
        take_step(session)
    with session.averaged():
        whole = {n: t.float().numpy().copy() for n, t in gather.whole(
            session.weights.compute, world) if world.main}
    return whole


@pytest.mark.parametrize("shard", ["parameters", "optimiser"])
def test_many_ranks_have_the_means_of_one(tiny_corpus, tmp_path, shard):
    run = tiny_run(steps=3, recipe={"ema_decay": DECAY, "dp_shard": 2, "shard": shard,
                                    "micro_batch": 1})
    alone = ranks.alone(replace(run, recipe=replace(run.recipe, shard="parameters")))
    many = ranks.spawn(_means, run.recipe, run, tiny_corpus, tmp_path)[0]
    one = ranks.spawn(_means, alone.recipe, alone, tiny_corpus, tmp_path)[0]
    assert sorted(many) == sorted(one)
    for name, wanted in one.items():
        assert abs(many[name] - wanted).max() < 1e-6
