"""The figures of a run's record, as all that show them understand them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from curbcut.train import lines

VALUES = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-10**6, 10**6), st.text())


def test_a_step_says_what_follows_from_it():
    found = lines.figures("step", {"step": 4, "tokens": 400, "step_seconds": 0.5, "loss": 2,
                                   "seconds": {"steps": 3000, "data": 600}, "joules": None})
    assert found == {"loss": 2, "tokens": 400, "step_seconds": 0.5, "tokens_per_second": 200,
                     "seconds": 3600, "hours": 1}


def test_only_steps_and_evaluations_have_figures():
    assert lines.figures("beat", {"loss": 1.0}) == {}
    assert lines.figures("evaluation", {"bits_per_byte": 1.5}) == {"bits_per_byte": 1.5}


@given(st.dictionaries(st.sampled_from([*lines.UNITS, "step"]), VALUES), VALUES)
def test_no_line_makes_a_figure_that_is_none(body, seconds):
    found = lines.figures("step", body | {"seconds": {"steps": seconds}})
    assert set(found) <= set(lines.UNITS)
    assert all(math.isfinite(value) and not isinstance(value, bool) for value in found.values())
