"""Laws of what is owned, of people, of made hardware, of water and of hours of the day."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curbcut.accounts import embodied, hours, staff, water
from curbcut.accounts.convert import inverse, known
from curbcut.accounts.energy import device_watts
from curbcut.accounts.ownership import SOCKET_KW, rated_kw, write_ownership
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import accelerators
from curbcut.physics import power
from curbcut.spec import Estimate, Place, measured, unknown
from tiny import tiny_machine

HALL = Place(tenure="own", pue=1.3)
NODE = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", accelerators_per_node=8,
                    watts={"max": 700.0}, memory_bytes=80 * 2**30)
PRICED = [one.id for one in accelerators.accelerators() if one.purchase_usd]
seconds = st.floats(1.0, 1e8)


def owned(machine=NODE, place=HALL, time=3600.0, use=None, spread=1.0) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", Estimate(time, time / spread, time * spread), "seconds")
    if use is not None:
        sheet.leaf("own.utilisation", measured(use, "a log"), "fraction")
    write_ownership(sheet, machine, place, "usd.ownership")
    return sheet


@settings(max_examples=30, deadline=None)
@drawn(seconds, st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_busier_machine_is_never_dearer_an_hour(time, one, other):
    idle, busy = sorted((one, other))
    dear, cheap = (owned(time=time, use=use).value("usd.ownership") for use in (idle, busy))
    assert cheap <= dear * (1 + 1e-12)
    assert cheap * busy == pytest.approx(dear * idle), "what it loses is shared by hours of use"


@settings(max_examples=30, deadline=None)
@drawn(seconds, st.floats(1.0, 50.0))
def test_a_longer_run_uses_up_that_much_more_in_every_part(time, factor):
    once, longer = owned(time=time), owned(time=factor * time)
    for key in ("own.years", "own.depreciation_usd", "own.hosting_usd", "usd.ownership"):
        assert longer.value(key) == pytest.approx(factor * once.value(key)), key
    assert longer.value("own.machine_usd") == once.value("own.machine_usd")


@settings(max_examples=30, deadline=None)
@drawn(st.integers(1, 64), st.integers(1, 64))
def test_more_nodes_are_never_cheaper_and_a_network_is_bought_once_there_are_two(few, many):
    few, many = sorted((few, many))
    prices = [owned(replace(NODE, nodes=nodes)).value("own.machine_usd") for nodes in (few, many)]
    assert prices[0] <= prices[1]
    each = [price / nodes for price, nodes in zip(prices, (few, many), strict=True)]
    if few > 1 or many == 1:
        assert each[0] == pytest.approx(each[1])
    else:
        assert each[1] > 1.1 * each[0]


def test_two_nodes_have_a_network_and_one_has_none():
    assert "own.network_share" in owned(replace(NODE, nodes=2))
    assert "own.network_share" not in owned(NODE)


@pytest.mark.parametrize("name", PRICED)
def test_every_priced_accelerator_has_a_cost_of_owning_with_an_interval(name):
    found = owned(tiny_machine(kind="gpu", accelerator=name, watts={"max": 300.0})).estimates()
    cost = found["usd.ownership"]
    assert 0 < cost.low < cost.value < cost.high and math.isfinite(cost.high)
    assert cost.basis == "modelled" and "$" in cost.source


@settings(max_examples=30, deadline=None)
@drawn(st.floats(1.0, 5000.0), st.integers(1, 16))
def test_room_is_free_only_at_a_desk_that_a_socket_feeds(watts, count):
    machine = replace(NODE, accelerators_per_node=count, watts={"max": watts})
    desk = owned(machine, Place(tenure="own")).value("own.hosting_usd")
    assert (desk == 0) == (rated_kw(machine).value <= SOCKET_KW)
    assert owned(machine).value("own.hosting_usd") > 0, "a hall always asks for room"


def test_a_wider_time_widens_what_is_owned():
    sure, unsure = (owned(spread=spread).estimates()["usd.ownership"] for spread in (1.0, 3.0))
    assert unsure.low < sure.low < sure.value == unsure.value < sure.high < unsure.high


def test_written_twice_the_machine_stands_once():
    sheet = owned()
    before = len(sheet.figures)
    write_ownership(sheet, NODE, HALL, "usd_ways.own")
    assert len(sheet.figures) == before + 1
    assert sheet.value("usd_ways.own") == sheet.value("usd.ownership")


# --- people -------------------------------------------------------------------------------------

def people(place, time=3600.0):
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(time, "a clock"), "seconds")
    staff.write(sheet, place)
    return sheet.estimates()["usd.staff"]


@settings(max_examples=30, deadline=None)
@drawn(st.floats(0.01, 100.0), st.floats(1.0, 10.0), seconds)
def test_people_cost_in_proportion_to_heads_and_time(heads, factor, time):
    one = people(Place(staff_fte=heads), time)
    for more in (people(Place(staff_fte=heads * factor), time),
                 people(Place(staff_fte=heads), time * factor)):
        for end in ("low", "value", "high"):
            assert getattr(more, end) == pytest.approx(factor * getattr(one, end))


def test_a_stated_year_is_exact_and_a_salary_of_the_facts_is_not():
    stated = people(Place(staff_fte=1, staff_usd_per_year=87_660.0))
    assert stated.value == pytest.approx(10.0) and stated.low == stated.high
    assumed = people(Place(staff_fte=1))
    assert assumed.low < assumed.value < assumed.high


def test_a_year_that_nobody_works_is_not_asked_for():
    assert not people(Place(staff_usd_per_year=1e5)).known, "how many is still not said"


# --- made hardware ------------------------------------------------------------------------------

def made(machine, time=3600.0):
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(time, "a clock"), "seconds")
    embodied.write(sheet, machine)
    return sheet.estimates()["kgco2e.embodied"]


@settings(max_examples=30, deadline=None)
@drawn(seconds, st.floats(1.0, 20.0), st.integers(1, 8), st.integers(1, 32))
def test_what_is_used_up_of_making_goes_by_time_and_count(time, factor, each, nodes):
    one = made(replace(NODE, accelerators_per_node=1), time)
    longer = made(replace(NODE, accelerators_per_node=1), factor * time)
    many = made(replace(NODE, accelerators_per_node=each, nodes=nodes), time)
    for end in ("low", "value", "high"):
        assert getattr(longer, end) == pytest.approx(factor * getattr(one, end))
        assert getattr(many, end) == pytest.approx(each * nodes * getattr(one, end))


@pytest.mark.parametrize("name", [one.id for one in accelerators.accelerators()])
def test_every_accelerator_of_the_facts_was_made_of_something(name):
    found = made(tiny_machine(kind="gpu", accelerator=name, memory_bytes=16 * 2**30))
    assert 0 < found.low < found.value < found.high and found.source
    assert found.basis == "modelled"


@settings(max_examples=30, deadline=None)
@drawn(st.integers(1, 512), st.integers(2**30, 2**42), st.integers(2, 8))
def test_a_larger_processor_or_memory_is_never_lighter(cores, memory, factor):
    machine = tiny_machine(cores=cores, host_memory_bytes=memory)
    one = embodied.processor_kg(machine)
    assert 0 < one.low <= one.value <= one.high
    for more in (replace(machine, cores=cores * factor),
                 replace(machine, host_memory_bytes=memory * factor)):
        found = embodied.processor_kg(more)
        assert all(getattr(found, end) >= getattr(one, end) for end in ("low", "value", "high"))


def test_two_cpu_nodes_are_made_twice():
    assert made(tiny_machine(nodes=2)).value == pytest.approx(2 * made(tiny_machine()).value)


def test_more_memory_on_a_chip_is_a_heavier_floor():
    small, large = (embodied.act_kg("h100-sxm-80gb", size * 2**30) for size in (80, 160))
    assert small.value < large.value and small.basis == "modelled"
    with pytest.raises(UnknownName):
        embodied.act_kg("abacus", 2**30)
    with pytest.raises(UnknownName, match="Taiwan"):
        embodied.die_kg(800, 5, "Taiwn")


def test_a_fab_on_a_dirtier_grid_makes_a_heavier_die():
    assert embodied.die_kg(800, 5, "SWE").value < embodied.die_kg(800, 5).value < embodied.die_kg(
        800, 5, "ZAF").value


def test_a_bill_of_nothing_weighs_nothing_and_adds_up():
    assert embodied.bill_kg([]) == 0
    assert embodied.bill_kg([(2, 3), (4, 5)]) == 26


# --- water --------------------------------------------------------------------------------------

ZONES = ("USA", "FRA", "DEU", "BRA", "world")


@settings(max_examples=30, deadline=None)
@drawn(st.floats(0.0, 1e6), st.floats(1.0, 2.0), st.sampled_from(ZONES))
def test_a_hall_evaporates_no_less_than_a_desk(kwh, pue, zone):
    desk, hall = (water.litres(Place(zone=zone, pue=one), measured(kwh, "a meter"))["water"]
                  for one in (1.0, pue))
    assert hall.value >= desk.value * (1 - 1e-12)
    assert desk.low <= desk.value <= desk.high and hall.low <= hall.value <= hall.high


@settings(max_examples=30, deadline=None)
@drawn(st.floats(1.01, 3.0), st.floats(1.0, 2.0))
def test_cooling_is_of_the_computers_alone(pue, worse):
    """The same computers in a worse building: power plants see all of it, cooling only them."""
    node = 100.0
    good, bad = (water.litres(Place(zone="USA", pue=one), measured(node * one, "a meter"))[
        "water"].value for one in (pue, pue * worse))
    plants = water.grid_litres(Place(zone="USA")).value
    assert bad - good == pytest.approx(plants * node * pue * (worse - 1), abs=1e-9)


def test_unknown_energy_is_unknown_water():
    found = water.litres(Place(zone="USA"), unknown("no power is known"))["water"]
    assert not found.known and found.source == "no power is known"


# --- hours of the day ---------------------------------------------------------------------------

@settings(max_examples=40, deadline=None)
@drawn(st.integers(0, 24), st.integers(0, 24))
def test_hours_of_a_day_are_in_a_row_and_none_is_twice(first, last):
    found = hours.of_day(f"{first}-{last}")
    assert found[0] == first % 24 and found[-1] == (last - 1) % 24
    assert all((one + 1) % 24 == other for one, other in pairwise(found))
    assert 1 <= len(found) == len(set(found)) <= 24
    place = Place(hours=f" {first} - {last} ")
    assert hours.stretch(place) * len(found) == pytest.approx(24)


def test_a_window_says_its_hours_as_a_place_takes_them(own_home):
    folder = own_home / "facts"
    folder.mkdir()
    rows = [f"FRA,{hour},{hour},meter,2026" for hour in range(24)]
    (folder / "grid_hours.csv").write_text("\n".join(
        ["zone,hour,gco2e_per_kwh,source,date", *rows]) + "\n")
    for count in (1, 5, 23, 24):
        best = hours.best_window(Place(zone="FRA"), count)
        again = hours.window(Place(zone="FRA", hours=best.hours))
        assert again == best
        assert best.gco2e_per_kwh == pytest.approx((count - 1) / 2), "the first hours are cleanest"
    assert hours.window(Place(zone="DEU", hours="1-2")) is None


# --- small parts --------------------------------------------------------------------------------

@settings(max_examples=30, deadline=None)
@drawn(st.floats(1e-6, 1e6), st.floats(1.0, 10.0))
def test_the_inverse_of_an_inverse_is_itself(value, spread):
    one = Estimate(value, value / spread, value * spread, "default", "a table")
    found = inverse(one)
    assert found.low <= found.value <= found.high
    assert (found.basis, found.source) == ("default", "a table")
    back = inverse(found)
    assert (back.value, back.low, back.high) == pytest.approx((one.value, one.low, one.high))


def test_the_inverse_of_what_is_not_known_is_not_known():
    nothing = unknown("no meter")
    assert inverse(nothing) is nothing


def test_a_constant_carries_its_interval_its_name_and_its_source():
    found = known("pue_world")
    assert found.low < found.value < found.high and found.source.startswith("pue_world: ")
    with pytest.raises(UnknownName, match="pue_world"):
        known("pue_wrld")


@settings(max_examples=30, deadline=None)
@drawn(st.floats(0, 1), st.floats(0, 1))
def test_a_server_draws_what_its_work_says_and_never_more_than_it_may(compute, memory):
    work = power.Busy(compute=compute, memory=memory, link=0.0, serving=True)
    found = device_watts(NODE, shares=work)
    assert 0 < found.low <= found.value <= found.high <= 8 * 700 * (1 + 1e-9)
    rest = device_watts(NODE, shares=power.Busy(compute=0.0, memory=0.0, link=0.0, serving=True))
    assert rest.value <= found.value * (1 + 1e-12)
    assert "busy" in found.source
