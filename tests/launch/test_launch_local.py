"""Ranks of a run on this computer: killed, stopped and slow ones are named, and the run goes on."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from rich.console import Console

from curbcut.data import prepare
from curbcut.errors import CurbcutError, InputError, RunBusy
from curbcut.launch import local, pulse
from curbcut.launch.ranks import Task
from curbcut.launch.watch import Patience
from curbcut.spec import Account, Resolved, TrainJob, measured
from curbcut.train import faults, launches, lock
from curbcut.train import folder as run_folders
from curbcut.train.session import Silent
from tiny import tiny_machine, tiny_run, write_documents

PATIENCE = Patience(silent_seconds=8.0, stuck_seconds=60.0, ending_seconds=20.0)
"""Shorter than a person's, and long enough for a computer that is busy with other tests."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = write_documents(tmp_path_factory.mktemp("text"))
    job = TrainJob(tokens=1, text=str(folder), validation_fraction=0.1)
    return prepare(job, 300, folder / "data")


@pytest.fixture(autouse=True)
def unarmed(monkeypatch):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    monkeypatch.setattr(local, "BACKOFF_SECONDS", 0.0)
    yield
    faults.disarm()


def task_of(tmp_path, corpus, *, ranks=2, steps=6, observers=None, leave_slow=False, **recipe):
    how = {"dp_replicate": ranks, "global_batch": 8, "micro_batch": 1} | recipe
    run = tiny_run("many", steps=steps, recipe=how,
                   machine=tiny_machine(accelerators_per_node=ranks))
    resolved, folder = Resolved(run, {}), tmp_path / "runs" / "many"
    run_folders.claim(folder, resolved, Account())
    return Task(resolved, Account(), corpus, folder, leave_slow, observers, beat_seconds=0.2,
                gather_steps=15, collective_seconds=200.0)


def weights(folder):
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def trained(task, patience=PATIENCE):
    return local.train(task, Console(quiet=True), patience)


def begun(folder):
    """Launches that took a step. A test's process has threads that a launcher has not, so that once
    in hundreds of forks a rank is stuck before its first step; it is then named and all are
    launched again, and the test goes on with that.
    """
    every = launches.read(folder)
    stuck = [one for one in every if one.fault and one.last_step == 0]
    assert len(stuck) < local.STALLS, stuck
    return [one for one in every if one not in stuck]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Once(Silent):
    """Does something to one rank at one step, in the first launch only."""

    def __init__(self, world, marker, rank, step, act):
        self.mine, self.marker, self.step, self.act = world.rank == rank, marker, step, act

    def after_step(self, session, report):
        if self.mine and report.step == self.step and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            self.act()


def once(tmp_path, act, rank=1, step=5):
    return lambda world: (Once(world, tmp_path / "done", rank, step, act),)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, corpus):
    os.environ["CURBCUT_SENSORS"] = "off"
    found = {}
    for ranks in (2, 4):
        task = task_of(tmp_path_factory.mktemp("unbroken"), corpus, ranks=ranks)
        assert trained(task).reason == "all tokens trained"
        found[ranks] = weights(task.folder)
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_killed_rank_is_named_and_the_run_ends_as_if_unbroken(tmp_path, corpus, unbroken, ranks):
    task = task_of(tmp_path, corpus, ranks=ranks, observers=once(tmp_path, faults.kill))
    done = trained(task)
    assert not done.resumable and done.steps == 6 and done.account is not None
    first, second = begun(task.folder)
    assert first.outcome == "fault" and second.outcome == "done"
    assert (first.fault.kind, first.fault.rank, first.fault.what) == ("died", 1,
                                                                     "killed by SIGKILL")
    assert first.fault.pid == int((tmp_path / "done").read_text()) and first.fault.host
    assert 4 <= first.fault.step <= 5 and second.first_step == first.saved_step == 4
    assert launches.alerts(task.folder)[-1]["rank"] == 1
    assert weights(task.folder) == unbroken[ranks]


