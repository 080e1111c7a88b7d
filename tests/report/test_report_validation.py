from __future__ import annotations

import csv
import io
import json

import pytest

from curbcut.plan.validation.outcome import Outcome, Part, Regime
from curbcut.plan.validation.score import Prediction, Unexpressed
from curbcut.report.validation import print_outcome, rows_csv


def part(*errors, left=()):
    return Part(unexpressed=[Unexpressed(f"x{n}", "s", why) for n, why in enumerate(left)],
                predictions=[Prediction(
                    id=f"r{number}", source="s", predicted=100 + error, measured=100.0,
                    low80=90 + error, high80=110 + error, low95=80 + error, high95=120 + error,
                    assumed=("one", "two")) for number, error in enumerate(errors)])


def outcome(parts, **fields):
    return Outcome(**({"kind": "throughput", "table": "throughput", "regime": Regime(),
                       "parts": parts} | fields))


def test_a_table_has_errors_coverage_and_what_was_left_out_by_reason(capsys):
    print_outcome(outcome({"": part(5, -15, left=("no chip", "no chip", "no model"))}))
    printed = capsys.readouterr().out
    assert "Step time (stack never seen)" in printed
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert lines["s"] == ["s", "2", "10.0%", "10.0%", "14.0%", "-5.0%", "50%", "100%"]
    assert "Not expressed: 3 rows" in printed
    assert lines["2"] == ["2", "no", "chip"]


def test_one_source_of_several_quantities_is_one_table(capsys):
    print_outcome(outcome({"amortised": part(0), "cloud": part(-0.01)}, kind="cost"))
    said = capsys.readouterr().out
    assert said.startswith("Cost, s\n") and said.count("median error") == 1
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line}
    assert rows["amortised"][2] == "0.0%" and rows["cloud"][5] == "0.0%"
    assert "all rows" not in said


def test_a_source_alone_is_not_said_twice(capsys):
    print_outcome(outcome({"": part(5, -15)}))
    said = capsys.readouterr().out
    assert "all rows" not in said and "mean error over sources" not in said


@pytest.mark.parametrize("chosen", ["markdown", "csv", "json"])
def test_every_format_has_the_errors(capsys, chosen):
    print_outcome(outcome({"": part(5, -15, left=("no chip",))}), chosen)
    said = capsys.readouterr().out
    if chosen == "json":
        assert json.loads(said)["median_abs_pct_error"] == pytest.approx(10)
    elif chosen == "csv":
        titled, head, row, *rest = csv.reader(io.StringIO(said))
        assert titled == ["Step time (stack never seen)"] and head[2] == "median_abs_pct_error"
        assert row[:2] == ["s", "2"] and float(row[2]) == pytest.approx(10)
        assert rest[-1] == ["1", "no chip"]
    else:
        assert "| s | 2 | 10.0% |" in said and "### Not expressed: 1 row\n" in said


def test_nothing_predicted_prints_dashes_and_not_nought(capsys):
    print_outcome(outcome({"": part(left=("no chip",))}))
    assert "-" in capsys.readouterr().out


def test_feasibility_and_regret_are_sentences(capsys):
    more = {"feasibility": {"balanced_accuracy": 0.9, "best_threshold": 0.8,
                            "best_balanced_accuracy": None,
                            "confusion": {"fits_ok": 3, "fits_failed": 1, "too_big_ok": 0,
                                          "too_big_failed": 4}},
            "regret_pct": 2.5, "median_regret_pct": 1.0, "worst_regret_pct": 10.0,
            "cells": 7.0}
    print_outcome(outcome({"": part(1)}, table="sweep", more=more))
    printed = " ".join(capsys.readouterr().out.split())
    assert "Tokens a second" in printed
    assert "of 3 that ran 3 were said to fit, of 5 that failed (crashes too) 4" in printed
    assert "2.5% of the best measured" in printed


def test_rows_as_csv_have_every_prediction():
    lines = list(csv.DictReader(io.StringIO(rows_csv([("", part(5)), ("ttft", part(1, 2))]))))
    assert [(line["quantity"], line["id"]) for line in lines] == [
        ("", "r0"), ("ttft", "r0"), ("ttft", "r1")]
    assert lines[0]["assumed"] == "one; two"
    assert float(lines[0]["low95"]) == 85
