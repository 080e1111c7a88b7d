"""The runs in a terminal of any width: what does not fit goes, what is not known says so."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from curbcut.report import top
from curbcut.report.states import RunState, Spent, plain


def row(**changes):
    given_ = {
        "name": "small", "state": "training", "model": "124M", "machine": "here", "step": 10,
        "steps": 40, "tokens": 1000, "loss": 3.21, "bits_per_byte": 1.5, "tokens_per_second": 5e4,
        "mfu": 0.383, "seconds": 100.0, "usd": Spent(0.05, 1.0, 0.5, 2.0, "modelled"),
        "kwh": Spent(0.2, 0.5, 0.2, 1.0, "measured"), "began": 0.0, "updated": 90.0,
        "age_seconds": 3.0, "reason": ""}
    return plain(RunState(**(given_ | changes)))


def drawn(what, width=160):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(what)
    return console.export_text()


def test_a_row_says_what_the_page_says():
    text = drawn(top.runs_table([row()], 160))
    for said in ("● training", "small", "124M", "██░░░░░░  25%", "3.210", "1.500", "50.0 k",
                 "38.3%", "~$0.050 / $1.00", "200 Wh / 500 Wh", "3 s", "~ modelled"):
        assert said in text


def test_what_is_not_known_is_a_dash_and_never_zero():
    bare = row(step=None, loss=None, bits_per_byte=None, tokens_per_second=None, mfu=None,
               usd=Spent(), kwh=Spent(), age_seconds=None, model="", tokens=None, seconds=None)
    line = drawn(top.runs_table([bare], 160)).splitlines()[1]
    assert line.count("–") == 9 and "0" not in line
    assert "nothing was promised" in drawn(top.run_view(bare, [], [], 100))


@pytest.mark.parametrize("width", [30, 50, 70, 90, 110, 130])
def test_columns_that_do_not_fit_go_and_the_name_stays(width):
    rows = [row(), row(name="a-longer-name", state="crashed", reason="no sign of life")]
    lines = drawn(top.runs_table(rows, width), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert "✗ crashed" in lines[2] and "a-lon" in lines[2]
    assert ("model" in lines[0]) is (width >= 130)


def test_one_run_with_its_course():
    events = [{"time": 1e9 + i, "kind": "checkpoint", "body": {"path": f"step-{i}"}}
              for i in range(20)]
    text = drawn(top.run_view(row(state="stopped", reason="SIGTERM"), [4.0, math.nan, 3.0], events,
                              100), 100)
    assert "why      SIGTERM" in text and "█!▁ 4.000 → 3.000" in text
    assert "checkpoint step-19" in text and "checkpoint step-11" not in text
    assert "~$0.050 of $1.00 promised ($0.50 to $2.00)" in text


@pytest.mark.parametrize(("kind", "body", "said"), [
    ("start", {"step": 3, "steps": 9}, "started at step 3 of 9"),
    ("end", {"step": 9, "reason": "SIGTERM"}, "step 9: ended: SIGTERM"),
    ("evaluation", {"step": 2, "bits_per_byte": None}, "step 2: held out – bits/byte"),
    ("trouble", {"what": "spike", "applied": False}, "skipped: spike"),
    ("straggler", {"times": 2.0}, "slowed 2.0 times by one rank"),
    ("forecast", {"seconds": 60.0}, "will end at 60.0 s, promised –"),
    ("launch", {"number": 2, "fault": {"what": "killed"}}, "launch 2 ended: killed"),
    ("launch", {"number": 2, "fault": None, "outcome": "done"}, "launch 2 ended: done"),
    ("note", {"text": "hello"}, "hello"), ("samples", {}, "samples")])
def test_events_in_words(kind, body, said):
    assert top.told(kind, body) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (None, "–"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200000, "2 d")])
def test_ages(seconds, said):
    assert top.ago(seconds) == said


@given(st.lists(st.floats(), min_size=1, max_size=300), st.integers(1, 60))
def test_a_sparkline_keeps_its_spike(values, width):
    drawn_ = top.sparkline(values, width)
    assert len(drawn_) == min(width, len(values))
    known = [value for value in values if math.isfinite(value)]
    assert ("!" in drawn_) is (len(known) < len(values))
    if len(known) == len(values) <= width and max(known) / 2 > min(known) / 2:
        assert "█" in drawn_


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_only_a_run_at_its_end_is_full(step, steps):
    said = top.progress(row(step=min(step, steps), steps=steps))
    assert ("100%" in said) is ("░" not in said) is (step >= steps)
