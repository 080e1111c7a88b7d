"""Whose joules: nothing is lost between readings, and the counter has the last word."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.serve.metering.split import LATE_SECONDS, Part, Split


def run_steps(split, steps, watts=100.0):
    for end, seconds, shares in steps:
        split.step("m", shares, end, seconds, watts)


def test_a_counter_scales_what_was_modelled():
    split = Split(0.0, idle_watts=10.0)
    run_steps(split, [(0.5, 0.5, {1: 0.5, 2: 0.5}), (1.0, 0.5, {1: 1.0})])
    split.finish(1.0, 150.0)  # the model says 100 J
    found = {who: part.joules for who in (1, 2) for _, part in [split.take(("m", who))]}
    assert found == {1: pytest.approx(112.5), 2: pytest.approx(37.5)}
    assert split.counted == Part(150.0, 1.0) and split.idle.joules == 0
    assert split.take(("m", 1)) is None


def test_rest_is_nobodys():
    split = Split(0.0, idle_watts=10.0)
    split.reading(8.0, 40.0)  # at rest it draws 5 W, not 10
    run_steps(split, [(9.0, 1.0, {1: 1.0})])
    split.finish(10.0, 5.0 + 80.0)
    assert split.idle == Part(pytest.approx(45.0), pytest.approx(9.0))
    assert split.take(("m", 1))[1].joules == pytest.approx(80.0)


def test_what_was_settled_early_leaves_a_correction():
    split = Split(0.0, idle_watts=10.0)
    run_steps(split, [(1.0, 1.0, {1: 1.0})])
    live, part = split.take(("m", 1))
    assert part.joules == 100.0 and not live.measured  # nothing is known of the counter yet
    split.finish(1.0, 130.0)
    assert split.scale == pytest.approx(1.3) and split.under_way() == Part(0.0, 0.0)
    assert split.counted.joules - part.joules == pytest.approx(30.0)


def test_a_step_that_runs_across_a_reading_is_no_rest():
    split = Split(0.0, idle_watts=10.0)
    split.reading(1.0, 100.0)
    run_steps(split, [(2.0, 2.0, {1: 1.0})])
    split.reading(2.0, 100.0)
    assert split.counted.joules == 0  # not before late steps have come
    split.reading(2.0 + LATE_SECONDS, 30.0)
    assert split.take(("m", 1))[1].joules == pytest.approx(200.0)


def test_steps_of_two_models_share_the_machines_time():
    split = Split(0.0, idle_watts=0.0)
    for model, end, seconds in (("a", 1.0, 1.0), ("b", 1.5, 1.0)):
        split.step(model, {1: 1.0}, end, seconds, 50.0)
    split.finish(2.0, 100.0)
    taken = [split.take((model, 1)) for model in "ab"]
    assert sum(part.seconds for _, part in taken) == pytest.approx(1.5)
    assert [live.engine_seconds for live, _ in taken] == [1.0, 1.0]
    assert split.idle.seconds == pytest.approx(0.5)


def test_without_a_counter_the_model_stands_for_it():
    split = Split(0.0, idle_watts=10.0)
    run_steps(split, [(1.0, 1.0, {1: 1.0})])
    split.finish(2.0, None)
    assert split.counted.joules == pytest.approx(110.0) and split.uncounted == 1
    live, part = split.take(("m", 1))
    assert part.joules == pytest.approx(100.0) and not live.measured


def test_a_stretch_with_hardly_a_step_teaches_nothing_wild():
    split = Split(0.0, idle_watts=10.0)
    run_steps(split, [(1.0, 1.0, {1: 1.0})])
    split.reading(1.0, 100.0)
    run_steps(split, [(1.501, 0.001, {2: 1.0})])
    split.finish(2.0, 90.0)  # something else drew it
    assert split.scale == pytest.approx(1.0)
    assert split.take(("m", 2))[1].joules <= 4 * 0.1 + 1e-9


@st.composite
def stories(draw):
    """Steps end to end, readings and takings in between, as a server has them."""
    now, told = 0.0, []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["step", "step", "step", "read", "rest", "take"]))
        if kind == "step":
            seconds = draw(st.floats(0.001, 2.0))
            now += seconds
            tickets = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True))
            told.append(("step", now, seconds, tickets))
        elif kind == "read":
            now += 0.01
            told.append(("read", now, draw(st.one_of(st.none(), st.floats(0, 500))), []))
        elif kind == "rest":
            now += draw(st.floats(0.1, 5.0))
        else:
            told.append(("take", now, draw(st.integers(1, 4)), []))
    return told, now + 0.5


@given(stories(), st.floats(0, 100))
def test_nothing_is_given_twice_or_forgotten(story, last):
    told, end = story
    split, given_, counted = Split(0.0, idle_watts=20.0), Part(), last
    for kind, now, value, tickets in told:
        if kind == "step":
            split.step("m", dict.fromkeys(tickets, 1 / len(tickets)), now, value, 80.0)
        elif kind == "read":
            split.reading(now, value)
            counted = None if counted is None or value is None else counted + value
        elif (found := split.take(("m", value))) is not None:
            given_.add(found[1].joules, found[1].seconds)
    split.finish(end, last)
    under_way = split.under_way()
    assert split.live or (under_way.joules, under_way.seconds) == (0.0, 0.0)
    for who in split.old(math.inf):
        part = split.take(who)[1]
        given_.add(part.joules, part.seconds)
        under_way.add(-part.joules, -part.seconds)
    assert under_way.joules == pytest.approx(0.0, abs=1e-6)
    assert split.counted.seconds == pytest.approx(end)
    assert 0 <= split.idle.joules <= split.counted.joules + 1e-9
    assert given_.joules >= 0 and given_.seconds >= 0
    if counted is not None:
        assert split.counted.joules == pytest.approx(counted)
