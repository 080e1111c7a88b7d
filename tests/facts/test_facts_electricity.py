from __future__ import annotations

import pytest

from curbcut.accounts.money import electricity_price
from curbcut.errors import UnknownName
from curbcut.facts import currency, electricity, grid, table
from curbcut.plan.resolve import place_of
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import Place


def test_every_price_is_of_a_zone_of_the_grid_with_its_source():
    found = electricity.prices()
    assert len(found) > 80 and len({one.zone for one in found}) == len(found)
    for one in found:
        assert grid.figures(one.zone)[0].kind in ("country", "state")
        assert 0.02 < one.low <= one.usd <= one.high < 0.6
        assert one.source and one.year >= 2022


def test_euros_are_dollars_at_the_rate_of_the_facts():
    rate = currency.usd_per("EUR").value
    assert electricity.price("IRL").usd == pytest.approx(0.2556 * rate, rel=1e-3)
    assert electricity.price("US-CA").usd == pytest.approx(0.2391)


@pytest.mark.parametrize(("zone", "of"), [
    ("fr", "FRA"), ("SE3", "SWE"), ("US-WY", "USA"), ("US-TX", "US-TX"),
    ("aws:us-east-1", "USA")])
def test_a_region_without_a_price_has_its_countrys(zone, of):
    assert electricity.price(zone).zone == of


def test_unknown_prices_are_none_and_unknown_zones_an_error():
    assert electricity.price("world") is None
    assert electricity.price("CHN") is None
    with pytest.raises(UnknownName, match="FRA"):
        electricity.price("FRX")


def test_an_own_table_goes_before_ours(tmp_path, monkeypatch):
    (tmp_path / "electricity.csv").write_text(
        "zone,price,low,high,currency,year,note,source,date\n"
        "FRA,0.05,,,USD,2026,,my contract,2026-01-01\n")
    monkeypatch.setattr(table, "overlay_folder", lambda: tmp_path)
    assert electricity.price("FRA").usd == 0.05
    assert electricity.price("DEU").usd > 0.1


def test_a_place_has_its_zones_price_unless_somebody_said_another():
    placed = place_of(Draft().with_raw({"place": {"zone": "SWE"}}, "test"))
    usd = placed.get("place.usd_per_kwh")
    assert usd == pytest.approx(electricity.price("SWE").usd, abs=1e-4)
    assert "Eurostat" in placed.origins["place.usd_per_kwh"]
    said = place_of(Draft().with_raw({"place": {"zone": "SWE", "usd_per_kwh": 0.3}}, "test"))
    assert said.get("place.usd_per_kwh") == 0.3
    assert place_of(Draft()).get("place.usd_per_kwh") is None
    estimate = electricity_price(Place(zone="SWE", usd_per_kwh=usd))
    assert estimate.low < usd < estimate.high and "Eurostat" in estimate.source
    assert electricity_price(Place(zone="SWE", usd_per_kwh=0.3)).low == 0.3
