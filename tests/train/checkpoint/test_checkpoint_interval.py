"""Young's interval from this run's own saves and interruptions; every figure with a fake clock."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.physics import goodput
from curbcut.train.checkpoint.interval import Rhythm, interruptions


@given(d=st.floats(0.01, 100), mean=st.floats(1000, 1e6), n=st.integers(1, 50))
def test_the_interval_is_youngs_of_what_was_measured(d, mean, n):
    rhythm = Rhythm(guessed_seconds=7.0, accelerators=8, interruptions=n)
    rhythm.saved(d)
    assert rhythm.seconds(mean * n) == pytest.approx(max(d, math.sqrt(2 * d * mean)))


def test_before_anything_is_measured_the_guess_and_the_published_rate_count():
    rhythm = Rhythm(guessed_seconds=7.0, accelerators=64)
    published = goodput.interruption_seconds(64)
    assert rhythm.interruption_seconds(1e9) == published
    assert rhythm.seconds(100.0) == pytest.approx(math.sqrt(2 * 7.0 * published))


def test_one_slow_save_does_not_move_it():
    rhythm = Rhythm(7.0, 8, interruptions=1)
    for seconds in (2.0, 2.0, 90.0, 2.0, 2.0, 2.0):
        rhythm.saved(seconds)
    assert rhythm.save_seconds == 2.0


def test_a_run_that_is_killed_all_the_time_still_trains_half_of_it():
    rhythm = Rhythm(7.0, 8, interruptions=1000)
    rhythm.saved(10.0)
    assert rhythm.seconds(1000.0) == 10.0


def lines(path, *kinds, tear=""):
    path.write_text("".join(json.dumps({"kind": kind}) + "\n" for kind in kinds) + tear)


def test_attempts_that_broke_off_are_counted(tmp_path):
    assert interruptions(tmp_path / "none") == 0
    lines(tmp_path / "a.jsonl", "run", "start", "step", "end")
    lines(tmp_path / "b.jsonl", "run", "start", "step", tear='{"kind": "ste')
    lines(tmp_path / "c.jsonl", "run", "start")
    lines(tmp_path / "d.jsonl", "run")
    assert interruptions(tmp_path) == 2
