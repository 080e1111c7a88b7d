"""Who is at fault: judged from exit codes and last beats alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.launch import pulse, watch
from curbcut.launch.pulse import ENDING, WAITS, Beat
from curbcut.launch.watch import Ended, Patience

PIDS = {0: 100, 1: 101, 2: 102}
PATIENCE = Patience(silent_seconds=10.0, stuck_seconds=60.0)
BROKEN = "RuntimeError: [...pair.cc:553] Connection closed by peer [127.0.0.1]:1"


def beat(rank, *, step=7, phase="steps", moved=100.0, at=100.0, seconds=0.1, here=7):
    return Beat(rank, f"host{rank}", PIDS[rank], 1, step, phase, here, moved, at, 0.0, seconds)


def judged(ended):
    return watch.ended_by(ended, {rank: beat(rank) for rank in PIDS}, PIDS, "me")


def test_signal_outweighs_the_errors_that_it_caused():
    fault = judged({0: Ended(1, BROKEN), 1: Ended(-9), 2: Ended(1, BROKEN)})
    assert (fault.rank, fault.what, fault.pid) == (1, "killed by SIGKILL", 101)
    assert str(fault) == "rank 1 (pid 101 on host1) at step 7: killed by SIGKILL"


def test_own_error_outweighs_broken_connections_and_aborts():
    fault = judged({0: Ended(-6), 1: Ended(1, BROKEN), 2: Ended(1, "ValueError: no")})
    assert (fault.rank, fault.kind, fault.what) == (2, "failed", "ValueError: no")
    assert judged({0: Ended(-6), 1: Ended(1, BROKEN)}).rank == 0


def test_ends_in_order_are_no_fault():
    assert judged({0: Ended(0), 1: Ended(75)}) is None
    assert judged({0: Ended(3)}).what == "left with exit code 3"


def hangs(beats, now, states=None, since=0.0):
    return watch.hangs({one.rank: one for one in beats}, states or {}, PIDS, now, since,
                       PATIENCE, "me")


def test_silent_rank_is_named_and_waiting_ones_are_not():
    beats = [beat(0, at=111.0), beat(1, at=100.0), beat(2, at=111.0)]
    assert hangs(beats, 109.0, {1: "T"}) is None
    fault = hangs(beats, 111.0, {1: "T"})
    assert (fault.kind, fault.rank) == ("hung", 1) and "SIGSTOP" in fault.what
    assert hangs(beats, 111.0) is None, "a process that is not stopped may be starved of its core"
    assert hangs(beats, 131.0).rank == 1


def test_silence_before_the_watch_itself_woke_does_not_count():
    beats = [beat(0), beat(1), beat(2)]
    assert hangs(beats, 1000.0, since=995.0) is None


def test_long_steps_are_waited_for():
    beats = [beat(0, seconds=30.0), beat(1, at=390.0, seconds=30.0)]
    assert hangs(beats, 395.0, {0: "T"}) is None
    assert hangs(beats, 401.0, {0: "T"}).rank == 0


@pytest.mark.parametrize("beats, rank", [
    ([(0, 7, "steps"), (1, 6, "steps")], 1),
    ([(0, 7, "steps"), (1, 7, "data")], 1),
    ([(0, 7, WAITS), (1, 7, "other")], 1),
    ([(0, 7, "steps"), (1, 7, "evaluation")], None),
    ([(0, 7, "steps"), (1, 7, ENDING)], None),
])
def test_rank_that_is_furthest_behind_is_the_stuck_one(beats, rank):
    lively = [beat(one, step=step, phase=phase, at=199.0) for one, step, phase in beats]
    assert hangs(lively, 150.0) is None
    fault = hangs(lively, 200.0)
    assert (fault and fault.rank) == rank


def test_first_step_may_compile_for_long():
    assert hangs([beat(0, at=199.0, here=0), beat(1, at=199.0)], 200.0) is None


@given(st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=8), st.data())
def test_one_rank_of_equals_that_is_five_times_slower_is_found_and_no_other(own, data):
    usual = own[0]
    seconds = [usual] * len(own)
    slow = data.draw(st.integers(0, len(own) - 1))
    assert watch.slow(seconds) == []
    seconds[slow] *= 5
    ((rank, factor),) = watch.slow(seconds)
    assert rank == slow and factor == pytest.approx(5)
    assert watch.slow([0.0] * len(own)) == [], "next to no work tells nothing"


def test_pulse_says_where_a_rank_is_to_the_very_step(tmp_path):
    place = [3, "data"]
    one = pulse.Pulse(tmp_path / "ranks", 1, 2, every_seconds=60.0)
    one.where = lambda: tuple(place)
    one.start()
    assert pulse.read(tmp_path / "ranks", 1, attempt=1) is None
    found = pulse.read(tmp_path / "ranks", 1, attempt=2)
    assert (found.step, found.phase, found.steps_here, found.step_seconds) == (3, "data", 0, None)
    one.stepped(4, 0.25)
    assert pulse.read(tmp_path / "ranks", 1, attempt=2).step == 4
    place[:] = [4, "steps"]
    one.stop()
    last = pulse.read(tmp_path / "ranks", 1, attempt=2)
    assert (last.phase, last.steps_here, last.step_seconds) == ("steps", 1, 0.25)
    assert last.moved_seconds >= found.moved_seconds


def test_damaged_pulse_is_none(tmp_path):
    pulse.path_of(tmp_path, 0).write_text("{")
    assert pulse.read(tmp_path, 0, 1) is None
    pulse.path_of(tmp_path, 0).write_text(json.dumps({"rank": 0}))
    assert pulse.read(tmp_path, 0, 1) is None
