"""Buying and place: contracts, providers, grids, buildings, hours; each sets the place alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.facts import constants, grid, prices
from curbcut.plan.levers import buying
from curbcut.plan.levers.case import Case, Refusal, Taught
from curbcut.spec.estimate import Estimate
from plan.plan_lever_samples import aim, fleet
from tiny import tiny_run

RENTED = (buying.spot, buying.reserved, buying.cheapest_provider)


@pytest.fixture(scope="module")
def case():
    return Case(fleet())


def only(case, after, *names):
    kept = {name: getattr(case.run.place, name) for name in names}
    return replace(after.run, place=replace(after.run.place, **kept)) == case.run


def test_spot_is_cheaper_an_hour_and_takes_no_less_time(case):
    found = buying.spot(case, aim())
    assert only(case, found, "contract") and found.run.place.contract == "spot"
    before, after = case.sheet(), found.sheet()
    assert after.value("seconds.total") >= before.value("seconds.total")
    assert after.value("usd.total") < before.value("usd.total")
    assert buying.spot(found, aim()).why == "already on"


@pytest.mark.parametrize("lever", RENTED)
@pytest.mark.parametrize("tenure", ["own", "academic"])
def test_what_is_not_rented_has_no_contract(lever, tenure):
    case = Case(fleet()).with_place(tenure=tenure)
    assert lever(case, aim()).why == f"the machine is not rented (tenure {tenure})"


@pytest.mark.parametrize("lever", RENTED)
def test_a_rate_of_ones_own_is_not_changed_behind_ones_back(lever):
    own = Case(fleet()).with_place(usd_per_accelerator_hour=1.5)
    assert "place.usd_per_accelerator_hour" in lever(own, aim()).why


def test_reserving_needs_a_project_as_long_as_the_contract():
    hours = 8766.0
    case = Case(fleet("8xH100", "1T"))
    assert f"binds for {hours:,.0f} h" in buying.reserved(case, aim()).why
    # The same run within a project of forty like it is long enough for a year.
    project = Estimate(40.0, 30.0, 50.0, "measured", "the ledger")
    taught = replace(case, taught=Taught(project=project))
    found = buying.reserved(taught, aim())
    assert only(taught, found, "contract")
    tried = {one: aim().price(taught.with_place(contract=one))
             for one in ("reserved-1y", "reserved-3y")}
    assert found.run.place.contract == min(tried, key=tried.get)
    assert buying.reserved(found, aim()).why == "already on"
    said = case.with_run(replace(case.run, train=replace(case.run.train, development=40.0)))
    assert isinstance(buying.reserved(said, aim()), Case)


def test_the_cheapest_provider_is_the_books_and_keeps_its_contract(case):
    found = buying.cheapest_provider(case, aim())
    assert only(case, found, "usd_per_accelerator_hour")
    offers = [one for one in prices.rents(case.run.machine.accelerator, "on-demand")
              if one.provider not in buying.SINGLE_HOSTS]
    cheapest = min(offers, key=lambda one: one.usd_per_hour)
    assert found.run.place.usd_per_accelerator_hour == cheapest.usd_per_hour
    assert cheapest.provider in found.changed[-1] and cheapest.date in found.changed[-1]
    spot = case.with_place(contract="spot")
    assert buying.cheapest_provider(spot, aim()).why == "bought by contract (spot)"


def test_a_book_without_a_choice_of_prices_says_so(case):
    machine = replace(case.run.machine, accelerator="my-own-chip")
    mine = case.with_run(replace(case.run, machine=machine))
    assert buying.cheapest_provider(mine, aim()).why == "the price book has 0 price of my-own-chip"
    assert buying.cheapest_rent(machine) is None


def test_rented_cost_goes_with_the_rate(case):
    found = buying.cheapest_provider(case, aim())
    hours = found.sheet().value("seconds.total") / 3600
    rent = found.run.place.usd_per_accelerator_hour * found.run.machine.accelerators
    assert found.sheet().value("usd.rent") == pytest.approx(rent * hours, rel=1e-6)


def test_the_cleanest_region_sets_the_zone_and_no_energy(case):
    found = buying.place(case, aim("kg"))
    assert only(case, found, "zone")
    regions = [one for one in grid.zones() if one.kind == "cloud region"]
    least = min(one.gco2e_per_kwh for one in regions)
    assert grid.intensity(found.run.place.zone).gco2e_per_kwh == least
    before, after = case.sheet(), found.sheet()
    for key in ("kwh.facility", "seconds.total", "usd.total"):
        assert after.value(key) == before.value(key)
    assert after.value("kgco2e.operational") == pytest.approx(
        before.value("kgco2e.operational") * least
        / grid.intensity(case.run.place.zone).gco2e_per_kwh)
    assert buying.place(found, aim("kg")).why.startswith("already on: no cleaner region")


def test_a_better_building_lessens_what_is_around_the_node_alone(case):
    found = buying.better_building(case, aim("kwh"))
    assert only(case, found, "pue")
    wanted = constants.constant("pue_hyperscaler").value
    assert found.run.place.pue == wanted < case.run.place.pue
    before, after = case.sheet(), found.sheet()
    assert after.value("kwh.node") == before.value("kwh.node")
    assert after.value("kwh.facility") / before.value("kwh.facility") == pytest.approx(
        wanted / case.run.place.pue)
    good = case.with_place(pue=wanted - 0.02)
    assert buying.better_building(good, aim()).why.startswith("already on: a PUE of")


def test_the_machine_at_hand_stands_where_it_stands():
    here = Case(replace(tiny_run(), place=replace(tiny_run().place, tenure="own")))
    for lever in (buying.place, buying.better_building):
        assert lever(here, aim("kg")).why == "the machine stands where it stands"
    assert isinstance(buying.place(here.with_place(tenure="rent"), aim("kg")), Case)


def test_hours_that_are_chosen_are_left(case):
    chosen = case.with_place(hours="8-16")
    assert buying.clean_hours(chosen, aim("kg")).why == "already on: 8-16"


def test_hours_without_a_profile_are_refused_by_zone(case):
    german = case.with_place(zone="DEU")
    found = buying.clean_hours(german, aim("kg"))
    assert isinstance(found, Refusal) and "DEU" in found.why and "grid_hours.csv" in found.why


def test_hours_across_midnight(case, tmp_path, monkeypatch):
    rows = [f"FRA,{hour},{20 if hour >= 22 or hour < 6 else 90},my meter,2026-01-01"
            for hour in range(24)]
    (tmp_path / "grid_hours.csv").write_text(
        "\n".join(["zone,hour,gco2e_per_kwh,source,date", *rows]) + "\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    french = case.with_place(zone="FRA")
    found = buying.clean_hours(french, aim("kg"))
    assert found.run.place.hours == "22-6" and only(french, found, "hours")
    assert aim("kg").price(found) < aim("kg").price(french)
    assert aim("usd").price(found) == aim("usd").price(french)
