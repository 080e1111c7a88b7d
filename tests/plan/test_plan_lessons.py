from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.lessons import Belief, Measured, learn

BELIEF = Belief({"a": 0.4, "b": 0.2}, noise=0.05, apart=0.1)


def of(ratio, a=1.0, b=0.0, methods="plain"):
    return Measured(math.log(ratio), {"a": a, "b": b}, methods)


def test_without_runs_there_is_no_lesson():
    assert learn([], BELIEF) is None


def test_one_run_moves_the_constant_that_it_hangs_on_alone():
    found = learn([of(1.5)], BELIEF)
    assert found.constant("a").value > 1.4
    assert found.constant("b").value == 1.0
    assert found.constant("b").high == pytest.approx(math.exp(2.5 * 0.2))
    assert found.of({"b": 1.0}, "another").value == 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(-1, 1), st.floats(-1, 1),
                          st.sampled_from(["x", "y"])), min_size=1, max_size=8))
def test_it_is_the_regression_that_linear_algebra_says(rows):
    """With the weights and noise that it settled on, which the diagonal it inverted holds."""
    runs = [Measured(ratio, {"a": a, "b": b}, methods) for ratio, a, b, methods in rows]
    found = learn(runs, BELIEF)
    inverse = np.array(found.inverse)
    slopes = np.array([[one.slopes["a"], one.slopes["b"]] for one in runs])
    same = np.array([[one.methods == other.methods for other in runs] for one in runs])
    prior = slopes @ np.diag([0.16, 0.04]) @ slopes.T + 0.01 * same
    diagonal = np.linalg.inv(inverse) - prior
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-6)
    assert np.diag(diagonal).min() > 0
    asked = np.array([0.5, -0.5])
    shared = slopes @ np.diag([0.16, 0.04]) @ asked + 0.1 ** 2 * np.array(
        [one.methods == "x" for one in runs])
    middle = shared @ inverse @ np.array([one.log_ratio for one in runs])
    assert math.log(found.of({"a": 0.5, "b": -0.5}, "x").value) == pytest.approx(middle, abs=1e-9)


@pytest.mark.parametrize("ratio", [20.0, 1 / 20])
def test_what_no_constant_is_off_by_moves_every_recipe_alike(ratio):
    """A machine that is busy, or whose probe was wrong, is not taken for a sick run."""
    found = learn([of(ratio)], BELIEF)
    assert found.of({"a": 1.0}, "plain").value == pytest.approx(ratio, rel=0.1)
    assert abs(math.log(found.of({}, "another").value / ratio)) == pytest.approx(math.log(2))
    assert 0.5 < found.constant("a").value < 2.0


def test_a_sick_run_among_three_bends_little():
    assert learn([of(1.5), of(1.52), of(9.0)], BELIEF).of({"a": 1.0}, "plain").value < 1.7


def test_scattered_runs_widen_what_is_left():
    def width(*ratios):
        factor = learn([of(ratio) for ratio in ratios], BELIEF).of({"a": 1.0}, "plain")
        return factor.high / factor.low

    assert width(1.5, 1.5, 1.5) < width(1.5) < width(1.0, 1.5, 2.2)
    assert width(*[1.5] * 12) < width(1.5, 1.5, 1.5)
