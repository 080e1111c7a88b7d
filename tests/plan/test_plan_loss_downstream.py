"""Benchmark proxies against what was published of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import UnknownName
from curbcut.facts.downstream import proxies
from curbcut.plan.loss import downstream

NAMES = [one.name for one in proxies()]


def test_the_published_curve_at_a_known_loss():
    # 0.857 - 2.21 exp(-0.715 L) with L = 1.84 + 166 / N^0.272 + 287.6 / D^0.272, by hand.
    loss = 1.84 + 166 / 6.9e9 ** 0.272 + 287.6 / 138e9 ** 0.272
    error = 0.857 - 2.21 * 2.718281828 ** (-0.715 * loss)
    assert downstream.top1_error(6.9e9, 138e9) == pytest.approx(error)
    # Between the errors of their small and large models (figures 1 and 3: 0.45 to 0.80).
    assert 0.40 < error < 0.50
    assert 0.70 < downstream.top1_error(10.6e6, 211e6) < 0.85


@settings(max_examples=50)
@given(size=st.floats(1e6, 1e12), tokens=st.floats(1e7, 1e14), more=st.floats(1.01, 100),
       name=st.sampled_from(NAMES))
def test_error_falls_with_size_and_tokens(size, tokens, more, name):
    here = downstream.top1_error(size, tokens, name)
    assert downstream.top1_error(size * more, tokens, name) <= here
    assert downstream.top1_error(size, tokens * more, name) <= here
    found = downstream.accuracy(size, tokens, name)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_interval_is_wider_outside_the_runs():
    inside, outside = (downstream.accuracy(*run) for run in ((1.4e9, 9e11), (4e11, 1.5e13)))
    assert "widened" in outside.source and "widened" not in inside.source
    assert (1 - outside.low) / (1 - outside.high) > (1 - inside.low) / (1 - inside.high)


def test_arrays_and_unknown_names():
    many = downstream.top1_error(np.array([1e8, 1e9]), 1e11)
    assert many[1] == pytest.approx(downstream.top1_error(1e9, 1e11))
    with pytest.raises(UnknownName, match="top1-error-17"):
        downstream.accuracy(1e9, 1e11, "mmlu")
