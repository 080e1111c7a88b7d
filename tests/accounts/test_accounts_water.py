from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts import water
from curbcut.errors import UnknownName
from curbcut.spec import Place, measured


def litres(place, kwh=100.0):
    return water.litres(place, measured(kwh, "meter"))["water"]


def test_a_data_centre_is_power_plants_and_cooling_of_its_computers():
    assert litres(Place(zone="USA", pue=1.25)).value == pytest.approx(100 * 3.14 + 80 * 0.36)


def test_a_desk_evaporates_nothing_itself():
    assert litres(Place(zone="USA")).value == pytest.approx(314)
    assert water.site_litres(Place()).value == 0


def test_the_interval_is_that_of_the_sources():
    found = litres(Place(zone="USA"))
    assert (found.low, found.high) == pytest.approx((180, 452))
    germany = water.grid_litres(Place(zone="DEU"))
    assert germany.high / germany.value == pytest.approx(452 / 314)


@pytest.mark.parametrize(("zone", "same_as"), [
    ("US-CA", "USA"), ("SE3", "SWE"), ("CA-QC", "CAN"), ("gcp:europe-west9", "FRA"),
    ("us-east-1", "USA"), ("gcp:asia-northeast3", "KOR")])
def test_a_part_of_a_country_has_its_countrys_figure(zone, same_as):
    assert litres(Place(zone=zone)).value == litres(Place(zone=same_as)).value


@pytest.mark.parametrize("zone", ["ABW", "gcp:me-central2"])
def test_where_no_source_says_it_is_unknown_and_says_so(zone):
    found = litres(Place(zone=zone, pue=1.2))
    assert found.value is None and "no source for the water" in found.source


def test_an_unknown_zone_names_the_nearest():
    with pytest.raises(UnknownName, match="Germany"):
        litres(Place(zone="Germny"))


def test_an_own_figure_counts(own_home):
    (own_home / "facts").mkdir()
    (own_home / "facts" / "water.csv").write_text(
        "scope,zone,litres_per_kwh,source,date\ngrid,ABW,1.5,utility,2026\n")
    assert litres(Place(zone="Aruba")).value == pytest.approx(150)


@settings(max_examples=40)
@given(st.floats(0, 1e6), st.floats(1, 10), st.sampled_from(["USA", "FRA", "BRA", "world"]))
def test_more_energy_is_never_less_water(kwh, factor, zone):
    assert litres(Place(zone=zone), kwh).value <= litres(Place(zone=zone), kwh * factor).value
