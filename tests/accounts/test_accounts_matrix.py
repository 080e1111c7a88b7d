"""Money by who pays (tenure) and how it is rented (contract): each pair, and the laws they keep.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curbcut.accounts.money import money, write
from curbcut.accounts.rent import CONTRACTS, rent_price, write_rent
from curbcut.accounts.sheet import Sheet
from curbcut.spec import Estimate, Place, measured
from tiny import tiny_machine

TENURES = ("rent", "own", "academic")
PAIRS = list(product(TENURES, CONTRACTS))
HOUR, KWH = measured(3600.0, "a clock"), measured(10.0, "a meter")
GPUS = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", accelerators_per_node=8,
                    watts={"max": 700.0})
CPU = tiny_machine()
WAY = {"own": "own", "academic": "academic"} | {
    one: one.replace("-", "_") for one in CONTRACTS}


def sheet_of(place, machine=GPUS, seconds=HOUR, kwh=KWH) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("kwh.facility", kwh, "kwh")
    write(sheet, machine, place)
    return sheet


@pytest.mark.parametrize(("tenure", "contract"), PAIRS)
def test_the_total_is_its_lines_and_the_way_of_who_pays(tenure, contract):
    sheet = sheet_of(Place(tenure=tenure, contract=contract, pue=1.2))
    usd, ways = sheet.account().usd, sheet.account().usd_ways
    lines = {"rent": {"rent"}, "own": {"energy", "ownership"}, "academic": {"energy"}}[tenure]
    assert set(usd) == lines | {"staff", "total"}
    assert usd["total"].value == pytest.approx(sum(usd[line].value for line in lines))
    way = ways[WAY[contract if tenure == "rent" else tenure]]
    assert way.value == pytest.approx(usd["total"].value)
    assert (way.low, way.high) == pytest.approx((usd["total"].low, usd["total"].high))


@pytest.mark.parametrize("tenure", ["own", "academic"])
def test_a_contract_of_rent_changes_nothing_for_who_rents_nothing(tenure):
    found = [sheet_of(Place(tenure=tenure, contract=contract)).account().usd
             for contract in CONTRACTS]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(("tenure", "contract"), PAIRS)
def test_the_other_ways_are_the_same_whoever_pays(tenure, contract):
    ways = sheet_of(Place(tenure=tenure, contract=contract)).account().usd_ways
    assert ways == sheet_of(Place()).account().usd_ways


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_stated_rate_moves_its_own_contract_and_no_other(contract):
    place = Place(tenure="rent", contract=contract)
    book = sheet_of(place).account().usd_ways
    stated = sheet_of(replace(place, usd_per_accelerator_hour=0.01)).account().usd_ways
    moved = {kind for kind in book if stated[kind] != book[kind]}
    assert moved == {WAY[contract]}
    assert stated[WAY[contract]].value >= 8 * 0.01 - 1e-12, "spot pays for lost time on top"


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_stated_rate_prices_a_machine_that_no_book_has(contract):
    place = Place(tenure="rent", contract=contract, usd_per_accelerator_hour=1.5)
    sheet = sheet_of(place, CPU)
    assert sheet.value("usd.total") == sheet.value(f"usd_ways.{WAY[contract]}")
    assert sheet.value("usd.total") >= 1.5
    others = [sheet.value(f"usd_ways.{WAY[one]}") for one in CONTRACTS if one != contract]
    assert others == [None] * 3


@pytest.mark.parametrize(("tenure", "contract"), PAIRS)
def test_a_price_of_electricity_moves_only_who_pays_for_it(tenure, contract):
    place = Place(tenure=tenure, contract=contract, usd_per_kwh=0.1)
    cheap, dear = (sheet_of(one).value("usd.total") for one in (
        place, replace(place, usd_per_kwh=0.4)))
    assert dear - cheap == pytest.approx(0.0 if tenure == "rent" else 0.3 * 10)


@pytest.mark.parametrize(("tenure", "contract"), PAIRS)
def test_unknown_time_is_an_unknown_total_with_its_reason(tenure, contract):
    found = money(GPUS, Place(tenure=tenure, contract=contract),
                  Estimate(None, source="no clock"), Estimate(None, source="no power"))
    assert found["total"].value is None
    assert found["total"].source in ("no clock", "no power") or "price" in found["total"].source
    assert all(one.value is None for one in found.values())


@pytest.mark.parametrize(("tenure", "contract"), PAIRS)
def test_no_time_costs_nothing(tenure, contract):
    found = money(GPUS, Place(tenure=tenure, contract=contract, staff_fte=2),
                  measured(0.0, "a clock"), measured(0.0, "a meter"))
    assert {one.value for one in found.values()} == {0.0}


@settings(max_examples=30, deadline=None)
@drawn(st.sampled_from(PAIRS), st.floats(1.0, 1e7), st.floats(1.0, 3.0), st.floats(0.0, 1e5),
       st.floats(0.0, 5.0), st.integers(1, 64))
def test_every_line_lies_in_its_interval_and_the_whole_is_no_less_than_its_largest(
        pair, seconds, spread, kwh, people, nodes):
    tenure, contract = pair
    found = money(replace(GPUS, nodes=nodes),
                  Place(tenure=tenure, contract=contract, staff_fte=people, pue=1.3),
                  Estimate(seconds, seconds / spread, seconds * spread), measured(kwh, "a meter"))
    for kind, one in found.items():
        assert one.value is None or 0 <= one.low <= one.value <= one.high, kind
        if kind != "total" and one.value is not None and not (
                kind == "staff" and tenure == "academic"):
            assert found["total"].value >= one.value * (1 - 1e-12), kind


@settings(max_examples=30, deadline=None)
@drawn(st.sampled_from(CONTRACTS), st.floats(1.0, 1e6), st.floats(1.0, 20.0),
       st.sampled_from(["h100-sxm-80gb", "a100-sxm-80gb", "rtx-4090", "tpu-v5e"]))
def test_a_longer_rent_is_dearer_in_proportion_with_its_interval(contract, seconds, factor, name):
    machine = tiny_machine(kind="gpu", accelerator=name)
    ends = []
    for time in (seconds, factor * seconds):
        sheet = Sheet()
        sheet.leaf("seconds.total", measured(time, "a clock"), "seconds")
        write_rent(sheet, machine, Place(tenure="rent"), contract, "usd.rent")
        ends.append(sheet.estimates()["usd.rent"])
    for end in ("low", "value", "high"):
        assert getattr(ends[1], end) == pytest.approx(factor * getattr(ends[0], end))


@pytest.mark.parametrize("name", ["h100-sxm-80gb", "a100-sxm-80gb", "rtx-4090", "tpu-v4", "gb200"])
def test_prices_by_contract_are_ordered_at_every_end_that_they_have(name):
    machine = tiny_machine(kind="gpu", accelerator=name)
    found = {one: rent_price(machine, Place(tenure="rent"), one) for one in CONTRACTS}
    if found["on-demand"].value is None:
        assert all(one.value is None for one in found.values())
        return
    for one in found.values():
        assert 0 < one.low <= one.value <= one.high and one.source
    assert found["reserved-3y"].value <= found["reserved-1y"].value <= found["on-demand"].value


def test_people_cost_the_same_whoever_pays_for_the_machine():
    found = {money(GPUS, Place(tenure=tenure, contract=contract, staff_fte=1.5), HOUR, KWH)["staff"]
             for tenure, contract in PAIRS}
    assert len(found) == 1


def test_who_rents_and_said_nothing_is_told_to_state_a_rate_in_every_contract():
    for contract in CONTRACTS:
        found = money(CPU, Place(tenure="rent", contract=contract), HOUR, KWH)
        assert found["total"].value is None
        assert "place.usd_per_accelerator_hour" in found["total"].source, contract
