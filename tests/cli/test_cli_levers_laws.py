"""`curbcut levers` in every format and unit: what it prints is what it priced."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from curbcut.cli.main import main
from curbcut.facts.currency import usd_per
from curbcut.plan.levers.catalogue import TRAINING
from curbcut.plan.levers.serving import SERVING

RUN = ["levers", "--model", "llama-3.2-1b", "--tokens", "20B", "--on", "8xA100"]
SOME = "compile,spot,data-quality,fp8,place,better-building"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(capsys, *more):
    code = main([*RUN, *more])
    said = capsys.readouterr()
    return code, said.out, said.err


def read(capsys, *more):
    code, out, _ = call(capsys, *more, "--json")
    assert code == 0
    return json.loads(out)["waterfalls"]


def test_json_steps_add_up_in_every_unit(capsys):
    for unit in ("usd", "eur", "kwh", "kg", "hours", "litres"):
        found, = read(capsys, "--only", SOME, "--unit", unit)
        taken = [one for one in found["results"] if one["order"] is not None]
        total = sum(one["marginal"]["value"] for one in taken)
        assert total == pytest.approx(found["start"]["value"] - found["end"]["value"])
        assert [one["order"] for one in taken] == list(range(1, len(taken) + 1))
        for one in found["results"]:
            for figure in (one["alone"], one["marginal"]):
                assert figure is None or figure["low"] <= figure["value"] <= figure["high"]


def test_a_lever_that_saves_nothing_of_a_unit_is_not_taken_in_it(capsys):
    taken = {}
    for unit in ("usd", "kg", "hours"):
        found, = read(capsys, "--only", "spot,place,better-building", "--unit", unit)
        taken[unit] = {one["name"] for one in found["results"] if one["status"] == "taken"}
    assert taken == {"usd": {"spot"}, "kg": {"place", "better-building"}, "hours": set()}


def test_euros_are_dollars_over_their_price(capsys, monkeypatch):
    """What people read is converted; programs read dollars, and the names of columns say so."""
    monkeypatch.setenv("COLUMNS", "140")
    start = []
    for unit in ("usd", "eur"):
        first = call(capsys, "--only", "spot", "--unit", unit)[1].splitlines()[0]
        start.append(float(re.search(r": \D*([\d,.]+)", first)[1].replace(",", "")))
        assert ("EUR" in first) == (unit == "eur")
    assert start[0] / start[1] == pytest.approx(usd_per("EUR").value, rel=1e-3)
    out = call(capsys, "--only", "spot", "--unit", "eur", "--format", "csv")[1]
    header, row = list(csv.reader(io.StringIO(out)))[1:3]
    assert float(row[header.index("whole_after_usd")]) == pytest.approx(
        read(capsys, "--only", "spot", "--unit", "usd")[0]["end"]["value"])


def test_csv_has_a_row_a_lever_of_one_width(capsys):
    code, out, _ = call(capsys, "--only", SOME, "--format", "csv")
    blocks = [list(csv.reader(io.StringIO(block))) for block in out.strip().split("\n\n")]
    assert code == 0
    names = {cell for block in blocks for row in block for cell in row}
    assert set(SOME.split(",")) <= names
    for block in blocks:
        header, *rows = [row for row in block if len(row) > 1]
        assert rows and all(len(row) == len(header) for row in rows)


def test_markdown_and_text_name_every_lever(capsys):
    for form in ("markdown", "text"):
        code, out, _ = call(capsys, "--only", SOME, "--format", form)
        assert code == 0
        assert all(name in out for name in SOME.split(","))


def test_every_lever_of_training_answers_and_serving_adds_its_own(capsys):
    both = read(capsys, "--serving")
    assert [one["scope"] for one in both] == ["training", "serving"]
    assert sorted(one["name"] for one in both[1]["results"]) == sorted(
        one.name for one in SERVING)
    assert sorted(one["name"] for one in both[0]["results"]) == sorted(
        one.name for one in TRAINING)
    assert all(one["reason"] or one["alone"] for found in both for one in found["results"])


def test_what_if_is_taken_only_when_asked(capsys):
    some = ["--only", "compile,analog-in-memory", "--unit", "kwh"]
    without, = read(capsys, *some)
    with_it, = read(capsys, *some, "--what-if")
    status = [next(one["status"] for one in found["results"] if one["name"] == "analog-in-memory")
              for found in (without, with_it)]
    assert status == ["what-if", "taken"]
    assert with_it["end"]["value"] < without["end"]["value"]


def test_a_time_limit_is_said_and_kept(capsys):
    free, = read(capsys, "--only", "fewer-accelerators,power-cap", "--unit", "kwh")
    hours, = read(capsys, "--only", "compile", "--unit", "hours")
    most = 1.01 * hours["start"]["value"] / 3600
    held, = read(capsys, "--only", "fewer-accelerators,power-cap", "--unit", "kwh", "--hours",
                 f"{most:.4f}")
    assert "within its time limit" in held["what"] and "2 x as long" in free["what"]
    assert held["end"]["value"] >= free["end"]["value"]


def test_evidence_of_all_is_more_than_of_the_order(capsys):
    some = ["--only", "compile,lora,modern-recipe"]
    lengths = [len(call(capsys, *some, *more)[1]) for more in ((), ("--evidence",))]
    assert lengths[1] > lengths[0]
    assert "QLoRA" in call(capsys, *some, "--evidence")[1]


@pytest.mark.parametrize(("more", "says"), [
    (["--only", "compile,,spot"], ""), (["--only", "compile, spot"], ""),
    (["--only", "Compile"], "'compile'"), (["--only", "comple,spot"], "'compile'"),
    (["--contract", "on-demand,spot"], "levers start from one"), (["--plot", "x.gif"], ".svg"),
    (["--unit", "eurs"], "'eur'"), (["--hours", "-3"], "--hours")])
def test_lists_and_units_as_people_write_them(capsys, more, says):
    more = more if "--only" in more else ["--only", "compile", *more]
    code, out, err = call(capsys, *more)
    if says:
        assert (code, out) == (2, "") and says in err and "Traceback" not in err
    else:
        assert code == 0 and "compile" in out and "spot" in out
