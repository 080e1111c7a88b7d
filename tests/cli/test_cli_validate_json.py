"""The JSON and CSV that `curbcut validate` promises, for every kind and regime."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from curbcut.cli.main import main
from plan.test_plan_validation_serving import OFFLINE, SPLIT, TOGETHER
from plan.validation import tables
from plan.validation.test_validation_runs import RUN

FIGURES = ("macro_mape", "mean_abs_pct_error", "median_abs_pct_error", "p90_abs_pct_error",
           "bias_pct", "coverage80", "coverage95")
SCORED = {"rows", "unexpressed", "by_source", *FIGURES}
OF_SOURCE = {"rows", "unexpressed", *FIGURES}
WHOLE = {"kind", "table", "regime"}
COLUMNS = ["quantity", "id", "source", "predicted", "low80", "high80", "low95", "high95",
           "measured",
           "assumed"]


def throughput(path):
    return tables.throughput(path, {}, {"gpu": "Abacus"}, {"recompute": "", "source": "elsewhere"})


def memory(path):
    return tables.write(path, [tables.MEMORY, tables.MEMORY | {"id": "m2", "gpu": "Abacus"},
                               tables.MEMORY | {"id": "m3", "quantity": "colour"}])


def sweep(path):
    return tables.write(path, [
        tables.SWEEP | {"id": "s1"}, tables.SWEEP | {"id": "s2", "micro_batch": "1"},
        tables.SWEEP | {"id": "s3", "tp": "3"},
        tables.SWEEP | {"id": "s4", "status": "failed(OOM)", "tokens_per_s_per_gpu": ""}])


def single(path):
    return tables.write(path, [tables.SINGLE, tables.SINGLE | {"tp": "3"}])


def runs(path):
    return tables.write(path, [RUN, RUN | {"gpu": "Abacus", "model": "other"}], list(RUN))


def latencies(path):
    return tables.write(path, [TOGETHER, SPLIT, TOGETHER | {"id": "z", "system": "abacus"}])


def offline(path):
    return tables.write(path, [OFFLINE, OFFLINE | {"id": "z", "gpu": "Abacus"}])


def printed(capsys, *arguments):
    assert main(["validate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def check(part, rows, unexpressed, sources=True):
    """The figures of one part."""
    assert part["rows"] == rows
    assert len(part["unexpressed"]) == unexpressed
    for one in part["unexpressed"]:
        assert set(one) == {"id", "reason"} and one["id"] and one["reason"]
    for name in FIGURES:
        assert (part[name] is None) == (rows == 0)
        if rows:
            assert math.isfinite(part[name])
            assert name == "bias_pct" or part[name] >= 0
    if rows:
        assert 0 <= part["coverage80"] <= part["coverage95"] <= 1
        assert part["median_abs_pct_error"] <= part["p90_abs_pct_error"] + 1e-9
        assert abs(part["bias_pct"]) <= part["macro_mape"] + 1e-9
    if sources:
        assert set(part) >= SCORED
        assert sum(one["rows"] for one in part["by_source"].values()) == rows
        for one in part["by_source"].values():
            assert set(one) == OF_SOURCE
            check(one, one["rows"], len(one["unexpressed"]), sources=False)
        errors = [one["mean_abs_pct_error"] for one in part["by_source"].values()]
        if errors:
            assert part["macro_mape"] == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize(("kind", "table", "write", "rows", "left"), [
    ("throughput", "throughput", throughput, 2, 1), ("throughput", "vtrain_single", single, 1, 1),
    ("runs", "runs", runs, 1, 1), ("memory", "memory", memory, 1, 2)])
def test_a_table_of_one_quantity_has_exactly_the_promised_keys(capsys, tmp_path, kind, table, write,
                                                               rows, left):
    found = json.loads(printed(capsys, kind, write(tmp_path / "t.csv"), "--json"))
    assert set(found) == SCORED | WHOLE
    assert (found["kind"], found["table"], found["regime"]) == (kind, table, "stack never seen")
    check(found, rows, left)


def test_a_sweep_adds_what_it_alone_can_tell(capsys, tmp_path):
    found = json.loads(printed(capsys, "throughput", sweep(tmp_path / "s.csv"), "--json"))
    more = {"feasibility", "regret_pct", "median_regret_pct", "worst_regret_pct", "cells",
            "step_time"}
    assert set(found) == SCORED | WHOLE | more
    check(found, 2, 1)
    told = found["feasibility"]
    assert set(told) == {"rows", "balanced_accuracy", "confusion", "best_threshold",
                         "best_balanced_accuracy"}
    assert told["rows"] == 3 == sum(told["confusion"].values())
    assert told["best_balanced_accuracy"] >= told["balanced_accuracy"]
    assert 0 <= found["regret_pct"] <= found["worst_regret_pct"] <= 100 and found["cells"] == 1
    check(found["step_time"], 2, 0)


def test_a_sweeps_memory_has_feasibility_too(capsys, tmp_path):
    found = json.loads(printed(capsys, "memory", sweep(tmp_path / "s.csv"), "--json"))
    assert set(found) == SCORED | WHOLE | {"feasibility"}
    check(found, 2, 1)


def test_memory_of_three_units_has_a_part_for_each(capsys, tmp_path):
    notes = ("GiB", "GB as printed", "PERCENT", "GiB")
    lines = [tables.MEMORY | {"id": f"m{number}", "unit_note": note,
                              "quantity": "activation memory relative to none" if note == "PERCENT"
                              else "peak allocated"} for number, note in enumerate(notes)]
    found = json.loads(printed(capsys, "memory", tables.write(tmp_path / "m.csv", lines), "--json"))
    assert set(found) == SCORED | WHOLE | {"gb_or_gib", "percent"}
    check(found, 2, 0)
    for name in ("gb_or_gib", "percent"):
        assert set(found[name]) == SCORED
        check(found[name], 1, 0)


def test_serving_nests_its_quantities(capsys, tmp_path):
    found = json.loads(printed(capsys, "serving", latencies(tmp_path / "t.csv"), "--json"))
    assert set(found) >= {"ttft", "tpot"} | WHOLE
    for name in ("ttft", "tpot"):
        assert set(found[name]) == SCORED
        check(found[name], 2, 1)
    found = json.loads(printed(capsys, "serving", offline(tmp_path / "o.csv"), "--json"))
    check(found["throughput"], 1, 1)


@pytest.mark.parametrize(("kind", "write", "quantities"), [
    ("throughput", throughput, {""}), ("throughput", single, {""}), ("memory", memory, {""}),
    ("runs", runs, {""}), ("serving", latencies, {"ttft", "tpot"}), ("throughput", sweep, {""}),
    ("serving", offline, {"throughput"})])
def test_rows_are_a_csv_of_every_prediction(capsys, tmp_path, kind, write, quantities):
    path, out = write(tmp_path / "t.csv"), tmp_path / "rows.csv"
    found = json.loads(printed(capsys, kind, path, "--json", "--rows", out))
    lines = list(csv.reader(io.StringIO(out.read_text())))
    assert lines[0] == COLUMNS
    assert {line[0] for line in lines[1:]} == quantities
    parts = [found] if "" in quantities else [found[name] for name in quantities]
    assert len(lines) == 1 + sum(part["rows"] for part in parts)
    for line in lines[1:]:
        middle, low80, high80, low95, high95, measured = map(float, line[3:9])
        assert 0 < low95 <= low80 <= middle <= high80 <= high95 and measured > 0
        assert line[1]


@pytest.mark.parametrize(("kind", "write"), [
    ("throughput", throughput), ("throughput", sweep), ("throughput", single), ("memory", memory),
    ("runs", runs), ("serving", latencies), ("serving", offline)])
def test_the_same_command_prints_the_same_bytes(capsys, tmp_path, kind, write):
    path = write(tmp_path / "t.csv")
    outs = [tmp_path / "1.csv", tmp_path / "2.csv"]
    first, second = (printed(capsys, kind, path, "--json", "--rows", out) for out in outs)
    assert first == second
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert printed(capsys, kind, path) == printed(capsys, kind, path)


@pytest.mark.parametrize(("kind", "write", "titles"), [
    ("throughput", throughput, ("Step time (stack never seen)", "elsewhere",
                                "Not expressed: 1 row")),
    ("throughput", sweep, ("Tokens a second", "By step time", "Fits or not", "Regret")),
    ("memory", memory, ("Peak memory", "no quantity that we know: colour")),
    ("runs", runs, ("Accelerator-hours", "'Abacus' is not in the facts")),
    ("serving", latencies, ("time to first token", "time per output token"))])
def test_people_see_title_figures_and_reasons(capsys, tmp_path, kind, write, titles):
    said = " ".join(printed(capsys, kind, write(tmp_path / "t.csv")).split())
    for title in titles:
        assert title in said
    assert "nan" not in said.casefold()


def many(path, count=22):
    return tables.throughput(path, *({
        "id": f"r{number}", "micro_batch": str(2 ** (number % 3)),
        "global_batch_seqs": str(64 * (1 + number % 4)),
        "measured_step_time_s": str(3 + number % 7)} for number in range(count)))


@pytest.mark.parametrize(("options", "rows", "regime"), [
    ([], 22, "stack never seen"), (["--known"], 22, "known stack, the facts' constants"),
    (["--calibrate", "10"], 12, "after 10 rows of each source calibrate its stack"),
    (["--calibrate", "21"], 1, "after 21 rows of each source calibrate its stack"),
    (["--folds", "2"], 22, "known stack, 2 folds")])
def test_each_regime_says_its_name_and_scores_its_rows(capsys, tmp_path, options, rows, regime):
    path = many(tmp_path / "t.csv")
    found = json.loads(printed(capsys, "throughput", path, "--json", *options))
    assert found["regime"] == regime
    check(found, rows, 0)
    more = {"calibrated_on"} if "--calibrate" in options else set()
    assert set(found) == SCORED | WHOLE | more
    assert found.get("calibrated_on", 0) == (22 - rows if more else 0)


@pytest.mark.parametrize(("options", "reason"), [
    (["--calibrate", "22"], "fewer than"), (["--calibrate", "99999"], "fewer than"),
    (["--folds", "12"], "fewer than 24 rows")])
def test_regimes_beyond_the_rows_leave_every_row_out_by_name(capsys, tmp_path, options, reason):
    path = many(tmp_path / "t.csv")
    found = json.loads(printed(capsys, "throughput", path, "--json", *options))
    check(found, 0, 22)
    assert all(reason in one["reason"] for one in found["unexpressed"])
    assert printed(capsys, "throughput", path, *options)


@pytest.mark.parametrize("options", [["--calibrate", "5", "--seed", "12345678901234567890"],
                                     ["--folds", "2", "--seed", "-1"]])
def test_any_seed_draws_the_same_twice(capsys, tmp_path, options):
    arguments = ["throughput", many(tmp_path / "t.csv"), "--json", *options]
    assert printed(capsys, *arguments) == printed(capsys, *arguments)


@pytest.mark.parametrize("options", [
    ["--folds", "1"], ["--folds", "0"], ["--folds", "-3"], ["--calibrate", "0"],
    ["--calibrate", "-1"], ["--known", "--folds", "3"], ["--known", "--calibrate", "3"]])
def test_regimes_that_are_none_are_refused(capsys, tmp_path, options):
    assert main(["validate", "throughput", str(many(tmp_path / "t.csv")), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("curbcut: ") and " help: " in said.err


@pytest.mark.parametrize("kind", ["memory", "runs"])
@pytest.mark.parametrize("options", [["--folds", "2"], ["--calibrate", "1"], ["--known"]])
def test_kinds_without_constants_to_fit_have_one_regime(capsys, tmp_path, kind, options):
    write = {"memory": memory, "runs": runs}[kind]
    assert main(["validate", kind, str(write(tmp_path / "t.csv")), *options]) == 2
    assert "no calibrated regime" in capsys.readouterr().err


def test_nothing_expressed_is_no_figure_but_no_crash(capsys, tmp_path):
    path = tables.throughput(tmp_path / "t.csv", {"gpu": "Abacus"}, {"tp": "nine"})
    found = json.loads(printed(capsys, "throughput", path, "--json", "--rows", tmp_path / "o.csv"))
    check(found, 0, 2)
    assert found["by_source"] == {}
    assert (tmp_path / "o.csv").read_text().splitlines() == [",".join(COLUMNS)]


def test_names_with_commas_quotes_and_other_letters_survive_the_csv(capsys, tmp_path):
    name = 'a, "b"\nÜber 模型'
    path = tables.throughput(tmp_path / "t.csv", {"id": name, "source": "s,1"})
    out = tmp_path / "o.csv"
    printed(capsys, "throughput", path, "--rows", out)
    with open(out, newline="") as file:
        line = next(csv.DictReader(file))
    assert (line["id"], line["source"]) == (name, "s,1")
