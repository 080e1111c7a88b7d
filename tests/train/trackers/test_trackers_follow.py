"""A tracker is told what the record says, and whatever becomes of it, the run does not notice."""

from __future__ import annotations

import os
import signal
import sys
import types
from dataclasses import replace

import pytest

from curbcut.errors import InputError, MissingExtra, UnknownName
from curbcut.ledger.inbox import FOLDER, Event, Writer
from curbcut.spec import Account, Resolved, modelled
from curbcut.train import start
from curbcut.train.observers import trackers
from curbcut.train.observers.trackers import follow, identity, mirror
from curbcut.train.session import StepReport
from tiny import tiny_run


class Heard:
    """A tracker that keeps what it was told."""

    def __init__(self):
        self.said = []

    def begin(self, run):
        self.run = run
        self.said.append(("begin", run.step))

    def figures(self, step, values, time):
        self.said.append(("figures", step, values))

    def note(self, step, text, time):
        self.said.append(("note", step, text))

    def end(self, state, reason, measured):
        self.said.append(("end", state, reason, measured))


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "runs/mine"
    folder.mkdir(parents=True)
    return folder


def record(place, *lines):
    with Writer(place / FOLDER, "mine", "train") as writer:
        writer.write_run(Resolved(tiny_run("mine"), {}))
        writer.write_account("train", "forecast", Account(usd={"total": modelled(0.5, 2, "test")}))
        for kind, body in lines:
            writer.write(kind, body)
    return writer.path


def test_a_record_is_told_in_its_order(place):
    file = record(place, ("start", {"step": 4}), ("beat", {"step": 4}),
                  ("step", {"step": 5, "loss": 2.0}), ("checkpoint", {"step": 5, "path": "step-5"}),
                  ("end", {"step": 5, "reason": "SIGTERM", "resumable": True}))
    heard = Heard()
    told = mirror.Mirror(heard, place, "mine-1")
    mirror.follow(told, file, 0, lambda: False, pytest.fail)
    assert heard.said == [("begin", 4), ("figures", 5, {"loss": 2.0}),
                          ("note", 5, "checkpoint step-5"), ("end", "stopped", "SIGTERM", {})]
    assert heard.run.promised == {"usd.total": (0.5, 0.25, 1.0, "modelled")}
    assert heard.run.config["model.width"] == 32


def test_lines_are_told_as_they_come_and_a_death_is_a_crash(place):
    file = record(place, ("start", {"step": 0}))
    heard, sleeps = Heard(), []

    def sleep(seconds):
        sleeps.append(seconds)
        line = {"run": "mine", "process": file.stem, "sequence": 3 + len(sleeps), "time": 1.0,
                "kind": "step", "body": {"step": len(sleeps), "loss": 1.0}}
        with file.open("a") as out:
            import json
            out.write(json.dumps(line) + "\n")

    mirror.follow(mirror.Mirror(heard, place, "x"), file, 0, lambda: len(sleeps) < 3, sleep)
    assert [one[1] for one in heard.said if one[0] == "figures"] == [1, 2, 3]
    assert heard.said[-1][:2] == ("end", "crashed")


def test_an_end_waits_for_the_account_of_this_attempt(place):
    (place / mirror.ACCOUNT).write_text("{}")
    before = mirror.stamp(place)
    file = record(place, ("start", {"step": 0}), ("end", {"reason": "all", "resumable": False}))
    heard, sleeps = Heard(), []

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) == 3:
            account = '{"measured": {"usd": {"total": {"value": 0.0, "low": 0, "high": 0, ' \
                      '"basis": "measured", "source": ""}}}}'
            (place / mirror.ACCOUNT).write_text(account)
            os.utime(place / mirror.ACCOUNT, ns=(before + 1, before + 1))

    mirror.follow(mirror.Mirror(heard, place, "x"), file, before, lambda: True, sleep)
    assert len(sleeps) == 3 and heard.said[-1] == ("end", "done", "all", {"usd.total": 0.0})


@pytest.mark.parametrize(("kind", "body", "said"), [
    ("trouble", {"what": "spike", "applied": True}, "applied: spike"),
    ("note", {"text": "resumed"}, "resumed"), ("straggler", {"times": 2.0}, "slowed 2.0 times"),
    ("beat", {}, ""), ("forecast", {"over": 1}, "")])
def test_remarks(kind, body, said):
    assert mirror.remark(Event("mine", "p", 0, 0.0, kind, body)).startswith(said) is True
    assert bool(mirror.remark(Event("mine", "p", 0, 0.0, kind, body))) is bool(said)


