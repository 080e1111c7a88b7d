from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.serve.bench.load import Closed, Open, rates, users


def test_how_loads_are_written():
    assert users("1,4, 16") == [Closed(1), Closed(4), Closed(16)]
    assert users("1..16") == [Closed(1, 16)]
    assert rates("0.5,2") == [Open(0.5), Open(2)] and rates("1..8") == [Open(1, 8)]
    assert [str(one) for one in (Closed(1), Closed(2, 4), Open(0.5, 2))] == [
        "1 user", "2..4 users", "0.5..2 requests/s"]


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "4..2", "4..4", "1e9", "99999999", "1,"])
def test_what_is_no_number_of_users(text):
    with pytest.raises(InputError, match="--users"):
        users(text)


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "1..0", "9999999", "nan", "inf"])
def test_what_is_no_rate(text):
    with pytest.raises(InputError, match="--rate"):
        rates(text)


@example(50.0, 49.99999999999999, 0)
@given(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(0, 9))
def test_arrivals_rise_and_stay_inside(first, last, seed):
    found = Open(first, last).arrivals(seed, 3.0)
    assert found == sorted(found) and all(0 < when <= 3.0 for when in found)
    assert found == Open(first, last).arrivals(seed, 3.0)


@pytest.mark.parametrize(("load", "expected"), [(Open(50), 5000), (Open(20, 80), 5000),
                                                (Open(80, 20), 5000)])
def test_so_many_come_as_the_rate_says(load, expected):
    found = load.arrivals(1, 100.0)
    assert len(found) == pytest.approx(expected, rel=0.05)
    early = sum(when < 50 for when in found) / len(found)
    # Of a rate that rises from a to b, (3a + b) / 4 of (a + b) / 2 come in the first half.
    share = (3 * load.rate + (load.to or load.rate)) / 4 / (load.rate + (load.to or load.rate))
    assert early == pytest.approx(share, abs=0.03)


def test_gaps_of_chance_vary_as_much_as_their_mean():
    found = Open(10).arrivals(2, 1e9, 5000)
    gaps = [b - a for a, b in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.1, rel=0.05) and spread == pytest.approx(mean, rel=0.1)


def test_users_of_a_ramp_join_one_after_another():
    assert Closed(3).joins(9) == [0, 0, 0]
    assert Closed(1, 3).joins(9) == [0, 3, 6]
    assert Closed(1, 3).most == 3
