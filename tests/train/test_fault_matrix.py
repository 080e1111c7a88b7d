"""Killed at any named point, a run ends as if it had not been: the same bytes.

The rows are those of the published matrix that training is held to: T1 kills at every point of a
save, T2 three kills anywhere, T4 another layout on resume.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import ranks
from curbcut.meter.clock import SystemClock
from curbcut.spec import Account, Resolved, modelled
from curbcut.train import checkpoint, faults, folder
from curbcut.train.loop import take_step, train
from curbcut.train.observers.checkpointer import Checkpointer
from curbcut.train.session import Silent, open_session
from curbcut.train.start import resume, train_run
from tiny import tiny_run

SAVES = [point for point in faults.POINTS if point.startswith("save:")]
TWO = {"alone": {}, "two shards": {"dp_shard": 2, "micro_batch": 1}}


def digests(root):
    """Name and content of the newest checkpoint's tensors."""
    newest = checkpoint.complete(root)[-1]
    return newest.name, {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                         for path in newest.glob("*.safetensors")}


class Patient(Silent):
    """Waits for what is written in the background, which a busy disk would make skip a save."""

    def __init__(self, checkpointer):
        self.after_step = lambda session, report: checkpointer.close()


class Losses(Silent):
    def __init__(self):
        self.losses = []

    def after_step(self, session, report):
        self.losses.append(report.loss)


def go_on(world, run, corpus, place, fault=None):
    """Trains from the newest checkpoint in `place` to the end; where it began and its losses."""
    if fault:
        point, step, rank, act = fault
        faults.arm(point, act, step=step, rank=rank)
    session = open_session(run, place, corpus, SystemClock(), Account(), world=world)
    resume(session, place / "checkpoints", print)
    began, seen = session.step, Losses()
    checkpointer = Checkpointer(place / "checkpoints", lambda *_: None, print)
    train(session, [seen, Patient(checkpointer), checkpointer])
    return began, seen.losses


def killed(run, corpus, place, point, step=None, rank=None):
    with pytest.raises(AssertionError):
        ranks.spawn(go_on, run.recipe, run, corpus, place, (point, step, rank, faults.kill))


@pytest.mark.parametrize("layout", TWO)
def test_t1_killed_at_every_point_of_a_save(tmp_path, tiny_corpus, layout):
    run = tiny_run(steps=4, recipe={"keep_checkpoints": 1} | TWO[layout])
    ranks.spawn(go_on, run.recipe, run, tiny_corpus, tmp_path / "unbroken")
    unbroken = digests(tmp_path / "unbroken/checkpoints")
    for point in SAVES:
        place = tmp_path / point.replace(" ", "-")
        # The last rank dies where each has a part in it, else the one that puts it in place.
        rank = run.recipe.ranks - 1 if "shard" in point or "sync" in point else 0
        killed(run, tiny_corpus, place, point, 4, rank)
        began = {b for b, _ in ranks.spawn(go_on, run.recipe, run, tiny_corpus, place)}
        late = ("save: after rename", "save: in prune", "save: done")
        assert began == {4 if point in late else 2}, point
        assert digests(place / "checkpoints") == unbroken, point
        assert not list((place / "checkpoints").glob(".*")), point


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_crash_while_one_is_written_in_the_background_leaves_the_one_before(
        tmp_path, tiny_corpus, asynchronous):
    run = tiny_run(recipe={"checkpoint_async": asynchronous})
    ranks.spawn(go_on, run.recipe, run, tiny_corpus, tmp_path / "unbroken")
    killed(run, tiny_corpus, tmp_path / "killed", "save: in shard", 4)
    assert ranks.spawn(go_on, run.recipe, run, tiny_corpus, tmp_path / "killed")[0][0] == 2
    assert digests(tmp_path / "killed/checkpoints") == digests(tmp_path / "unbroken/checkpoints")


