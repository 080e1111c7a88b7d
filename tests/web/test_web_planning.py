"""The planner says what `curbcut plan` says, quickly, and outlives its process."""

from __future__ import annotations

import io
import json
import sys
import textwrap
import threading
import time

import pytest

from curbcut.cli.main import main
from curbcut.errors import CurbcutError, InputError
from curbcut.web import planner, planning
from curbcut.web.asked import read
from curbcut.web.planner import Worker
from curbcut.web.planning import Planner


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Planner(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """The planner in a process of its own, as the pages ask it."""
    made = Worker(tmp_path_factory.mktemp("runs"))
    yield made
    made.close()


@pytest.mark.parametrize(("asked", "options"), [
    ({"money": "500 EUR"}, ["--budget", "500 EUR", "--on", "any"]),
    ({"energy": "300 kWh", "hours": "40", "zone": "FRA", "on": "8xH100,16xA100", "project": "1"},
     ["--energy", "300 kWh", "--hours", "40", "--zone", "FRA", "--on", "8xH100,16xA100",
      "--project"]),
    ({"money": "90000 USD", "data": "30 GB", "contract": "any", "zone": "any", "on": "64xH100"},
     ["--budget", "90000 USD", "--data", "30 GB", "--contract", "any", "--zone", "any", "--on",
      "64xH100"])])
def test_an_answer_is_that_of_the_command(process, asked, options, capsys, tmp_path):
    found = process.ask("answer", asked)
    assert main(["plan", *options, "--json", "--runs", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert found["backwards"] == said["backwards"]
    for key, estimate in found["forecast"].items():
        section, _, kind = key.partition(".")
        assert estimate == said["forecast"][section][kind]
    assert found["run"]["tokens"] == said["run"]["train"]["tokens"]


def test_a_command_asks_the_same(desk, tmp_path, capsys, monkeypatch):
    import shlex

    monkeypatch.chdir(tmp_path)
    found = desk.answer({"money": "70 EUR", "hours": "30", "on": "1xA40,2xL40S"})
    assert main([*shlex.split(found["command"])[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backwards"] == found["backwards"]
    assert (tmp_path / "run.toml").is_file()


def test_later_questions_do_not_depend_on_earlier_ones(tmp_path):
    wanted = {"money": "2000 EUR", "on": "8xH100,4xA100"}
    moved, fresh = Planner(tmp_path), Planner(tmp_path)
    for money in ("3 EUR", "9e6 EUR", "45 EUR"):
        moved.answer({"money": money, "on": "8xH100,4xA100"})
    assert moved.answer(wanted)["backwards"] == fresh.answer(wanted)["backwards"]


@pytest.mark.parametrize("asked", [
    {}, {"money": ""}, {"money": "0 EUR"}, {"money": "NaN EUR"}, {"money": "1e999 EUR"},
    {"money": "5 XYZ"}, {"money": "5 EUR", "zone": "nowhere"}, {"money": "5 EUR", "on": "9xQ7"},
    {"money": "5 EUR", "contract": "barter"}, {"money": "5" * 1000}, {"hours": "9", "on": "here"},
    {"money": "5 EUR", "x": "1"}, {"money": "\ud800"}, {"energy": "3 kg"},
    {"money": "0.00001 EUR", "on": "1xA40"}, {"money": "5 EUR", "on": "here x 3"}])
def test_bad_input_is_refused(desk, asked):
    with pytest.raises(InputError):
        desk.answer(asked)


def test_levers_start_from_the_answered_run(desk):
    asked = {"money": "500 EUR", "on": "2xA100"}
    found = desk.levers({**asked, "unit": "EUR"})
    project = desk.answer(asked)["backwards"]
    assert found["steps"][0]["before"] == found["start"]["value"] >= project["best"]["usd"]["value"]
    for one, after in zip(found["steps"], found["steps"][1:], strict=False):
        assert after["before"] == one["after"] < one["before"]
    assert found["steps"][-1]["after"] == found["end"]["value"]
    json.dumps(found, allow_nan=False)


def test_levers_end_where_somebody_waits(tmp_path):
    looked = []
    waiting = Planner(tmp_path, lambda: bool(looked.append(1)) or len(looked) > 5)
    assert waiting.levers({"money": "500 EUR", "on": "2xA100"}) == {"stopped": True}
    assert len(looked) == 6


def test_the_map_and_what_may_be_chosen_are_plain(desk):
    found = desk.do("map", {})
    assert {row[0]["year"] for row in found["curves"]} >= {found["year"]} and found["published"]
    chosen = desk.do("choices", {})
    assert chosen["currencies"]["USD"] == 1.0 and "any" in chosen["contracts"]
    assert all(read({"money": "5 EUR", "on": f"8x{one}"}, desk._runs)
               for one in chosen["accelerators"])
    json.dumps([found, chosen], allow_nan=False)


def test_bad_lines_are_answered_too(desk):
    answers = io.StringIO()
    planning.serve(desk, io.StringIO('{"do": "dance", "asked": {}}\n'
                                     '{"do": "answer", "asked": {"money": "x"}}\n'), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert "dance" in first["error"]["what"] and second["exit_code"] == 2


ECHO = """
import json, sys, time
for line in sys.stdin:
    if not line.strip():
        continue
    asked = json.loads(line)
    if asked["do"] == "die":
        sys.exit(3)
    if asked["do"] == "levers":
        sys.stdin.readline()
    if asked["do"] == "hang":
        time.sleep(60)
    if asked["do"] == "bad":
        print(json.dumps({"error": {"what": "no", "where": "here", "mend": "so"}, "exit_code": 2}))
    else:
        print(json.dumps({"found": asked}))
    sys.stdout.flush()
"""


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path, [sys.executable, "-c", textwrap.dedent(ECHO)])
    yield made
    made.close()


def test_a_worker_passes_on_what_it_is_told(worker):
    assert worker.ask("x", {"money": "ü\n"}) == {"do": "x", "asked": {"money": "ü\n"}}
    with pytest.raises(InputError) as refused:
        worker.ask("bad", {})
    assert (refused.value.what, refused.value.where, refused.value.mend) == ("no", "here", "so")


def test_a_worker_that_dies_or_hangs_is_replaced(worker, monkeypatch):
    monkeypatch.setattr(planner, "MOST_SECONDS", 0.3)
    for what in ("die", "hang"):
        with pytest.raises(CurbcutError, match="no answer"):
            worker.ask(what, {})
        assert worker.ask("x", {})["do"] == "x"


def test_who_pulls_levers_is_told_that_somebody_waits(worker):
    pulls = threading.Thread(target=worker.ask, args=("levers", {}), daemon=True)
    pulls.start()
    while worker._doing != "levers":
        time.sleep(0.01)
    assert worker.ask("x", {})["do"] == "x"  # else the levers would never end
    pulls.join(60)
    assert not pulls.is_alive()


def test_a_crowd_is_turned_away(worker):
    worker._waiting = planner.MOST_WAITING
    with pytest.raises(CurbcutError, match="too many"):
        worker.ask("x", {})
    worker._waiting = 0
