"""When checkpoints are written, what a refusing disk does to training, and Young's interval."""

from __future__ import annotations

import errno
import json
import math
import threading
from itertools import pairwise

import pytest
import torch

from curbcut.errors import InputError
from curbcut.meter.clock import FakeClock
from curbcut.train import checkpoint, faults, loop
from curbcut.train.checkpoint import Saver, shards
from curbcut.train.observers.checkpointer import Checkpointer
from curbcut.train.session import Silent, StepReport
from tiny import tiny_run


@pytest.fixture(autouse=True)
def no_faults():
    yield
    faults.disarm()


def watched(root):
    saved, said = [], []
    return Checkpointer(root, lambda _, path: saved.append(int(path.name[-8:])),
                        said.append), saved, said


def newest(root, run):
    return checkpoint.newest(root, checkpoint.identity(run))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_checkpoints_come_by_the_recipe_and_at_the_end(opened, tmp_path, asynchronous):
    run = tiny_run(steps=5, recipe={"checkpoint_async": asynchronous})
    keeper, saved, _ = watched(tmp_path / "c")
    session = opened(run)
    loop.train(session, [keeper])
    # One that comes due while another is being written begins when that one is done.
    assert saved[-1] == 5
    assert saved == [2, 4, 5] or (asynchronous and set(saved) <= {2, 3, 4, 5})
    stored = newest(tmp_path / "c", run)
    laid = checkpoint.Laid(stored, session.weights.masters)
    for name, tensor in session.tensors().items():
        assert torch.equal(laid[name], tensor), name
    assert stored.progress.step == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_t5_a_disk_that_refuses_is_an_alert_and_training_goes_on(opened, tmp_path, asynchronous,
                                                                 code):
    run = tiny_run(steps=7, recipe={"checkpoint_async": asynchronous})
    keeper, saved, said = watched(tmp_path / "c")
    told = OSError(code, "the disk refuses")
    faults.arm("save: in shard", faults.error(told), step=4)
    seen = []

    class Look(Silent):
        def after_step(self, session, report):
            if asynchronous and keeper._writing:
                keeper._writing.thread.join()  # else the next might be begun a step later
            if said and "alert" in said[-1] and not seen:
                seen.append((session.step, newest(tmp_path / "c", run).progress.step))

    stop = loop.train(opened(run), [keeper, Look()])
    assert stop.reason == "all tokens trained"
    alerts = [text for text in said if text.startswith("alert")]
    assert len(alerts) == 1
    assert "step 4" in alerts[0] and "the disk refuses" in alerts[0]
    assert saved[0] == 2 and 4 not in saved and saved[-1] == 7
    assert not seen or seen[0][1] == 2
    assert not list((tmp_path / "c").glob(".*"))


def test_at_the_very_end_the_error_is_told(opened, tmp_path):
    keeper, saved, _ = watched(tmp_path / "c")
    faults.arm("save: in shard", faults.error(OSError(errno.EIO, "the disk refuses")), step=5)
    with pytest.raises(InputError, match=r"step 5 could not be written.*the disk refuses"):
        loop.train(opened(tiny_run(steps=5)), [keeper])
    assert saved == [2, 4]


def test_steps_do_not_wait_for_the_disk_and_one_is_written_at_a_time(opened, tmp_path,
                                                                     monkeypatch):
    go, write, at_once = threading.Event(), shards.write, []

    def held_up(*args):
        at_once.append(1)
        assert len(at_once) == 1
        go.wait(20)
        facts = write(*args)
        at_once.pop()
        return facts

    monkeypatch.setattr(shards, "write", held_up)
    steps = []

    class Release(Silent):
        def after_step(self, session, report):
            steps.append(report.step)
            if report.step == 7:
                go.set()
                keeper._writing.thread.join()

    run = tiny_run(steps=9, recipe={"checkpoint_async": True, "keep_checkpoints": 9})
    keeper, saved, said = watched(tmp_path / "c")
    session = opened(run)
    loop.train(session, [keeper, Release()])
    assert steps == list(range(1, 10))
    assert saved[:2] == [2, 7], "4 and 6 came due meanwhile: one begins when 2 is complete"
    assert saved[-1] == 9
    held = sum(t.numel() * t.element_size() for t in session.tensors().values())
    assert keeper.saver.staging_bytes == held
    assert sum("stay in host memory" in text for text in said) == 1


def test_what_is_being_written_when_training_fails_is_no_checkpoint(opened, tmp_path):
    class Bad(Silent):
        def after_step(self, session, report):
            if report.step == 3:
                raise RuntimeError

    run = tiny_run(steps=5, recipe={"checkpoint_async": True})
    keeper, saved, _ = watched(tmp_path / "c")
    with pytest.raises(RuntimeError):
        loop.train(opened(run), [keeper, Bad()])
    assert saved == []
    assert newest(tmp_path / "c", run) is None


def a_second(clock):
    """A step that only takes a second of a fake clock."""
    def step(session):
        with session.timed("steps"):
            clock.advance(1.0)
        session.step += 1
        return StepReport(session.step, 1.0, 1.0, 1e-3, 1, 1.0)

    return step


def gaps(opened, tmp_path, monkeypatch, interruptions, worked, steps=200, **recipe):
    """Seconds of training between the checkpoints of a run whose saves take two seconds."""
    clock, saver_save = FakeClock(), Saver.commit

    def slow(self, writing):
        clock.advance(2.0)
        return saver_save(self, writing)

    monkeypatch.setattr(Saver, "commit", slow)
    monkeypatch.setattr(loop, "take_step", a_second(clock))
    metrics = tmp_path / "run/metrics"
    metrics.mkdir(parents=True)
    for number in range(interruptions):
        (metrics / f"{number}.jsonl").write_text(json.dumps({"kind": "start"}) + "\n")
    run = tiny_run(steps=steps, recipe={"checkpoint_every_steps": 1000,
                                        "checkpoint_interval": "young"} | recipe)
    session = opened(run, tmp_path / "run", clock)
    session.seconds["steps"] = worked
    keeper, saved, _ = watched(tmp_path / "c")
    loop.train(session, [keeper])
    # The first one comes by the guess of how long a save takes, the last at the end.
    return [late - early for early, late in pairwise(saved[:-1])]


def test_t16_the_interval_is_within_a_fifth_of_youngs(opened, tmp_path, monkeypatch):
    found = gaps(opened, tmp_path, monkeypatch, interruptions=100, worked=40_000.0)
    young = math.sqrt(2 * 2.0 * 400.0)  # saves of 2 s, an interruption every 400 s
    assert len(found) >= 2
    assert all(abs(gap - young) <= 0.2 * young for gap in found)


def test_never_later_than_the_recipe_says(opened, tmp_path, monkeypatch):
    found = gaps(opened, tmp_path, monkeypatch, 100, 40_000.0, steps=60,
                 checkpoint_every_steps=20)
    assert found and all(gap <= 20 for gap in found)
