from __future__ import annotations

import dataclasses
from datetime import date

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curbcut.accounts.money import (
    electricity_price,
    money,
    price_age_days,
    price_warning,
    to_usd,
    write,
    write_with_staff,
)
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import currency
from curbcut.spec import Estimate, Place, measured
from curbcut.units import Money
from tiny import tiny_machine

HOUR = measured(3600.0, "a clock")
KWH = measured(2.0, "a meter")
GPUS = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", accelerators_per_node=8,
                    watts={"max": 700.0})
WAYS = {"on_demand", "reserved_1y", "reserved_3y", "spot", "own", "academic", "epoch_amortised",
        "epoch_acquisition", "epoch_cloud"}


def written(machine=GPUS, place=None, seconds=HOUR, kwh=KWH, today=None) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("kwh.facility", kwh, "kwh")
    write(sheet, machine, place or Place(tenure="rent"), today)
    return sheet


def test_own_rate_of_the_place_is_taken_as_given():
    found = money(GPUS, Place(tenure="rent", usd_per_accelerator_hour=2.5), HOUR, KWH)
    assert found["rent"].value == found["total"].value == 8 * 2.5
    assert "energy" not in found, "a rent includes its electricity"


def test_electricity_at_the_price_nobody_stated_is_a_default_with_its_range():
    found = electricity_price(Place())
    assert (found.value, found.basis) == (0.20, "default")
    assert found.low < 0.1 and 0.38 < found.high < 0.5
    stated = electricity_price(Place(usd_per_kwh=0.31))
    assert (stated.low, stated.value, stated.high, stated.basis) == (0.31, 0.31, 0.31, "given")


def test_a_machine_without_a_price_has_no_rent():
    found = money(tiny_machine(), Place(tenure="rent"), HOUR, KWH)
    assert found["rent"].value is None
    assert found["total"].value is None
    assert "set place.usd_per_accelerator_hour" in found["total"].source


def test_owning_pays_energy_and_the_machines_loss_of_value():
    found = money(GPUS, Place(tenure="own", usd_per_kwh=0.3), HOUR, KWH)
    assert found["energy"].value == pytest.approx(0.6)
    assert found["total"].value == pytest.approx(0.6 + found["ownership"].value)
    assert found["total"].source == "energy + ownership; staff not included"


def test_owning_what_has_no_price_says_so_in_the_total():
    found = money(tiny_machine(), Place(tenure="own"), HOUR, KWH)
    assert found["ownership"].value is None
    assert found["total"].value == found["energy"].value == pytest.approx(0.4)
    assert "ownership not known" in found["total"].source


def test_a_grant_leaves_the_marginal_energy_even_where_people_are_known():
    found = money(GPUS, Place(tenure="academic", staff_fte=2), HOUR, KWH)
    assert set(found) == {"energy", "staff", "total"}
    assert found["total"].value == pytest.approx(0.4)
    assert found["staff"].value > 0


@pytest.mark.parametrize("tenure", ["rent", "own", "academic"])
def test_staff_that_nobody_stated_is_unknown_and_mentioned(tenure):
    found = money(GPUS, Place(tenure=tenure), HOUR, KWH)
    assert found["staff"].value is None
    assert "staff not included" in found["total"].source


@pytest.mark.parametrize("tenure, line", [("rent", "rent"), ("own", "ownership")])
def test_people_who_are_stated_are_in_the_total(tenure, line):
    place = Place(tenure=tenure, staff_fte=0.5)
    found, alone = money(GPUS, place, HOUR, KWH), money(GPUS, Place(tenure=tenure), HOUR, KWH)
    assert found["total"].value == pytest.approx(alone["total"].value + found["staff"].value)
    assert found[line].value == alone[line].value
    assert "not included" not in found["total"].source


@pytest.mark.parametrize("contract", ["on-demand", "reserved-1y", "reserved-3y", "spot"])
def test_the_total_is_that_of_the_contract(contract):
    sheet = written(place=Place(tenure="rent", contract=contract))
    way = sheet.value(f"usd_ways.{contract.replace('-', '_')}")
    assert sheet.value("usd.total") == sheet.value("usd.rent") == way


@pytest.mark.parametrize("tenure", ["rent", "own", "academic"])
def test_every_way_stands_side_by_side_whatever_is_paid(tenure):
    sheet = written(place=Place(tenure=tenure))
    account = sheet.account()
    assert set(account.usd_ways) == WAYS
    for kind, estimate in account.usd_ways.items():
        assert estimate.value is not None, kind
        assert estimate.low < estimate.high or kind in ("academic", "epoch_cloud"), kind
        assert estimate.source, kind
    if tenure != "rent":
        key = "own" if tenure == "own" else "academic"
        assert account.usd_ways[key].value == pytest.approx(account.usd["total"].value)


def test_ways_are_in_the_order_that_markets_have():
    ways = {key: one.value for key, one in written().account().usd_ways.items()}
    assert ways["reserved_3y"] < ways["reserved_1y"] < ways["on_demand"]
    assert ways["academic"] < ways["spot"] < ways["on_demand"]
    assert ways["epoch_amortised"] < ways["epoch_acquisition"]


def test_lines_are_the_same_from_money_and_on_a_sheet():
    place = Place(tenure="own", pue=1.2, staff_fte=1)
    account = written(place=place).account()
    assert dict(account.usd) == dict(money(GPUS, place, HOUR, KWH))


