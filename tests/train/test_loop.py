from __future__ import annotations

import math

import pytest
import torch

from curbcut.errors import InputError
from curbcut.train import loop
from curbcut.train.session import Silent
from tiny import tiny_run


class Losses(Silent):
    def __init__(self):
        self.reports = []

    def after_step(self, session, report):
        self.reports.append(report)


def losses_of(session):
    seen = Losses()
    loop.train(session, [seen])
    return [r.loss for r in seen.reports]


def test_the_loss_falls(opened):
    losses = losses_of(opened(tiny_run(steps=60)))
    assert losses[0] == pytest.approx(math.log(300), abs=0.3)
    assert losses[-1] < losses[0] - 1.0


def test_same_seed_same_weights_and_another_seed_others(opened):
    def final(seed):
        session = opened(tiny_run(steps=4, seed=seed))
        loop.train(session, [])
        return torch.cat([p.flatten() for p in session.weights.masters.values()])

    assert torch.equal(final(1), final(1))
    assert not torch.equal(final(1), final(2))


def test_accumulation_gives_the_gradient_of_the_whole_batch(opened):
    def gradient(micro):
        session = opened(tiny_run(recipe={"micro_batch": micro}))
        inputs, targets = (torch.from_numpy(a) for a in session.batches.batch(0))
        loss = session.passes.gradients(inputs, targets)
        return loss, torch.cat([p.grad.flatten() for p in session.weights.masters.values()])

    whole_loss, whole = gradient(4)
    for micro in (1, 2):
        loss, parts = gradient(micro)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-7)


def test_bf16_loss_is_fp32_and_near(opened):
    fp32 = losses_of(opened(tiny_run(steps=20)))
    bf16 = losses_of(opened(tiny_run(steps=20, recipe={"precision": "bf16"})))
    assert bf16[-1] == pytest.approx(fp32[-1], rel=0.02)
    # On bf16's grid (1/32 near 5) several of these would be multiples of it.
    assert any((loss * 32) % 1 > 1e-3 for loss in bf16)


def test_a_step_that_is_not_finite_moves_nothing(opened, monkeypatch):
    session = opened(tiny_run(steps=3))
    before = {n: p.detach().clone() for n, p in session.weights.masters.items()}
    monkeypatch.setattr(loop, "agreed_loss_and_norm", lambda _, loss: (loss, math.nan))
    report = loop.take_step(session)
    assert not report.applied
    assert report.trouble == "the gradient is not finite"
    assert session.step == 1
    assert all(torch.equal(before[n], p) for n, p in session.weights.masters.items())


def test_the_recipe_changes_what_runs(opened):
    calls = []
    for micro in (1, 4):
        session = opened(tiny_run(steps=1, recipe={"micro_batch": micro}))
        session.model.register_forward_pre_hook(lambda _m, a, k=micro: calls.append((k, len(a[0]))))
        loop.train(session, [])
    assert calls == [(1, 1)] * 4 + [(4, 4)]


@pytest.mark.parametrize("change", [{"outer_steps": 50}, {"precision": "mxfp8"},
                                    {"offload": "optimiser"}])
def test_what_does_not_run_yet_is_refused_by_name(opened, change):
    with pytest.raises(InputError, match="planned but not run"):
        opened(tiny_run(recipe=change))


def test_an_observer_is_closed_after_an_error(opened):
    class Bad(Silent):
        closed = False

        def after_step(self, session, report):
            raise RuntimeError("observer")

        def close(self):
            self.closed = True

    bad = Bad()
    with pytest.raises(RuntimeError, match="observer"):
        loop.train(opened(tiny_run()), [bad])
    assert bad.closed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: GPU path not run")
def test_a_gpu_run_matches_the_cpu(opened):
    from tiny import tiny_machine

    cpu = losses_of(opened(tiny_run(steps=5)))
    gpu = losses_of(opened(tiny_run(steps=5, machine=tiny_machine(kind="gpu"))))
    assert gpu == pytest.approx(cpu, rel=1e-3)