@pytest.mark.parametrize("ranks", [2, 4])
def test_stopped_rank_is_named_and_the_run_ends_as_if_unbroken(tmp_path, corpus, unbroken, ranks):
    task = task_of(tmp_path, corpus, ranks=ranks, observers=once(tmp_path, faults.hang))
    trained(task)
    first, second = begun(task.folder)
    assert (first.fault.kind, first.fault.rank) == ("hung", 1) and "SIGSTOP" in first.fault.what
    assert gone(int((tmp_path / "done").read_text())), "a stopped rank was left behind"
    seconds = run_folders.ended(task.folder).measured.seconds
    assert 0 < seconds["hang"].value <= first.unnoticed_seconds + 1e-6 and "down" in seconds
    record = "".join(path.read_text() for path in (task.folder / "metrics").glob("*.jsonl"))
    assert record.count('"kind":"launch"') == 1 and "SIGSTOP" in record
    assert second.outcome == "done" and weights(task.folder) == unbroken[ranks]


def test_rank_that_sleeps_for_ever_is_the_one_that_is_named(tmp_path, corpus):
    task = task_of(tmp_path, corpus, observers=once(tmp_path, faults.sleep(1e6)))
    trained(task, replace(PATIENCE, stuck_seconds=8.0))
    first, second = begun(task.folder)
    assert (first.fault.kind, first.fault.rank) == ("hung", 1) and second.outcome == "done"


def test_rank_that_fails_by_itself_is_named_with_its_error(tmp_path, corpus):
    task = task_of(tmp_path, corpus,
                   observers=once(tmp_path, faults.error(RuntimeError("no such luck")), rank=0))
    trained(task)
    fault = begun(task.folder)[0].fault
    assert (fault.kind, fault.rank, fault.what) == ("failed", 0, "RuntimeError: no such luck")


class DutyCycle(Silent):
    """Lets a rank's process run a fifth of the time: five times slower, whatever it does."""

    def __init__(self, world, rank, folder):
        self.mine, self.folder, self.helper = world.rank == rank, folder, 0

    def start(self, session):
        if self.mine and not (self.folder / "slowed").exists():
            (self.folder / "slowed").touch()
            victim = os.getpid()
            self.helper = os.fork()
            if not self.helper:
                _stop_and_go(victim)

    def close(self):
        if self.helper:
            os.kill(self.helper, signal.SIGKILL)
            os.waitpid(self.helper, 0)


def _stop_and_go(victim):
    try:
        while os.getppid() == victim:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(0.08)
            os.kill(victim, signal.SIGCONT)
            time.sleep(0.02)
    finally:
        os._exit(0)


class Busy(Silent):
    """Own work of a few milliseconds a step: on a tiny model there is next to none. It sleeps, so
    that whatever else this computer does matters little.
    """

    def after_step(self, session, report):
        with session.on_its_own():
            time.sleep(0.005)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_slow_rank_is_named_and_the_run_goes_on(tmp_path, corpus, ranks):
    task = task_of(tmp_path, corpus, ranks=ranks, steps=75, checkpoint_every_steps=1000,
                   observers=lambda world: (DutyCycle(world, 1, tmp_path), Busy()))
    assert trained(task).steps == 75
    assert [one.outcome for one in begun(task.folder)] == ["done"]
    named = launches.alerts(task.folder)
    assert [(one["kind"], one["rank"]) for one in named] == [("slow", 1)]
    assert "times the others'" in named[0]["what"] and named[0]["step"] >= 30
    assert run_folders.ended(task.folder).measured.seconds["straggler"].value > 0
    record = "".join(path.read_text() for path in (task.folder / "metrics").glob("*.jsonl"))
    assert '"kind":"straggler"' in record


@pytest.mark.alone
@pytest.mark.slow
def test_slow_rank_is_launched_again_where_that_was_asked_for(tmp_path, corpus):
    task = task_of(tmp_path, corpus, steps=75, checkpoint_every_steps=1000, leave_slow=True,
                   observers=lambda world: (DutyCycle(world, 1, tmp_path), Busy()))
    assert trained(task).steps == 75
    first, second = begun(task.folder)
    assert first.fault.kind == "slow" and first.fault.rank == 1
    assert second.first_step == first.saved_step == first.last_step < 75