def whole_run(world, run, corpus, place, fault=None):
    """The same through all that `curbcut train` does after the plan."""
    if fault:
        faults.arm(*fault[:2], **fault[2])
    promise = Account(seconds={"total": modelled(10.0, 2, "test")})
    folder.claim(place, Resolved(run, {}), promise)
    done = train_run(Resolved(run, {}), promise, corpus, place, Console(quiet=True), world=world)
    return done.steps, hashlib.sha256((place / "model/model.safetensors").read_bytes()).hexdigest()


def test_t2_killed_at_a_boundary_in_accumulation_at_an_epochs_end_and_in_evaluation(
        tmp_path, tiny_corpus):
    run = tiny_run(steps=12, recipe={"checkpoint_every_steps": 3, "evaluate_every_steps": 4,
                                     "micro_batch": 4, "global_batch": 40})
    epoch = -(-tiny_corpus.train_tokens // run.recipe.step_tokens)
    assert 8 < epoch < 12, "the run must cross the end of an epoch"
    unbroken = ranks.spawn(whole_run, run.recipe, run, tiny_corpus, tmp_path / "unbroken")[0]
    place = tmp_path / "broken"
    for point, options in [("step: end", {"step": 2}), ("step: in accumulation", {"nth": 30}),
                           ("evaluation: in pass", {"step": 8}),
                           ("step: begin", {"step": epoch})]:
        with pytest.raises(AssertionError, match="only ranks"):
            ranks.spawn(whole_run, run.recipe, run, tiny_corpus, place,
                        (point, faults.kill, options))
    assert ranks.spawn(whole_run, run.recipe, run, tiny_corpus, place)[0] == unbroken
    assert digests(place / "checkpoints") == digests(tmp_path / "unbroken/checkpoints")


LAYOUTS = {
    "alone": {}, "replicas": {"dp_replicate": 2}, "shards": {"dp_shard": 2},
    "zero-1": {"dp_shard": 2, "shard": "optimiser"}, "tensor": {"tp": 2}, "stages": {"pp": 2},
    "four shards": {"dp_shard": 4}, "shards of tensor": {"dp_shard": 2, "tp": 2},
    "experts": {"dp_shard": 2, "ep": 2},
}
WAYS = [("alone", "four shards", "shards", "alone"),
        ("replicas", "shards of tensor", "stages", "zero-1", "tensor")]
EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 16}


def steps_on(world, run, corpus, place, steps):
    """Takes up the newest checkpoint, takes `steps`, saves; losses and sequences of each."""
    session = open_session(run, place, corpus, SystemClock(), Account(), world=world)
    resume(session, place / "checkpoints", print)
    losses, read = [], []
    for _ in range(steps):
        read.append([row.tolist() for row in session.batches.batch(
            session.step, world.data_rank, world.data_ranks)[0]])
        losses.append(take_step(session).loss)
    saver = checkpoint.Saver(place / "checkpoints", checkpoint.identity(run), 2, world)
    saver.save(session.progress(), session.tensors())
    return losses, world.data_rank, read


@pytest.mark.parametrize(("way", "model"), [
    *((way, {}) for way in WAYS), (("experts", "alone", "four shards"), EXPERTS)],
    ids=["1 - 4 - 2 - 1", "methods", "experts"])
def test_t4_another_layout_on_resume_takes_the_same_steps(tmp_path, tiny_corpus, way, model):
    shape = {"layers": 4, "heads": 4, "kv_heads": 2, "head_size": 8} | model
    plain = tiny_run(steps=20, model=shape, recipe={"micro_batch": 1, "global_batch": 4})
    losses, read = [], []
    for layout in way:
        run = replace(plain, recipe=replace(plain.recipe, **LAYOUTS[layout]))
        told = ranks.spawn(steps_on, run.recipe, run, tiny_corpus, tmp_path / "changed", 2)
        losses += told[0][0]
        by_rank = {rank: rows for _, rank, rows in told}
        read += [sorted(row for rows in by_rank.values() for row in rows[step])
                 for step in range(2)]
    wanted, _, rows = ranks.spawn(steps_on, plain.recipe, plain, tiny_corpus, tmp_path / "one",
                                  2 * len(way))[0]
    assert read == [sorted(step) for step in rows]
    np.testing.assert_allclose(losses, wanted, rtol=2e-5)
