"""A cap pays where energy is what is paid for, and never where time is dear."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts.power_limits import (
    Hour,
    best_limit,
    curve,
    least_energy,
    point,
    rent_that_forbids,
)

RENTED = Hour(usd_per_hour=2.95, usd_per_kwh=0.10, rated_watts=700, draw=0.74, host_watts=150,
              pue=1.2)


def test_an_hour_without_a_cap_costs_its_rent_and_its_energy():
    found = point(RENTED, 1.0)
    assert found.kwh == pytest.approx(1.2 * (0.7 * 0.74 + 0.15))
    assert found.usd == pytest.approx(2.95 + 0.10 * found.kwh)
    assert found.seconds == 1


def test_a_rented_accelerator_is_never_worth_capping():
    assert best_limit(RENTED).limit == 1.0
    assert rent_that_forbids(RENTED) < 0.5


def test_an_owned_one_is_worth_it_where_only_energy_counts():
    owned = replace(RENTED, usd_per_hour=0.0)
    best = best_limit(owned)
    assert 0.5 < best.limit < 0.8 and best.usd < 0.9 * point(owned, 1.0).usd
    assert best == least_energy(owned)


def test_dear_electricity_brings_a_cap_back():
    assert best_limit(replace(RENTED, usd_per_hour=0.3, usd_per_kwh=0.6)).limit < 1.0


def test_time_that_costs_the_host_too_makes_caps_milder():
    bare = replace(RENTED, host_watts=0.0)
    assert least_energy(bare).limit <= least_energy(replace(RENTED, host_watts=400)).limit


@settings(max_examples=40)
@given(rent=st.floats(0, 20), price=st.floats(0, 2), draw=st.floats(0.3, 1.0),
       accelerator=st.sampled_from(["", "v100", "a40"]))
def test_the_best_is_no_dearer_than_none_and_falls_with_rent(rent, price, draw, accelerator):
    hour = Hour(usd_per_hour=rent, usd_per_kwh=price, rated_watts=300, draw=draw,
                accelerator=accelerator)
    best = best_limit(hour)
    assert best.usd <= point(hour, 1.0).usd
    assert best.limit <= best_limit(replace(hour, usd_per_hour=rent + 1)).limit


@settings(max_examples=40)
@given(price=st.floats(0.02, 2), draw=st.floats(0.4, 1.0))
def test_from_the_forbidding_rent_no_cap_pays(price, draw):
    hour = replace(RENTED, usd_per_kwh=price, draw=draw)
    edge = rent_that_forbids(hour)
    above = replace(hour, usd_per_hour=edge * 1.001 + 1e-9)
    assert best_limit(above).usd == pytest.approx(point(above, 1.0).usd, rel=1e-9)
    if edge > 0:
        assert best_limit(replace(hour, usd_per_hour=edge * 0.9)).limit < 1.0


def test_the_curve_is_in_the_order_of_its_limits():
    assert [one.limit for one in curve(RENTED, (1.0, 0.5, 0.7))] == [1.0, 0.5, 0.7]
