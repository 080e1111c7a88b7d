from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.web.columns import Columns, column, table
from curbcut.web.measures import survivors
from curbcut.web.series import _numbers
from curbcut.web.thinning import thinned
from recorded import Recording

numbers = st.floats(-1e12, 1e12)


@given(st.lists(numbers | st.just(math.nan) | st.just(math.inf), max_size=400), st.integers(4, 60))
def test_few_points_keep_order_ends_and_extremes(values, most):
    values = np.array(values, dtype=float)
    places = thinned(values, most)
    assert len(places) <= most or len(values) <= most
    assert list(places) == sorted(set(places))
    if len(values):
        assert {0, len(values) - 1} <= set(places)
    known = values[~np.isnan(values)]
    if len(known):
        kept = values[places]
        assert np.nanmax(kept) == known.max()
        assert np.nanmin(kept) == known.min()


@given(st.lists(st.integers(0, 30), max_size=60))
def test_what_is_left_after_restarts_rises_and_is_the_last_of_each_step(steps):
    kept = survivors(np.array(steps, dtype=float))
    left = [step for step, keep in zip(steps, kept, strict=True) if keep]
    assert left == sorted(set(left))
    expected = []
    for step in steps:  # a later attempt takes the place of what it does again
        while expected and expected[-1] >= step:
            expected.pop()
        expected.append(step)
    assert left == expected


@given(st.lists(numbers, max_size=20), st.integers(3, 15))
def test_rounded_numbers_are_near_and_short(values, digits):
    for value, rounded in zip(values, _numbers(np.array(values, dtype=float), digits), strict=True):
        assert rounded == pytest.approx(value, rel=10.0 ** (1 - digits), abs=1e-300)


def test_what_is_not_finite_is_null_in_an_answer():
    assert _numbers(np.array([1.0, math.inf, 0.0]), 7) == [1.0, None, 0.0]


anything = (st.none() | numbers | st.integers(-10**400, 10**400) | st.booleans() | st.just([])
            | st.sampled_from(["nan", "inf", "-inf", "x", "1e5"]))


@given(st.lists(st.tuples(anything, anything, anything), max_size=8))
def test_columns_of_a_table_are_those_of_each_field_alone(rows):
    for i, found in enumerate(table(rows, 3)):
        np.testing.assert_array_equal(found, column([row[i] for row in rows]))


def test_nothing_is_not_a_number_and_what_broke_is_infinite():
    found = column([None, "nan", "inf", 1, "x", True, 10**400, 2.5])
    assert np.isnan(found[[0, 4, 5]]).all()
    assert np.isinf(found[[1, 2, 6]]).all()
    assert list(found[[3, 7]]) == [1.0, 2.5]


def one(answer, metric="loss"):
    return next(series for series in answer["series"] if series["metric"] == metric)


def test_a_series_has_all_points_its_unit_and_its_promise(ask, runs):
    Recording(runs, "live").losses([3.0, 2.5, 2.0])
    found = one(ask("/api/series", run="live", metric="loss"))
    assert (found["x"], found["y"], found["total"]) == ([1.0, 2.0, 3.0], [3.0, 2.5, 2.0], 3)
    assert found["unit"] == "nats/token"
    assert found["promised"] == {"value": 2.0, "low": 1.6, "high": 2.5, "basis": "modelled",
                                 "source": "a test", "at_end": True}


@pytest.mark.parametrize(("axis", "x"), [
    ("tokens", [128, 256]), ("usd", [0.01, 0.02]), ("hours", [2.5 / 3600, 3 / 3600]),
    ("kwh", [0.002, 0.004])])
def test_each_axis_is_of_the_run_so_far(ask, runs, axis, x):
    Recording(runs, "live").losses([3.0, 2.5])
    found = ask("/api/series", run="live", metric="loss", x=axis)
    assert one(found)["x"] == pytest.approx(x)
    assert found["x"] == axis


def test_a_spike_of_one_step_among_many_stays(ask, runs):
    losses = [2.0] * 500
    losses[234] = 50.0
    Recording(runs, "live").losses(losses)
    found = one(ask("/api/series", run="live", metric="loss", points=40))
    assert found["total"] == 500
    assert len(found["x"]) <= 40
    assert found["y"][found["x"].index(235)] == 50.0


def test_a_loss_that_broke_is_a_gap_and_what_was_not_recorded_is_nothing(ask, runs):
    Recording(runs, "live").losses([3.0, math.nan, 2.0, None])
    found = one(ask("/api/series", run="live", metric="loss"))
    assert (found["x"], found["y"]) == ([1.0, 2.0, 3.0], [3.0, None, 2.0])


def test_with_a_cursor_only_new_points_come_and_nothing_twice(ask, runs):
    live = Recording(runs, "live").losses([3.0, 2.5])
    first = ask("/api/series", run="live", metric=["loss", "bits_per_byte"])
    again = ask("/api/series", run="live", metric=["loss", "bits_per_byte"], after=first["cursor"])
    assert again == {**first, "series": []}
    live.losses([2.0], 3).write("evaluation", step=3, bits_per_byte=1.2, nats_per_token=2.1)
    second = ask("/api/series", run="live", metric=["loss", "bits_per_byte"], after=first["cursor"])
    assert (one(second)["x"], one(second)["append"]) == ([3.0], True)
    assert one(second, "bits_per_byte")["y"] == [1.2]
    assert "promised" not in one(second)


