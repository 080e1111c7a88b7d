"""A run that stands goes on under another layout: by the launcher, and as a person does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from curbcut.data import prepare
from curbcut.errors import InputError, RunBusy
from curbcut.launch import local, relaid
from curbcut.launch.ranks import Task
from curbcut.spec import Account, Draft, Resolved, TrainJob, modelled
from curbcut.train import folder as run_folders
from curbcut.train import launches, layouts, lock
from curbcut.train.session import Silent
from launch_text import TOML, losses_of, write_text
from tiny import tiny_machine, tiny_run, write_documents

TOKENS = 48 * 256
PROMISE = Account(seconds={"total": modelled(10.0, 2, "test")})


@pytest.fixture
def environ(tmp_path):
    return os.environ | {"CURBCUT_HOME": str(tmp_path / "home"), "CURBCUT_SENSORS": "off",
                         "OMP_NUM_THREADS": "1"}


def command(tmp_path, environ, machine, recipe, runs="runs", until=None):
    """`curbcut train` of the file with that layout; stopped once `until` steps are recorded."""
    path = tmp_path / "many.toml"
    path.write_text(TOML.format(machine=machine, recipe=recipe, text=tmp_path / "text").replace(
        "tokens = 5120", f"tokens = {TOKENS}"))
    process = subprocess.Popen([sys.executable, "-m", "curbcut", "train", str(path), "--runs",
                                str(tmp_path / runs)], env=environ, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    while until and process.poll() is None:
        if max(losses_of(tmp_path / runs / "many"), default=0) >= until:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    told = process.communicate(timeout=200)[0]
    return process.returncode, told


@pytest.mark.slow
def test_person_changes_the_layout_from_1_to_4_to_2_ranks_and_the_curve_is_the_unbroken_one(
        tmp_path, environ):
    write_text(tmp_path)
    code, told = command(tmp_path, environ, "here", "", "unbroken")
    assert code == 0, told
    for machine, recipe, until in (("here", "", 8), ("4xhere", "dp_replicate = 2\ntp = 2", 20)):
        code, told = command(tmp_path, environ, machine, recipe, until=until)
        assert code == 75, told
    code, told = command(tmp_path, environ, "2xhere", "dp_shard = 2")
    assert code == 0 and "4xhere -> 2xhere" in told, told
    relaid_, unbroken = (losses_of(tmp_path / runs / "many") for runs in ("runs", "unbroken"))
    assert relaid_.keys() == unbroken.keys() and len(unbroken) >= 5
    for step, loss in unbroken.items():
        assert relaid_[step] == pytest.approx(loss, rel=2e-5)
    kept = layouts.history(tmp_path / "runs" / "many")
    assert [one.run.recipe.ranks for one in kept] == [1, 4, 2]
    assert 0 == kept[0].from_step < kept[1].from_step < kept[2].from_step < 48
    done = run_folders.ended(tmp_path / "runs" / "many")
    assert done.measured.tokens["trained"].value == TOKENS, "one account, over all layouts"
    code, told = command(tmp_path, environ, "2xhere", "dp_shard = 2\nlearning_rate = 1.0")
    assert code == 2 and "recipe.learning_rate" in told


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = write_documents(tmp_path_factory.mktemp("text"))
    return prepare(TrainJob(tokens=1, text=str(folder), validation_fraction=0.1), 300,
                   folder / "data")


class Losses(Silent):
    """Leaves every step's loss in a file; has the launcher stop at one of them."""

    def __init__(self, world, path, launcher, stop):
        self.main, self.path, self.launcher, self.stop = world.main, path, launcher, stop

    def after_step(self, session, report):
        if self.main:
            with self.path.open("a") as file:
                file.write(json.dumps([report.step, report.loss]) + "\n")
            if report.step == self.stop:
                os.kill(self.launcher, signal.SIGTERM)
                time.sleep(0.3)


def losses_in(path):
    return dict(json.loads(line) for line in path.read_text().splitlines())


def trained(folder, corpus, path, stop=None):
    resolved, forecast = run_folders.read_plan(folder)
    launcher = os.getpid()
    return local.train(Task(resolved, forecast, corpus, folder, observers=lambda world: (
        Losses(world, path, launcher, stop),), collective_seconds=200.0), Console(quiet=True))


def settled(**recipe):
    machine = tiny_machine(accelerators_per_node=4)
    how = {"global_batch": 8, "micro_batch": 1, "checkpoint_every_steps": 100} | recipe
    return Resolved(tiny_run("many", steps=12, recipe=how, machine=machine), {})


@pytest.mark.parametrize("layouts_", [
    [{}, {"dp_replicate": 2, "tp": 2}, {"dp_shard": 2, "recompute": "full"}],
    [{"pp": 2}, {"cp": 2, "dp_shard": 2}, {"micro_batch": 2}],
])
def test_loss_curve_goes_on_over_three_layouts(tmp_path, corpus, monkeypatch, layouts_):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    whole, folder = tmp_path / "unbroken", tmp_path / "many"
    run_folders.claim(whole, settled(), PROMISE)
    assert trained(whole, corpus, tmp_path / "one").reason == "all tokens trained"
    run_folders.claim(folder, settled(**layouts_[0]), PROMISE)
    for number, stop in enumerate((4, 8, None)):
        if number:
            step = local.newest_step(folder)
            layouts.take(folder, settled(**layouts_[number]), PROMISE, Draft(), step, {})
        done = trained(folder, corpus, tmp_path / "many.jsonl", stop)
        assert done.resumable == (stop is not None)
    many, one = losses_in(tmp_path / "many.jsonl"), losses_in(tmp_path / "one")
    assert list(many) == list(one) == list(range(1, 13))
    assert [many[step] for step in one] == pytest.approx(list(one.values()), rel=1e-5)
    assert done.account.tokens["trained"].value == 12 * 8 * 32
    assert [one.from_step for one in layouts.history(folder)] == [
        0, *sorted(one.saved_step for one in launches.read(folder))[:2]]


