"""Epoch's approaches on days before the first price and after the last, and for chips that only
have a part of what they need.
"""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curbcut.accounts import epoch as approaches
from curbcut.accounts import epoch_prices, epoch_run
from curbcut.accounts.epoch import three
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError, UnknownName
from curbcut.facts import epoch, prices
from curbcut.facts.epoch import Chip
from curbcut.spec import measured
from tiny import tiny_machine

FIRST = min(date.fromisoformat(one.date) for one in prices.history())
LAST = max(date.fromisoformat(one.date) for one in prices.history())
V100 = epoch.chip("NVIDIA Tesla V100 DGXS 32 GB")
AWS = ("aws", "google", "azure", "lambda")
DAYS = st.dates(date(2010, 1, 1), date(2040, 12, 31))


def chip(**changes) -> Chip:
    plain = {"name": "Abacus", "kind": "gpu", "released": date(2022, 1, 1), "fp32_flops": None,
             "fp16_flops": None, "tf32_flops": None, "fp16_tensor_flops": None, "int8_ops": None,
             "tdp_watts": 300.0, "source": "a test"}
    return Chip(**(plain | changes))


def model(**changes):
    return dataclasses.replace(epoch.model("GPT-3 175B (davinci)"), **changes)


def test_before_the_first_price_a_rent_is_the_first_there_was():
    early = epoch_prices.rent(V100, FIRST - timedelta(days=4000), AWS)
    assert early is not None
    own = [one for one in prices.history() if one.vendor == early.vendor
           and early.note.startswith(one.hardware)]
    assert early.date == min(date.fromisoformat(one.date) for one in own)


def test_after_the_last_price_a_rent_is_the_newest_there_is():
    late = epoch_prices.rent(V100, LAST + timedelta(days=4000), AWS)
    own = [date.fromisoformat(one.date) for one in prices.history()
           if one.vendor == late.vendor and late.note.startswith(f"{one.hardware},")]
    assert late.date == max(own)
    assert late == epoch_prices.rent(V100, LAST + timedelta(days=40_000), AWS)


@settings(max_examples=40, deadline=None)
@drawn(DAYS, DAYS)
def test_a_rent_never_goes_back_in_time(one, other):
    early, late = sorted((one, other))
    first, second = (epoch_prices.rent(V100, day, AWS) for day in (early, late))
    assert first.date <= second.date
    assert second.date <= late or second.date == first.date, "a price of the future only for want"
    assert 0 < first.usd_per_hour < 10


@pytest.mark.parametrize("name", [one.name for one in epoch.chips()])
def test_every_chip_has_a_price_from_when_it_could_be_had_or_none(name):
    one = epoch.chip(name)
    found = epoch_prices.purchase(one)
    if found is None:
        return
    assert found.available >= one.released
    assert 100 < found.usd / found.server_ratio < found.usd < 1e6
    assert found.note


@pytest.mark.parametrize(("name", "why"), [
    ("Abacus", "of no family"), ("Google TPU v1", "of a kind with a price")])
def test_a_chip_of_no_family_has_no_price(name, why):
    kind = "tpu" if "TPU" in name else "gpu"
    found = epoch_prices.purchase(chip(name=name, kind=kind))
    assert (found is None) == (kind == "gpu"), why


def test_a_tpu_whose_price_nobody_worked_out_has_none():
    assert epoch_prices.purchase(chip(name="Google TPU v9", kind="tpu")) is None
    assert epoch_prices.rent(chip(name="Google TPU v9", kind="tpu"), LAST, ("google",)) is None


@pytest.mark.parametrize(("organisations", "kind", "first"), [
    (("Google DeepMind",), "gpu", "google"), (("OpenAI",), "gpu", "azure"),
    (("Microsoft", "NVIDIA"), "gpu", "azure"), (("Meta AI",), "gpu", "aws"), ((), "gpu", "aws"),
    (("OpenAI",), "tpu", "google")])
