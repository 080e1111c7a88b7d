"""`curbcut top`: the twin of the page in a terminal, in a pipe, and for programs."""

from __future__ import annotations

import json
import sys

import pytest
import rich.console

from curbcut.cli import top
from curbcut.cli.main import main
from curbcut.ledger.inbox import FOLDER, Writer
from curbcut.spec import Account, Resolved, modelled
from tiny import tiny_run


@pytest.fixture
def runs(tmp_path):
    """A folder of two runs whose processes left lines that nobody has imported."""
    for name, lines in (("first", 3), ("second", 1)):
        with Writer(tmp_path / "runs" / name / FOLDER, name, "train") as writer:
            writer.write_run(Resolved(tiny_run(name), {}))
            writer.write_account("train", "forecast", Account(usd={"total": modelled(1, 2, "t")}))
            writer.write("start", {"step": 0, "steps": 4, "period_seconds": 10})
            for step in range(1, lines + 1):
                writer.write("step", {"step": step, "loss": 5.0 - step, "tokens": step,
                                      "step_seconds": 1.0, "seconds": {"steps": step}})
            writer.write("checkpoint", {"step": lines, "path": "step-9"})
    return tmp_path / "runs"


def test_in_a_pipe_it_is_shown_once(runs, capsys):
    assert main(["top", "--runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "first" in text and " 75%" in text and " 25%" in text and "\x1b" not in text


def test_json_has_what_the_page_has(runs, capsys):
    assert main(["top", "--runs", str(runs), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["first"]["state"] == "training" and rows["first"]["loss"] == 2.0
    assert rows["second"]["usd"]["promised"] == 1.0
    assert main(["top", "second", "--runs", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["row"]["step"] == 1
    assert [event["kind"] for event in found["events"]] == ["start", "checkpoint"]


def test_one_run_and_its_course(runs, capsys):
    assert main(["top", "first", "--once", "--runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "loss     █▅▁ 4.000 → 2.000" in text and "checkpoint step-9" in text


def test_a_run_that_nobody_knows_is_refused_with_the_nearest(runs, capsys):
    assert main(["top", "frist", "--runs", str(runs)]) == 2
    assert "did you mean 'first'?" in capsys.readouterr().err


def test_where_nothing_is_yet_it_says_what_makes_one(tmp_path, capsys):
    assert main(["top", "--runs", str(tmp_path / "none")]) == 2
    assert "no ledger here yet" in capsys.readouterr().err
    assert main(["top", "--ledger", str(tmp_path / "x.sqlite"), "--runs", str(tmp_path)]) == 2


def test_on_a_terminal_it_goes_on_until_it_is_interrupted(runs, monkeypatch, capsys):
    made, seen = rich.console.Console, []
    monkeypatch.setattr(rich.console, "Console", lambda **how: made(
        force_terminal=True, width=100, height=20, file=sys.stdout, **how))
    monkeypatch.delenv("COLUMNS", raising=False)

    def wait(seconds):
        seen.append(seconds)
        if len(seen) == 1:  # a new line comes while it is watched
            [file] = (runs / "second" / FOLDER).glob("*.jsonl")
            line = {"run": "second", "process": file.stem, "sequence": 9, "time": 2e9,
                    "kind": "step", "body": {"step": 2, "loss": 1.25}}
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(top.time, "sleep", wait)
    assert main(["top", "--runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "\x1b[?1049h" in text and "\x1b[?1049l" in text  # it leaves the screen as it was
    assert "1.250" not in text.split("second")[1] and "1.250" in text
