from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut import units
from curbcut.errors import InputError, UnknownName


@pytest.mark.parametrize(("text", "dimension", "value"), [
    ("4 min", "seconds", 240), ("1.5T tokens", "count", 1.5e12), ("30 GB", "bytes", 30e9),
    ("4GiB", "bytes", 4 * 2**30), ("300kWh", "kwh", 300), ("3.6 MJ", "kwh", 1),
    ("50 kg", "kgco2e", 50), ("1,000", "count", 1000), ("2e9", "count", 2e9),
    ("700W", "watts", 700),
    ("72 H", "seconds", 72 * 3600),
])
def test_parse_reads_what_people_write(text, dimension, value):
    assert units.parse(text, dimension) == pytest.approx(value)


def test_an_unknown_unit_names_the_nearest():
    with pytest.raises(UnknownName, match="'minuts'") as caught:
        units.parse("4 minuts", "seconds", "limits.seconds")
    assert "minutes" in str(caught.value)
    assert "limits.seconds" in str(caught.value)


@pytest.mark.parametrize("text", ["", "fast", "min 4"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="as a quantity"):
        units.parse(text, "seconds")


def test_a_missing_unit_is_asked_for():
    with pytest.raises(InputError, match="has no unit"):
        units.parse("4", "seconds")


@pytest.mark.parametrize(("text", "amount", "currency"), [
    ("500 EUR", 500, "EUR"), ("$500", 500, "USD"), ("€ 1,000", 1000, "EUR"), ("20 chf", 20, "CHF"),
])
def test_money(text, amount, currency):
    assert units.parse_money(text) == units.Money(amount, currency)


def test_money_needs_a_known_currency():
    with pytest.raises(InputError, match="no currency"):
        units.parse_money("500")
    with pytest.raises(UnknownName, match="EURO"):
        units.parse_money("500 euro")


def test_fleet():
    assert units.parse_fleet("64xH100") == (64, "H100")
    assert units.parse_fleet("here") == (1, "here")
    with pytest.raises(InputError):
        units.parse_fleet("0xH100")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused(value):
    with pytest.raises(InputError, match="not a number one can plan with"):
        units.finite(value)


@given(st.floats(min_value=1e-12, max_value=1e15),
       st.sampled_from(["seconds", "bytes", "kwh", "kgco2e", "count"]))
@settings(max_examples=50)
def test_show_is_read_back_within_its_digits(value, dimension):
    shown = units.show(value, dimension)
    assert units.parse(shown, dimension) == pytest.approx(value, rel=0.006, abs=1e-9)


def test_show_of_small_and_large_money():
    assert units.show(1234.5, "usd") == "$1,234.50"
    assert units.show(0.05, "usd") == "$0.050"
    assert units.show(0.00123, "usd") == "0.12 ct"
    assert units.show(0.0000085, "usd") == "0.00085 ct"
    assert units.show(3e-9, "usd") == "0.00000030 ct"
    assert units.show(0.0, "usd") == "$0.00"


def test_small_counts_are_whole_and_small_energies_in_one_unit():
    assert (units.show(97, "count"), units.show(0.5, "count")) == ("97", "0.500")
    assert (units.show(8.85e-4, "kwh"), units.show(5e-5, "kwh")) == ("0.885 Wh", "180 J")


@given(st.floats(min_value=1e-15, max_value=1e9))
@settings(max_examples=50)
def test_money_never_has_an_exponent(value):
    assert "e" not in units.show(value, "usd")
    assert "e" not in units.show(-value, "usd")


def test_a_value_is_shown_in_the_unit_of_another():
    assert units.show(0.5, "kwh", like=2.0) == "0.500 kWh"
    assert units.show(1500.0, "kgco2e", like=2.0) == "1,500 kgCO2e"
    assert units.show(0.5, "kwh") == "500 Wh"


def test_little_carbon_and_water_have_units_of_their_own():
    assert units.show(3.53e-7, "kgco2e") == "353 ugCO2e"
    assert units.show(5.7e-6, "litres") == "5.70 ul"
    assert units.show(0.0, "kgco2e") == "0 gCO2e"


def test_little_carbon_is_read_as_it_is_shown():
    assert units.parse("324 mgCO2e", "kgco2e", "--carbon") == pytest.approx(324e-6)