def test_an_organisation_rents_of_its_own_cloud_first(organisations, kind, first):
    order = epoch_prices.vendors(organisations, kind)
    assert order[0] == first
    assert order == ("google",) if kind == "tpu" else sorted(order) == sorted(
        epoch_prices.VENDORS)


def test_a_model_of_before_producer_prices_is_refused_with_the_months():
    with pytest.raises(InputError, match="1995-03") as caught:
        three(model(published=date(1995, 3, 1), training_start=date(1995, 1, 1)))
    assert "2000-12" in caught.value.mend


def test_a_chip_that_is_used_before_it_is_sold_has_lost_no_value():
    found = three(model(training_start=date(2012, 1, 1)))
    assert found.chip_value_usd == found.purchase.usd


@settings(max_examples=40, deadline=None)
@drawn(st.dates(date(2012, 1, 1), date(2035, 1, 1)), st.integers(0, 3000))
def test_a_later_start_never_costs_more_capital(start, days):
    one, later = (three(model(training_start=day)).amortised for day in (
        start, start + timedelta(days=days)))
    for part in ("chips", "server", "network"):
        assert later.parts[part] <= one.parts[part] * (1 + 1e-12)
    assert later.parts["energy"] == one.parts["energy"]


@settings(max_examples=30, deadline=None)
@drawn(st.floats(1.0, 1e7), st.floats(1.0, 100.0))
def test_twice_the_chip_hours_cost_twice(hours, factor):
    one, more = three(model(chip_hours=hours)), three(model(chip_hours=hours * factor))
    for way in ("amortised", "cloud"):
        assert more.way(way).usd == pytest.approx(factor * one.way(way).usd)
    assert more.acquisition.usd == one.acquisition.usd, "all are bought however long they run"


def test_training_begins_where_it_is_known_and_else_is_counted_back():
    day = date(2022, 5, 1)
    assert approaches.training_start(model(training_start=day)) == day
    ended = approaches.training_start(model(training_start=None, training_end=day, hours=25.0))
    assert ended == date(2022, 4, 29), "the second day is begun"
    exact = approaches.training_start(model(training_start=None, training_end=day, hours=24.0))
    assert exact == date(2022, 4, 30)
    lag = int(epoch.constant("publication_lag_days").value)
    published = approaches.training_start(model(
        training_start=None, training_end=None, published=day, hours=24.0))
    assert published == day - timedelta(days=lag + 1)


@pytest.mark.parametrize(("changes", "hours", "basis"), [
    ({"chip_hours": 5.0}, 5.0, "reported"),
    ({"chip_hours": None, "hours": 10.0, "quantity": 8.0}, 80.0, "time x quantity"),
    ({"chip_hours": None, "hours": None, "quantity": 8.0, "compute_flops": 3.6e18,
      "utilisation": 0.5}, 3.6e18 / (0.5 * 1e15) / 3600, "compute / (peak x utilisation)"),
    ({"chip_hours": None, "hours": 10.0, "quantity": None, "compute_flops": None}, None, "none")])
def test_chip_hours_are_taken_from_the_best_that_is_known(changes, hours, basis):
    found = approaches.chip_hours(model(**changes), chip(fp16_tensor_flops=1e15))
    assert found == (pytest.approx(hours) if hours else None, basis)


def test_without_a_chip_no_compute_becomes_hours():
    assert approaches.chip_hours(model(chip_hours=None, hours=None), None) == (None, "none")


@pytest.mark.parametrize(("rates", "peak"), [
    ({"fp16_tensor_flops": 4.0, "tf32_flops": 3.0, "fp32_flops": 1.0}, 4.0),
    ({"tf32_flops": 3.0, "fp16_flops": 2.0, "fp32_flops": 1.0}, 3.0),
    ({"fp16_flops": 2.0, "fp32_flops": 1.0}, 1.0), ({"int8_ops": 9.0}, 9.0),
    ({"int8_ops": 9.0, "fp32_flops": 1.0}, 1.0), ({}, None)])
