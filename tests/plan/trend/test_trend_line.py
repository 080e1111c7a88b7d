"""Least squares against numbers that others state."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.trend.line import fit, student, year_of


@pytest.mark.parametrize(("share", "freedom", "quantile"), [
    (0.975, 43, 2.0167), (0.975, 10, 2.2281), (0.95, 5, 2.0150), (0.975, 3, 3.1824)])
def test_quantiles_of_student_are_those_of_the_tables(share, freedom, quantile):
    assert student(share, freedom) == pytest.approx(quantile, rel=3e-3)
    if freedom >= 10:
        assert student(share, freedom) == pytest.approx(quantile, abs=1e-4)


def test_slope_interval_and_r2_are_those_of_the_text_book():
    years = [2000.0, 2001.0, 2002.0, 2003.0, 2004.0]
    logs = [0.1, 0.9, 2.2, 2.9, 3.9]
    line = fit(years, [10 ** each for each in logs])
    slope, intercept = np.polyfit(np.array(years) - 2002, logs, 1)
    left = np.array(logs) - intercept - slope * (np.array(years) - 2002)
    error = math.sqrt(left @ left / 3 / 10)
    assert line.slope == pytest.approx(slope, rel=1e-12)
    assert line.high - line.slope == pytest.approx(3.1824 * error, rel=3e-3)
    assert line.r_squared == pytest.approx(1 - left @ left / np.var(logs) / 5, rel=1e-9)
    assert line.doubling_years == pytest.approx(math.log10(2) / slope)


def test_an_exact_line_is_found_and_extrapolated_as_such():
    years = [2010.0 + i for i in range(8)]
    line = fit(years, [3.0 * 2.0 ** (year - 2010) for year in years])
    assert line.growth.value == pytest.approx(2.0)
    assert line.growth.high == pytest.approx(2.0)
    assert line.at(2020.0).value == pytest.approx(3.0 * 2.0 ** 10)
    assert line.at(2020.0).source == "extrapolated" and line.at(2012.0).source == "line"
    assert line.factor(2012.0, 2014.0).value == pytest.approx(4.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 1e6), min_size=6, max_size=20), st.floats(1e-3, 1e3))
def test_another_unit_moves_the_line_and_not_its_slope(values, factor):
    years = [2015 + 0.5 * i for i in range(len(values))]
    line, other = fit(years, values), fit(years, [factor * each for each in values])
    assert other.slope == pytest.approx(line.slope, abs=1e-9)
    assert other.low <= other.slope <= other.high
    middle = line.at(line.origin)
    assert other.at(line.origin).value == pytest.approx(factor * middle.value)
    # The line is surest in the middle of its points.
    far = line.at(line.last + 5)
    assert far.high / far.value >= middle.high / middle.value - 1e-9


@pytest.mark.parametrize(("years", "values"), [
    ([2020.0] * 9, [1.0] * 9), ([2020.0, 2021.0, 2022.0, 2023.0], [1.0, 2.0, 3.0, 4.0])])
def test_too_little_is_no_trend(years, values):
    assert fit(years, values) is None


def test_days_are_parts_of_their_year():
    assert year_of(date(2024, 1, 1)) == 2024.0
    assert year_of(date(2024, 7, 1)) == pytest.approx(2024.497, abs=1e-3)
    assert year_of(date(2023, 12, 31)) < 2024.0