def test_what_is_no_account_has_no_figures():
    assert mirror.known_figures(None) == mirror.known_figures({"usd": 3}) == {}


def test_nested_tables_become_dotted_keys():
    assert mirror.flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True}) == {
        "a.b": 1, "a.c": "[1, 2]", "e": True}


def test_a_run_begun_anew_is_another_one(place):
    first = identity.of(place)
    assert identity.of(place) == first and first.startswith("mine-")
    (place / identity.FILE).write_text('{"id": "../x"}')
    assert identity.of(place) not in (first, "../x")


# What a person chooses


@pytest.fixture
def variable(monkeypatch):
    monkeypatch.setenv(trackers.VARIABLE, "")
    return monkeypatch


def test_the_choice_is_inherited(variable):
    variable.setattr(trackers, "find_spec", lambda name: object())
    trackers.choose(" mlflow,wandb,mlflow ")
    assert os.environ[trackers.VARIABLE] == "mlflow,wandb"
    assert trackers.chosen() == ("mlflow", "wandb")
    trackers.choose(None)
    assert trackers.chosen() == ("mlflow", "wandb")
    assert len(trackers.ways_to_look(trackers.KINDS, start.Path("runs"))) == 4


def test_a_tracker_nobody_knows_is_refused_with_the_nearest(variable):
    with pytest.raises(UnknownName, match="wamdb") as refused:
        trackers.choose("wamdb")
    assert "'wandb'" in refused.value.mend and refused.value.where == "--track"
    variable.setenv(trackers.VARIABLE, "nothing")
    with pytest.raises(UnknownName) as refused:
        trackers.choose(None)
    assert refused.value.where == trackers.VARIABLE
    with pytest.raises(InputError, match="names no tracker"):
        trackers.choose(" , ")


def test_a_tracker_that_is_not_installed_says_how(variable):
    variable.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as refused:
        trackers.choose("trackio")
    assert "curbcut[trackio]" in refused.value.mend


def test_the_verbs_refuse_before_anything_is_done(variable, tmp_path, capsys):
    from curbcut.cli.main import main

    for verb in ("train", "go"):
        assert main([verb, "--runs", str(tmp_path / "runs"), "--track", "mlfow"]) == 2
        assert "did you mean 'mlflow'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_only_the_rank_that_keeps_the_record_is_tracked(variable, opened, quiet):
    variable.setenv(trackers.VARIABLE, "tensorboard")
    variable.setattr(trackers, "find_spec", lambda name: object())
    assert start._tracked(opened(tiny_run()), None, quiet).names == ()


# What becomes of the processes


@pytest.fixture
def watched(place, monkeypatch, opened):
    """Trackers whose processes run a line of Python, their session, and what was said."""
    said = []

    def watch(line):
        popen = follow.subprocess.Popen
        monkeypatch.setattr(follow, "subprocess", types.SimpleNamespace(
            **vars(follow.subprocess) | {"Popen": lambda command, **how: popen(
                [sys.executable, "-S", "-c", line], **how)}))
        made = follow.Trackers(("wandb",), place, place / "none.jsonl", said.append)
        session = opened(tiny_run())
        made.start(session)
        return made, session, said
    return watch


def test_a_tracker_that_fails_is_named_once_and_left_out(watched):
    made, session, said = watched("raise SystemExit('no room')")
    made._running["wandb"].wait()
    report = StepReport(1, 1.0, 1.0, 1.0, 1, 1.0)
    for _ in range(3):
        made._looked = -1e9
        made.after_step(session, report)
    made.settle()
    assert len(said) == 1 and said[0].startswith("tracker wandb failed and is left out: no room")


def test_a_tracker_that_hangs_holds_nobody_up(watched):
    made, _, said = watched("import time; time.sleep(60)")
    process = made._running["wandb"]
    try:
        os.kill(process.pid, signal.SIGSTOP)
        made.settle(0.05)
        assert said[0] == "tracker wandb is still writing; it ends by itself"
        assert os.getpgid(process.pid) != os.getpgid(0)  # an interrupt is not for it
    finally:
        process.kill()
        process.wait()


def test_one_that_ends_well_says_how_to_look(watched):
    made, _, said = watched("pass")
    made.settle()
    assert len(said) == 1 and said[0].startswith("tracked: wandb sync")


def test_one_that_cannot_start_is_said(place, opened, monkeypatch):
    said = []
    made = follow.Trackers(("wandb",), place, place, said.append)
    monkeypatch.setattr(follow.sys, "executable", str(place / "nothing"))
    made.start(replace(opened(tiny_run())))
    made.settle()
    assert said == ["tracker wandb could not be started (No such file or directory)"]