def test_the_peak_is_that_of_16_bits_where_there_are_units_for_it(rates, peak):
    assert approaches.peak_flops(chip(**rates)) == peak
    if rates == {"fp16_flops": 2.0, "fp32_flops": 1.0}:
        assert approaches.peak_flops(chip(kind="tpu", **rates)) == 2.0


def test_reasons_say_which_input_is_missing():
    none = model(hours=None, chip_hours=None, compute_flops=None)
    assert three(none).missing["amortised"] == three(none).missing["cloud"] == (
        "no chip-hours are known")


def test_a_chip_of_ones_own_without_a_price_says_so(own_home):
    (own_home / "facts/epoch").mkdir(parents=True)
    (own_home / "facts/epoch/chips.csv").write_text(
        "name,kind,released,tdp_watts,source,date\nAbacus,gpu,2022-01-01,300,me,2026\n")
    found = three(model(hardware=("Abacus",)))
    assert found.missing["amortised"] == found.missing["acquisition"] == (
        "no price of Abacus is known")
    assert found.missing["cloud"] == "no rent of Abacus is known"
    with pytest.raises(UnknownName, match="Abacus"):
        three(model(hardware=("Abakus",)))


@settings(max_examples=30, deadline=None)
@drawn(st.floats(10, 1e4), st.floats(1, 3), st.floats(0.1, 1.0), st.floats(1, 2),
       st.floats(0, 1e6))
def test_energy_is_the_product_of_its_factors(watts, server, fraction, pue, hours):
    found = approaches.energy_kwh(watts, server, fraction, pue, hours)
    assert found == pytest.approx(watts * server * fraction * pue * hours / 1000)
    assert approaches.energy_kwh(watts, server, fraction, pue, 2 * hours) == pytest.approx(
        2 * found)


# --- a run of our own on edge days --------------------------------------------------------------

def run(start, accelerator="h100-sxm-80gb", hours=10.0, nodes=1) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(3600 * hours, "a clock"), "seconds")
    epoch_run.write(sheet, tiny_machine(kind="gpu", accelerator=accelerator,
                                        accelerators_per_node=8, nodes=nodes), start)
    return sheet


@pytest.mark.parametrize("start", [date(1990, 1, 1), FIRST, LAST, date(2060, 1, 1)])
def test_a_run_has_all_three_ways_on_any_day(start):
    sheet = run(start)
    for way in epoch_run.WAYS:
        assert sheet.value(f"usd_ways.{way}") > 0, way
    assert sheet.value("epoch.years") >= 0
    assert sheet["epoch.years"].estimate.source.endswith(str(start))


@settings(max_examples=30, deadline=None)
@drawn(DAYS, st.integers(0, 5000))
def test_a_run_of_a_later_day_has_no_dearer_hardware(start, days):
    one, later = run(start), run(start + timedelta(days=days))
    assert later.value("epoch.capital_usd") <= one.value("epoch.capital_usd") * (1 + 1e-12)
    assert later.value("usd_ways.epoch_acquisition") == one.value("usd_ways.epoch_acquisition")


@settings(max_examples=20, deadline=None)
@drawn(st.floats(0.1, 1e5), st.floats(1, 50), st.integers(1, 64))
def test_hours_and_nodes_count_in_proportion(hours, factor, nodes):
    one, longer, larger = run(LAST, hours=hours), run(LAST, hours=factor * hours), run(
        LAST, hours=hours, nodes=nodes)
    for way in ("usd_ways.epoch_amortised", "usd_ways.epoch_cloud"):
        assert longer.value(way) == pytest.approx(factor * one.value(way))
        assert larger.value(way) == pytest.approx(nodes * one.value(way))
    bought = "usd_ways.epoch_acquisition"
    assert longer.value(bought) == one.value(bought)
    assert larger.value(bought) == pytest.approx(nodes * one.value(bought))


def test_what_is_written_off_is_less_than_what_was_bought_within_its_life():
    year = run(LAST, hours=8766.0)
    assert year.value("epoch.capital_usd") < 8 * year.value("epoch.server_usd")