def test_only_the_layout_may_change_and_the_rest_is_named(tmp_path):
    run_folders.claim(tmp_path, settled(), PROMISE, Draft({"recipe.micro_batch": 1}))
    run = settled().run
    assert layouts.changes(run, Draft({"recipe.micro_batch": 1, "name": "many"}), tmp_path) == {}
    said = Draft({"recipe.micro_batch": 2, "recipe.tp": 2, "machine.name": "2xhere"})
    assert layouts.changes(run, said, tmp_path) == {
        "recipe.micro_batch": (1, 2), "recipe.tp": (1, 2), "machine.name": ("here", "2xhere")}
    for key, value in (("seed", 9), ("model.width", 64), ("recipe.global_batch", 16),
                       ("recipe.learning_rate", 1.0), ("recipe.precision", "bf16"),
                       ("recipe.optimiser", "muon"), ("train.tokens", 99), ("train.text", "x")):
        with pytest.raises(InputError, match=key):
            layouts.changes(run, Draft({key: value} | dict(said.values)), tmp_path)


def test_what_is_not_said_of_a_changed_layout_is_left_to_the_plan(tmp_path):
    run_folders.claim(tmp_path, settled(dp_replicate=4, checkpoint_every_steps=7), PROMISE)
    said = Draft({"recipe.dp_shard": 2, "recipe.dp_replicate": 1})
    full = layouts.redrafted(tmp_path, said, {"recipe.dp_shard": (1, 2)})
    assert full.get("recipe.dp_shard") == 2 and not full.has("recipe.micro_batch")
    assert full.get("recipe.checkpoint_every_steps") == 7 and full.get("seed") == 1
    assert full.get("machine.accelerators_per_node") == 4 and not full.has("limits.seconds")
    moved = layouts.redrafted(tmp_path, Draft({"machine.name": "2xhere"}), {"machine.name": 0})
    assert not moved.has("machine.cores") and not moved.has("recipe.dp_replicate")
    little = layouts.redrafted(tmp_path, Draft({"recipe.compile": True}), {"recipe.compile": 0})
    assert little.get("recipe.dp_replicate") == 4 and little.get("recipe.micro_batch") == 1


def test_layout_that_would_be_another_run_is_refused_and_changes_nothing(tmp_path):
    run_folders.claim(tmp_path, settled(), PROMISE)
    before = (tmp_path / "run.toml").read_text()
    with pytest.raises(InputError, match=r"recipe\.global_batch is 8 there and 16 here"):
        layouts.refuse_another_run(settled().run, settled(global_batch=16).run, tmp_path)
    with pytest.raises(InputError, match=r"tp|ranks"):
        relaid.propose(tmp_path, Draft({"recipe.tp": 3}), {"recipe.tp": (1, 3)}, None,
                       machine=lambda ranks: tiny_machine(), pairs=[])
    assert (tmp_path / "run.toml").read_text() == before and not (tmp_path / "layouts").exists()


def test_promise_is_of_the_whole_run_each_part_under_its_own_layout(tmp_path):
    run = settled().run
    parts = [layouts.Layout(run, step, Account(
        seconds={"total": modelled(total, 2, "test")}, memory_bytes={"peak": modelled(
            total, 2, "test")})) for step, total in ((0, 120.0), (3, 60.0), (9, 24.0))]
    promised = layouts.promise(parts)
    assert promised.seconds["total"].value == pytest.approx(30 + 30 + 6)
    assert promised.seconds["total"].low == pytest.approx(33)
    assert promised.memory_bytes["peak"].value == 24.0
    assert layouts.promise(parts[:1]).seconds["total"].value == 120.0


def test_change_that_was_cut_off_is_done_again_and_kept_once(tmp_path, monkeypatch):
    run_folders.claim(tmp_path, settled(), PROMISE)
    before = (tmp_path / "run.toml").read_text()
    with monkeypatch.context() as cut:
        cut.setattr(run_folders, "dumps", lambda resolved: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            layouts.take(tmp_path, settled(tp=2), PROMISE, Draft(), 3, {})
    assert (tmp_path / "run.toml").read_text() == before
    layouts.take(tmp_path, settled(tp=2), PROMISE, Draft({"recipe.tp": 2}), 3,
                 {"recipe.tp": (1, 2)})
    assert [one.name for one in (tmp_path / "layouts").iterdir()] == ["1"]
    assert (tmp_path / "layouts" / "1" / "run.toml").read_text() == before
    assert run_folders.read_plan(tmp_path)[0].run.recipe.tp == 2
    assert run_folders.asked(tmp_path) == {"recipe.tp": 2}
    (line,) = (tmp_path / "metrics").glob("*.jsonl")
    assert json.loads(line.read_text().splitlines()[0])["body"]["changes"] == {
        "recipe.tp": {"from": 1, "to": 2}}


def test_layout_is_not_changed_under_a_trainer(tmp_path, monkeypatch):
    run_folders.claim(tmp_path, settled(), PROMISE)
    found = relaid.Proposal(settled(tp=2), PROMISE, {})
    ready, write = os.pipe()
    pid = os.fork()
    if not pid:
        with lock.held(tmp_path):
            os.write(write, b"1")
            time.sleep(60)
    os.read(ready, 1)
    try:
        with pytest.raises(RunBusy):
            relaid.take(tmp_path, found, Draft())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert relaid.take(tmp_path, found, Draft())[2] == 0
