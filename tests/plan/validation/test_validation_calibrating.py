"""What measured rows of one stack make of its constants, and what is kept of it."""

from __future__ import annotations

import csv
import json
import math

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.plan.validation import calibrate
from curbcut.plan.validation.calibrate import Calibration, Fitted
from curbcut.plan.validation.outcome import Regime, validate
from curbcut.plan.validation.score import score
from curbcut.report.validation import print_calibration
from plan.validation import tables

NONE = score([])


def found(**changes):
    one = Fitted(name="matmul", unit="share", accelerator="", version="", prior=0.6, factor=1.1,
                 low=1.0, high=1.2)
    plain = {"stack": "Mill", "version": "", "rows": 12, "sources": 2, "constants": [one],
             "before": NONE, "after": None, "origin": "m.csv"}
    return Calibration(**(plain | changes))


def rows_of(path, count=12, factor=1.0, software="Mill 1.0", **change):
    """Rows that take what is predicted of an unseen stack, times a factor."""
    lines = [{"id": f"r{number}", "software": software, "source": f"s{number % 2}",
              "micro_batch": str(2 ** (number % 3)), "tp": str(1 + number % 2),
              "dp": str(16 // (1 + number % 2)),
              "global_batch_seqs": str(64 * (1 + number % 4))} | change for number in range(count)]
    ours = {one.id: one.predicted for one in validate(
        "throughput", tables.throughput(path, *lines), Regime()).parts[""].predictions}
    return tables.throughput(path, *(line | {
        "measured_step_time_s": repr(factor * ours[line["id"]])} for line in lines))


@pytest.fixture(scope="module")
def slower(tmp_path_factory):
    """Rows a quarter slower than a stack in general."""
    path = rows_of(tmp_path_factory.mktemp("rows") / "slow.csv", factor=1.25)
    return path, calibrate.calibrate(path)


def test_a_slower_stack_is_learnt_with_intervals_that_hold_it(slower):
    _, got = slower
    assert (got.stack, got.rows, got.sources, got.origin) == ("Mill", 12, 2, "slow.csv")
    assert got.constants
    for one in got.constants:
        assert one.low <= one.factor <= one.high and one.low > 0
        assert one.value == pytest.approx(one.prior * one.factor)
    assert got.before.macro_mape == pytest.approx(20, abs=0.5)
    assert got.after.macro_mape < got.before.macro_mape / 2


def test_the_same_rows_teach_the_same(slower):
    path, got = slower
    again = calibrate.calibrate(path)
    assert calibrate.plain(again) == calibrate.plain(got)


def test_a_stack_and_a_version_that_are_named_are_the_same_as_the_only_ones(slower):
    path, got = slower
    assert calibrate.plain(calibrate.calibrate(path, "mILL"))["constants"] == calibrate.plain(
        got)["constants"]
    assert calibrate.calibrate(path, "Mill", "1.0").version == "1.0"


def test_plain_is_json_with_exactly_its_keys(slower):
    plain = calibrate.plain(slower[1])
    json.dumps(plain, allow_nan=False)
    assert set(plain) == {"stack", "version", "rows", "sources", "constants", "before", "after"}
    for one in plain["constants"]:
        assert set(one) == {"name", "unit", "accelerator", "version", "prior", "factor", "low",
                            "high", "value"}
    assert plain["before"]["rows"] == plain["after"]["rows"] == 12


def test_few_rows_are_not_scored_by_folds(tmp_path):
    got = calibrate.calibrate(rows_of(tmp_path / "m.csv", count=3, factor=1.25))
    assert got.after is None and got.rows == 3
    assert calibrate.plain(got)["after"] is None
    assert all("unsupported" in line["note"] for line in calibrate.lines(got))


@pytest.mark.parametrize(("stack", "version", "error", "said"), [
    ("Mil", "", UnknownName, "Mill"), ("Mill", "2.0", UnknownName, "1.0"),
    ("", "9", UnknownName, "version")])
def test_a_stack_or_version_that_is_not_there_is_named(slower, stack, version, error, said):
    with pytest.raises(error, match=said):
        calibrate.calibrate(slower[0], stack, version)


def test_tables_without_step_times_are_refused(tmp_path):
    with pytest.raises(InputError, match="memory table"):
        calibrate.calibrate(tables.write(tmp_path / "m.csv", [tables.MEMORY]))
    with pytest.raises(InputError, match="no measured row"):
        calibrate.calibrate(tables.throughput(tmp_path / "t.csv", {"gpu": "Abacus"}))
    failed = tables.SWEEP | {"status": "failed", "tokens_per_s_per_gpu": ""}
    with pytest.raises(InputError, match="no measured row"):
        calibrate.calibrate(tables.write(tmp_path / "s.csv", [failed]))
    with pytest.raises(InputError, match="2 stacks"):
        calibrate.calibrate(tables.throughput(tmp_path / "two.csv", {"software": "Mill"},
                                              {"software": "Loom"}))


@pytest.mark.parametrize(("rows", "marked"), [(1, True), (9, True), (10, False), (500, False)])
def test_lines_are_facts_and_few_rows_are_marked(rows, marked):
    line = calibrate.lines(found(rows=rows))[0]
    assert ("unsupported" in line["note"]) is marked
    assert line["rows"] == str(rows) and line["sources"] == "2" and line["unit"] == "factor"
    assert line["source"] == "curbcut calibrate m.csv" and line["without"] == ""
    assert float(line["low"]) < float(line["value"]) < float(line["high"])
    assert set(calibrate.KEY) <= set(line)


def test_writing_again_replaces_and_keeps_the_others(own_home):
    path = calibrate.write(found())
    assert path == calibrate.overlay_path() and path.is_file()
    calibrate.write(found(stack="Loom"))
    faster = Fitted(name="matmul", unit="share", accelerator="", version="", prior=0.6, factor=1.4,
                    low=1.3, high=1.5)
    calibrate.write(found(constants=[faster]))
    with open(path) as file:
        kept = {line["stack"]: float(line["value"]) for line in csv.DictReader(file)}
    assert kept == {"Mill": 1.4, "Loom": 1.1}


def test_a_constant_of_a_family_or_version_stands_beside_the_general_one(own_home):
    ones = [Fitted(name="matmul", unit="share", accelerator=family, version=version, prior=0.6,
                   factor=1.1, low=1.0, high=1.2)
            for family, version in (("", ""), ("h100", ""), ("", "1.0"))]
    path = calibrate.write(found(constants=ones))
    assert path.read_text().count("matmul") == 3
    assert calibrate.write(found(constants=ones)).read_text().count("matmul") == 3


def test_columns_that_a_user_added_are_kept(own_home):
    path = calibrate.write(found())
    with open(path) as file:
        lines = [line | {"mine": "yes"} for line in csv.DictReader(file)]
    tables.write(path, lines)
    calibrate.write(found(stack="Loom"))
    with open(path) as file:
        after = {line["stack"]: line["mine"] for line in csv.DictReader(file)}
    assert after == {"Mill": "yes", "Loom": ""}


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path / "file" / "facts"))
    with pytest.raises(InputError, match="cannot be written") as caught:
        calibrate.write(found())
    assert "CURBCUT_FACTS" in caught.value.mend


def test_people_see_each_constant_beside_its_prior(slower, capsys):
    _, got = slower
    print_calibration(got)
    said = capsys.readouterr().out
    assert "Mill: 12 rows of 2 sources" in said and "mean error of step time" in said
    for one in got.constants:
        assert one.name in said
    print_calibration(found(version="2"))
    said = capsys.readouterr().out
    assert "Mill 2: 12 rows" in said and "- on rows left out" in said
    assert f"{0.6 * 1.1:.4g}" in said and not math.isnan(got.after.macro_mape)
    print_calibration(found(), "csv")
    head, row = capsys.readouterr().out.splitlines()
    assert head == "constant,for,unit,prior,fitted,low,high"
    assert row.startswith("matmul,all,share,0.6,")
