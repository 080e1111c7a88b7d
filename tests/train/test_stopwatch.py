from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.meter.clock import FakeClock
from curbcut.train.stopwatch import Stopwatch


def watch():
    clock, booked = FakeClock(), {}

    def book(kind, seconds):
        booked[kind] = booked.get(kind, 0.0) + seconds

    return clock, booked, Stopwatch(clock, book)


def test_a_block_inside_another_takes_its_time_from_it():
    clock, booked, one = watch()
    clock.advance(1.0)
    with one.timed("evaluation"):
        clock.advance(2.0)
        with one.timed("checkpoint"):
            clock.advance(4.0)
        clock.advance(8.0)
    one.rest("other")
    clock.advance(16.0)
    one.lap()
    assert booked == {"start": 1.0, "evaluation": 10.0, "checkpoint": 4.0, "other": 16.0}


@given(st.lists(st.tuples(st.sampled_from(["in", "out", "lap"]), st.floats(0, 100)), max_size=30))
def test_the_kinds_add_up_to_all_that_passed(moves):
    clock, booked, one = watch()
    open_blocks = []
    for n, (move, seconds) in enumerate(moves):
        clock.advance(seconds)
        if move == "in":
            open_blocks.append(one.timed(f"kind {n % 4}"))
            open_blocks[-1].__enter__()
        elif move == "out" and open_blocks:
            open_blocks.pop().__exit__(None, None, None)
        else:
            one.lap()
    while open_blocks:
        open_blocks.pop().__exit__(None, None, None)
    one.lap()
    assert sum(booked.values()) == pytest.approx(clock.seconds())
    assert all(seconds >= 0 for seconds in booked.values())


def test_an_error_in_a_block_is_timed_too():
    clock, booked, one = watch()
    with pytest.raises(RuntimeError), one.timed("steps"):
        clock.advance(3.0)
        raise RuntimeError
    clock.advance(1.0)
    one.lap()
    assert booked == {"steps": 3.0, "start": 1.0}


def test_what_was_before_the_watch_can_belong_to_it():
    clock, booked, _ = watch()
    clock.advance(5.0)
    late = Stopwatch(clock, lambda kind, seconds: booked.update({kind: seconds}))
    late.since(2.0)
    late.lap()
    assert booked == {"start": 3.0}
