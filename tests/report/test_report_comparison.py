from __future__ import annotations

import csv
import io
import json
import math

from curbcut.report import comparison as report
from curbcut.report.formats import written
from curbcut.report.tables import plain_console
from curbcut.spec import Account, Estimate, given, measured, modelled, unknown

SENSOR = "no energy sensor"
PROMISED = Account(
    seconds={"total": modelled(240.0, 1.25, "roofline"), "steps": modelled(200.0, 1.1, "roofline")},
    tokens={"trained": given(100_000, "run.toml")},
    memory_bytes={"peak": modelled(2.0**31, 1.5, "sum of parts")},
    kwh={"device": modelled(0.004, 2.0, "watts x time")},
    usd={"total": modelled(10.0, 2.0, "sum")},
    loss={"bits_per_byte": modelled(1.8, 1.1, "scaling law")})
MEASURED = Account(
    seconds={"total": measured(252.0, "clock"), "steps": measured(400.0, "clock")},
    memory_bytes={"peak": measured(2.5e9, "VmHWM")},
    kwh={"device": unknown(SENSOR)},
    kwh_modelled={"device": modelled(0.005, 2.0, "60 W x time")},
    loss={"bits_per_byte": measured(1.75, "held-out text")})


def comparison(promised=PROMISED, found=MEASURED, width=80, **options):
    out = io.StringIO()
    console = plain_console(out)
    console.width = width
    report.print_comparison(promised, found, console=console, **options)
    return out.getvalue()


def row(text, *words):
    (line,) = [line for line in text.splitlines() if line.split()[:len(words)] == list(words)]
    return line


def test_promised_against_measured_line_by_line():
    text = comparison()
    assert all(len(line) <= 80 for line in text.splitlines())
    total = row(text, "time", "total")
    for word in ("4.00 min", "3.20 .. 5.00", "4.20 min", "1.05", "inside"):
        assert word in total
    assert row(text, "steps").split()[-2:] == ["2.00", "OUTSIDE"]
    assert "not promised" in row(text, "energy", "device", "(model)")


def test_what_was_not_measured_has_no_row_and_is_said_with_its_promise():
    text = comparison()
    said = " ".join(text.split())
    assert not any(line.split()[:2] == ["energy", "device"] and "(model)" not in line
                   for line in text.splitlines())
    assert f"{SENSOR}: watts and kWh are modelled" in said
    assert "not measured: tokens 100 k, money total $10.00" in said
    without = comparison(found=Account(kwh={"device": unknown(SENSOR)}))
    assert f"not measured ({SENSOR}): energy device 4.00 Wh" in " ".join(without.split())


def test_a_sensor_has_its_row():
    text = comparison(found=Account(kwh={"device": measured(0.005, "RAPL")},
                                    kwh_modelled={"device": modelled(0.006, 2, "model")}))
    assert "inside" in row(text, "energy", "device", "4.00")
    assert "are modelled" not in text


def test_what_is_exact_is_equal_or_differs_and_no_promise():
    found = Account(tokens={"trained": measured(100_000, "counted")})
    text = comparison(found=found)
    assert row(text, "time", "tokens").split()[-2:] == ["1.00", "equal"]
    assert "no promise could be checked" in text
    text = comparison(found=Account(tokens={"trained": measured(50_000, "counted")}))
    assert row(text, "time", "tokens").split()[-2:] == ["0.50", "differs"]
    assert "outside" not in text


def test_what_neither_side_knows_is_one_closing_line():
    nobody = Account(usd={"ownership": unknown("no purchase price of EPYC is known"),
                          "staff": unknown("staff not included: nobody said")})
    said = " ".join(comparison(nobody, nobody).split())
    assert "not known: ownership (no purchase price of EPYC is known); staff (nobody said)" in said
    assert "unknown" not in said


def test_the_summary_counts_what_could_be_checked():
    text = comparison()
    assert "3 of 4 promises held; outside: time steps 2.0x" in text
    found = report.verdict(PROMISED.against(MEASURED))
    assert (found.checked, found.held) == (4, 3)
    assert [line.kind for line in found.outside] == ["steps"]


def test_nothing_against_nothing_holds_no_promise():
    assert "no promise could be checked" in comparison(Account(), Account())


def test_ways_to_pay_and_the_projects_figures_are_no_promises_of_a_run():
    ways = {"own": modelled(5.0, 2.0, "own"), "spot": unknown("no price")}
    promised = Account(**{**vars(PROMISED), "usd_ways": ways, "usd": {
        **PROMISED.usd, "project": modelled(20.0, 2.0, "x 2"),
        "development": modelled(10.0, 2.0, "x 1")}})
    text = " ".join(comparison(promised).split())
    assert "3 of 4 promises held" in text
    for word in ("own", "spot", "whole project", "experiments", "no price"):
        assert word not in text.partition("not compared")[0]
    assert text.endswith("not compared: other ways to pay, and the whole project's figures, are no "
                         "promises of this run")
    assert "not compared" not in comparison()


def test_csv_has_both_sides_in_full_and_markdown_the_verdict():
    told = report.comparison_tables(PROMISED, MEASURED, title="tiny: train")
    lines = list(csv.DictReader(io.StringIO(written(told, "csv"))))
    steps = next(line for line in lines if line["key"] == "seconds.steps")
    assert (float(steps["promised"]), float(steps["measured"])) == (200.0, 400.0)
    assert (steps["group"], steps["unit"], float(steps["ratio"]), steps["verdict"]) == (
        "time", "seconds", 2.0, "OUTSIDE")
    text = written(told, "markdown")
    assert text.startswith("### tiny: train\n") and "### 3 of 4 promises held" in text


def test_json_has_every_line_and_null_for_what_is_not_known():
    told = json.loads(json.dumps(report.as_plain(PROMISED, MEASURED), allow_nan=False))
    assert told["measured"]["kwh"]["device"] == {
        "value": None, "low": None, "high": None, "basis": "measured", "source": SENSOR}
    by_figure = {(line["section"], line["figure"]): line for line in told["lines"]}
    assert by_figure["seconds", "steps"] == {"section": "seconds", "figure": "steps", "ratio": 2.0,
                                             "inside": False}
    assert by_figure["kwh", "device"]["inside"] is None
    assert (told["held"], told["checked"], told["notes"]) == (3, 4, [])


def test_json_is_strict():
    odd = Account(usd={"total": Estimate(1.0, 0.5, math.inf)},
                  loss={"bits_per_byte": Estimate(math.nan)})
    told = json.loads(json.dumps(report.as_plain(odd, None), allow_nan=False))
    assert told["promised"]["usd"]["total"]["high"] is None
    assert told["promised"]["loss"]["bits_per_byte"]["value"] is None
    assert told["measured"] is None