def test_fault_at_every_launch_gives_up_and_names_it(tmp_path, corpus):
    class Always(Silent):
        def after_step(self, session, report):
            if session.world.rank == 1:
                faults.kill()

    task = task_of(tmp_path, corpus, observers=lambda world: (Always(),))
    with pytest.raises(CurbcutError, match=r"3 launches on end .*rank 1 .*SIGKILL"):
        trained(task)
    assert [one.outcome for one in launches.read(task.folder)] == ["fault"] * 3


def test_bad_input_of_a_rank_is_told_and_not_launched_again(tmp_path, corpus):
    def refuse(world):
        raise InputError("no", where="recipe.tp", mend="another")

    task = task_of(tmp_path, corpus, observers=refuse)
    with pytest.raises(InputError) as told:
        trained(task)
    assert (told.value.what, told.value.where, told.value.mend) == ("no", "recipe.tp", "another")
    assert launches.read(task.folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_to_the_launcher_saves_and_leaves_resumable(tmp_path, corpus, number, unbroken):
    launcher = os.getpid()
    task = replace(task_of(tmp_path, corpus), observers=lambda world: (*once(
        tmp_path, lambda: os.kill(launcher, number), rank=0, step=3)(world), Slowly()))
    stopped = trained(task)
    assert stopped.resumable and 3 <= stopped.steps < 6
    (launch,) = begun(task.folder)
    assert launch.outcome == "stopped" and launch.saved_step == stopped.steps
    assert not trained(task).resumable and weights(task.folder) == unbroken[2]


class Slowly(Silent):
    def after_step(self, session, report):
        time.sleep(0.15)


def test_second_launcher_is_refused_and_leaves_no_lock(tmp_path, corpus):
    task = task_of(tmp_path, corpus)
    with forked_holder(task.folder), pytest.raises(RunBusy):
        trained(task)
    assert trained(task).reason == "all tokens trained"


@contextmanager
def forked_holder(folder):
    """Another process that holds the folder, and is killed at the end."""
    ready, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with lock.held(folder):
                os.write(write, b"1")
                time.sleep(60)
        finally:
            os._exit(0)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_ranks_die_with_their_launcher(tmp_path, corpus):
    task = task_of(tmp_path, corpus, steps=10_000, observers=lambda world: (Slowly(),))
    pid = os.fork()
    if not pid:
        try:
            trained(task)
        finally:
            os._exit(0)
    folder = task.folder / launches.RANKS
    pids = []
    while len(pids) < 2:
        time.sleep(0.05)
        beats = [pulse.read(folder, rank, 1) for rank in range(2)]
        pids = [beat.pid for beat in beats if beat and beat.steps_here]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until = time.monotonic() + 20
    while not all(gone(one) for one in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(gone(one) for one in pids)
    with lock.held(task.folder):
        pass


def test_layout_is_checked_before_a_run_of_hours_only(tmp_path, corpus, monkeypatch):
    from curbcut.train.parallel import shrunken

    asked = []

    def check(run):
        asked.append(run.recipe.dp_replicate)
        raise CurbcutError("the gradient of x is not that of one process")

    monkeypatch.setattr(shrunken, "check_gradients", check)
    task = task_of(tmp_path, corpus)
    local.check_layout(task, Console(quiet=True))
    hours = replace(task, forecast=Account(seconds={"total": measured(7200.0, "a plan")}))
    with pytest.raises(CurbcutError, match="not that of one process"):
        trained(hours)
    assert asked == [2] and launches.read(task.folder) == []


def test_run_for_other_machines_is_refused_with_what_to_start():
    with pytest.raises(InputError) as told:
        local.refuse_machine(2, 4, 2)
    assert "torchrun --nnodes 2" in told.value.mend
    with pytest.raises(InputError, match="4 ranks") as told:
        local.refuse_machine(1, 4, 2)
    assert "4xhere" in told.value.mend