def test_each_line_is_explained_by_what_stands_above_it():
    sheet = written(place=Place(tenure="own", pue=1.2))
    below = {figure.key for figure in sheet.leaves("usd.total")}
    assert below >= {"own.chip_usd", "own.server_ratio", "own.utilisation", "own.capital_charge",
                     "own.hosting_usd_per_kw_month", "place.usd_per_kwh", "seconds.total"}
    assert sheet["own.depreciation_usd"].formula.startswith("machine's price x share lost a year")


def test_without_a_day_epochs_start_is_the_newest_price_and_the_bytes_are_the_same():
    one, again = written(), written()
    assert one.account() == again.account()
    assert one["epoch.years"].estimate.source.endswith("to 2026-11-01")
    later = written(today=date(2027, 11, 1))
    assert later.value("usd_ways.epoch_amortised") < one.value("usd_ways.epoch_amortised")


@settings(max_examples=50, deadline=None)
@drawn(st.floats(1.0, 1e7), st.floats(1.1, 10.0), st.sampled_from(["rent", "own", "academic"]))
def test_money_grows_in_proportion_to_time_and_energy(seconds, factor, tenure):
    place = Place(tenure=tenure, staff_fte=1.0)
    one = money(GPUS, place, measured(seconds, "a"), measured(1.0, "b"))
    more = money(GPUS, place, measured(seconds * factor, "a"), measured(factor, "b"))
    for kind, estimate in one.items():
        assert more[kind].value == pytest.approx(estimate.value * factor)
        assert more[kind].low == pytest.approx(estimate.low * factor)


def test_everything_with_people_is_the_project():
    sheet = written(place=Place(tenure="rent", staff_fte=1))
    sheet.formula("usd.project", "twice", ("usd.total",), lambda usd: 2 * usd, "usd")
    write_with_staff(sheet)
    assert sheet.value("usd_ways.with_staff") == sheet.value("usd.project")


def test_everything_with_people_adds_them_to_a_grants_project():
    sheet = written(place=Place(tenure="academic", staff_fte=1))
    sheet.leaf("usd.project", measured(10.0, "a ledger"), "usd")
    write_with_staff(sheet)
    assert sheet.value("usd_ways.with_staff") == pytest.approx(10 + sheet.value("usd.staff"))


def test_everything_with_people_is_unknown_where_nobody_said_how_many():
    sheet = written()
    sheet.leaf("usd.project", measured(10.0, "a ledger"), "usd")
    write_with_staff(sheet)
    found = sheet["usd_ways.with_staff"].estimate
    assert found.value is None
    assert "place.staff_fte" in found.source


def test_everything_with_people_is_unknown_where_nothing_else_is_known():
    sheet = written(tiny_machine(), Place(tenure="rent", staff_fte=1))
    write_with_staff(sheet)
    assert sheet.value("usd_ways.with_staff") is None


def test_monte_carlo_and_first_order_agree_on_a_rent():
    sheet = written(seconds=Estimate(36_000, 30_000, 45_000))
    first, sampled = sheet.estimates()["usd.total"], sheet.sampled_estimates(20_000)["usd.total"]
    assert sampled.low == pytest.approx(first.low, rel=0.05)
    assert sampled.high == pytest.approx(first.high, rel=0.05)


def test_prices_of_less_than_a_year_warn_of_nothing_and_older_ones_say_their_age():
    rent, day = Place(tenure="rent"), date(2026, 11, 22)
    assert price_age_days(GPUS, rent, day) == 21
    assert price_warning(GPUS, rent, day) == ""
    assert price_age_days(GPUS, rent, date(2028, 11, 1)) == 731
    assert "731 days old" in price_warning(GPUS, rent, date(2028, 11, 1))
    assert price_age_days(GPUS, rent, date(2026, 1, 1)) == 0, "a price of the future is new"


def test_a_price_that_the_person_stated_and_energy_alone_have_no_age():
    day = date(2030, 1, 1)
    assert price_age_days(GPUS, Place(tenure="rent", usd_per_accelerator_hour=2), day) is None
    assert price_age_days(GPUS, Place(tenure="academic"), day) is None
    assert price_age_days(tiny_machine(), Place(tenure="own"), day) is None
    assert price_warning(tiny_machine(), Place(tenure="rent"), day) == ""


def test_an_old_purchase_price_warns_too():
    found = price_warning(GPUS, Place(tenure="own"), date(2026, 11, 22))
    assert "purchase price of h100-sxm-80gb is 629 days old" in found


def test_two_nodes_of_one_price_cost_more_than_twice_for_their_network():
    one = written(place=Place(tenure="own"))
    two = written(dataclasses.replace(GPUS, nodes=2), Place(tenure="own"))
    assert one["own.machine_usd"].inputs[-1] == "own.server_ratio"
    assert two.value("own.machine_usd") == pytest.approx(2 * one.value("own.machine_usd") / 0.81)


def test_other_currencies_become_dollars_and_unknown_ones_name_the_nearest():
    assert to_usd(Money(100.0, "EUR")) == pytest.approx(100 * currency.usd_per("EUR").value)
    assert to_usd(Money(100.0, "USD")) == 100
    with pytest.raises(UnknownName, match="EUR"):
        to_usd(Money(100.0, "EURO"))