def test_steps_that_a_later_attempt_did_again_take_the_place_of_the_first(ask, runs):
    live = Recording(runs, "live").losses([3.0, 2.5, 9.0])
    first = ask("/api/series", run="live", metric="loss")
    Recording(runs, "live", step=2, now=live.now + 5).losses([2.2, 2.1], 3)
    second = one(ask("/api/series", run="live", metric="loss", after=first["cursor"]))
    assert not second["append"]
    assert (second["x"], second["y"]) == ([1, 2, 3, 4], [3.0, 2.5, 2.2, 2.1])
    by_time = one(ask("/api/series", run="live", metric="loss", x="hours"))
    assert by_time["y"] == [3.0, 2.5, 9.0, 2.2, 2.1]


def test_lines_that_arrive_late_begin_the_series_anew(ask, runs, site):
    late = Recording(runs, "live", now=1e9)
    Recording(runs, "live", now=2e9, step=2).losses([2.0], 3)
    first = ask("/api/series", run="live", metric="loss")
    late.losses([5.0, 4.0])
    second = ask("/api/series", run="live", metric="loss", after=first["cursor"])
    assert (one(second)["y"], one(second)["append"]) == ([5.0, 4.0, 2.0], False)
    assert second["cursor"].startswith("1-")


def test_derived_metrics(ask, runs):
    Recording(runs, "live").losses([3.0, 2.5, 2.0])
    found = ask("/api/series", run="live", metric=["tokens_per_second", "watts", "usd"])
    assert one(found, "tokens_per_second")["y"] == [256.0] * 3
    assert one(found, "watts")["y"] == pytest.approx([0.002 * 3.6e6 / 0.5] * 2)
    assert one(found, "usd")["y"] == [0.01, 0.02, 0.03]


def test_evaluations_stand_where_their_steps_do_on_each_axis(ask, runs):
    live = Recording(runs, "live").losses([3.0, 2.5])
    live.write("evaluation", step=2, bits_per_byte=1.0, nats_per_token=2.0)
    for axis, x in (("step", 2), ("tokens", 256), ("usd", 0.02)):
        assert one(ask("/api/series", run="live", metric="bits_per_byte", x=axis),
                   "bits_per_byte")["x"] == pytest.approx([x])


def test_a_record_without_money_has_no_points_on_that_axis(ask, runs):
    live = Recording(runs, "live")
    live.writer.write("step", {"step": 1, "loss": 3.0})
    assert one(ask("/api/series", run="live", metric="loss", x="usd"))["total"] == 0
    assert one(ask("/api/series", run="live", metric="loss"))["total"] == 1


@pytest.mark.parametrize(("query", "status", "said"), [
    ({}, 400, "no run"), ({"run": "live"}, 400, "no metric"),
    ({"run": "live", "metric": "los"}, 404, "'loss'"),
    ({"run": "live", "metric": "loss", "x": "stp"}, 404, "'step'"),
    ({"run": "live", "metric": "loss", "points": "0"}, 400, "from 4"),
    ({"run": "live", "metric": "loss", "points": "9" * 30}, 400, "from 4"),
    ({"run": "live", "metric": "loss", "points": "²"}, 400, "from 4"),
    ({"run": "live", "metric": "loss", "after": "1"}, 400, "leave it out"),
    ({"run": "live", "metric": "loss", "after": "1-2-3.1-2-3"}, 400, "leave it out"),
    ({"run": "other", "metric": "loss"}, 404, "known"),
])
def test_what_may_not_be_asked_is_said(ask, runs, query, status, said):
    Recording(runs, "live").losses([3.0])
    error = ask("/api/series", status, **query)["error"]
    assert said in error["what"] + error["mend"]


def test_columns_that_were_not_used_for_longest_go_first(site, runs):
    for name in ("a", "b", "c"):
        Recording(runs, name).losses([2.0] * 100)
    site.look()
    ledger = site.ledger()
    kept = Columns(most_bytes=2 * Columns().of(ledger, "a", 1).bytes)
    for name in ("a", "b", "a", "c"):
        kept.of(ledger, name, 1)
    assert set(kept._kept) == {"a", "c"}
    assert kept.of(ledger, "b", 1).generation == 0


def test_only_new_lines_are_read(site, runs, monkeypatch):
    from curbcut.web import columns

    live = Recording(runs, "live").losses([2.0] * 50)
    site.look()
    site.columns.of(site.ledger(), "live", 1)
    live.losses([1.0], 51)
    site.look()
    sizes = []
    right = columns._frame
    monkeypatch.setattr(columns, "_frame", lambda kind, times, bodies: (
        sizes.append(len(times)), right(kind, times, bodies))[1])
    assert len(site.columns.of(site.ledger(), "live", 2).frames["step"]) == 51
    assert sizes == [1]
