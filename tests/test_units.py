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


# --- commas, capitals and amounts -----------------------------------------------------------------

@pytest.mark.parametrize("text", ["1,5 GB", "0,5 GB", "12,34 GB", "1,0000 GB", "1,00,000 GB",
                                  "1,234,56 GB", "1_000,5 GB"])
def test_a_comma_that_parts_no_thousands_is_refused_and_never_skipped(text):
    with pytest.raises(InputError, match="parts no thousands") as caught:
        units.parse(text, "bytes", "data")
    assert caught.value.where == "data" and "write" in caught.value.mend


@pytest.mark.parametrize(("text", "value"), [
    ("1,000", 1e3), ("12,345.6", 12_345.6), ("1,234,567", 1_234_567), ("1_000_000", 1e6),
    ("-1,000", -1e3), ("+5", 5), (".5", 0.5), ("5.", 5), ("1e3", 1e3), ("1,000e3", 1e6),
    ("2E-2", 0.02), ("1.5b", 1.5e9), ("2m tokens", 2e6), ("3t", 3e12), ("4 K", 4e3)])
def test_numbers_as_people_write_them(text, value):
    assert units.parse(text, "count") == pytest.approx(value)


@given(st.integers(0, 10**15))
@settings(max_examples=40, deadline=None)
def test_thousands_are_read_back_as_they_are_written(value):
    assert units.parse(f"{value:,}", "count") == value
    assert units.parse(f"{value:_}", "count") == value


@pytest.mark.parametrize("text", ["50 g", "50 p", "5 mb", "3 kg"])
def test_what_is_no_count_is_none_whatever_its_capitals(text):
    with pytest.raises(UnknownName, match="unknown unit"):
        units.parse(text, "count")


def test_a_decimal_comma_of_money_is_refused_too():
    with pytest.raises(InputError, match="parts no thousands"):
        units.parse_money("499,99 EUR", "--budget")
    assert units.parse_money("1,499.99 EUR").amount == 1499.99


@given(st.floats(1e-9, 1e18), st.sampled_from(units.CURRENCIES))
@settings(max_examples=40, deadline=None)
def test_money_is_read_back_to_the_last_digit(amount, currency):
    money = units.Money(amount, currency)
    assert units.parse_money(str(money)) == money


# --- joules, litres, rates, and the unit of another -----------------------------------------------

@pytest.mark.parametrize(("value", "dimension", "said"), [
    (2.5e6, "joules", "2.50 MJ"), (1500.0, "joules", "1.50 kJ"), (0.4, "joules", "400 mJ"),
    (1e-5, "joules", "0.0100 mJ"), (2500.0, "litres", "2.50 m3"), (0.3, "litres", "300 ml"),
    (12.0, "litres", "12.0 l"), (9.9e14, "flops/s", "990 TFLOP/s"), (2e15, "flops/s",
                                                                   "2.00 PFLOP/s"),
    (3.35e12, "bytes/s", "3.35 TB/s"), (5e7, "bytes/s", "50.0 MB/s"), (3e24, "flops",
                                                                     "3.00 YFLOP"),
    (0.4567, "fraction", "45.7%"), (700.0, "watts", "700 W"), (12_345.0, "watts", "12.3 kW"),
    (7.0, "nats", "7.00 nats"), (7.0, "", "7.00"), (5400.0, "seconds", "1.50 h"),
    (5399.0, "seconds", "90.0 min"), (2 * 86400.0, "seconds", "2.00 d"), (89.0, "seconds",
                                                                         "89.0 s"),
    (0.002, "seconds", "2.00 ms"), (-90.0, "seconds", "-1.50 min")])
def test_each_dimension_has_the_units_of_its_size(value, dimension, said):
    assert units.show(value, dimension) == said


SCALED = ["bytes", "kwh", "kgco2e", "watts", "count", "flops", "flops/s", "bytes/s", "joules",
          "litres"]


@given(st.sampled_from(SCALED), st.floats(1e-3, 1e15), st.floats(0.01, 100.0))
@settings(max_examples=40, deadline=None)
def test_beside_another_value_the_unit_is_that_of_the_other(dimension, like, share):
    """And the number keeps its ratio to it, so that both can be compared at a glance."""
    if dimension == "count":
        like = max(like, 1000.5)
    shown, other = (units.show(one, dimension, like=like) for one in (share * like, like))
    assert shown.partition(" ")[2] == other.partition(" ")[2]
    numbers = [float(one.partition(" ")[0].replace(",", "")) for one in (shown, other)]
    assert numbers[0] / numbers[1] == pytest.approx(share, rel=0.011)


@given(st.sampled_from([one for one in SCALED if one != "count"]), st.floats(1e-3, 1e15))
@settings(max_examples=40, deadline=None)
def test_like_itself_is_as_alone(dimension, value):
    assert units.show(value, dimension, like=value) == units.show(value, dimension)


@given(st.sampled_from([*SCALED, "seconds", "fraction"]), st.floats(1e-3, 1e15))
@settings(max_examples=40, deadline=None)
def test_a_negative_quantity_is_said_as_its_size_with_a_sign(dimension, value):
    assert units.show(-value, dimension) == f"-{units.show(value, dimension)}"


def test_times_are_always_in_their_own_unit():
    assert units.show(30.0, "seconds", like=7200.0) == units.show(30.0, "seconds") == "30.0 s"


@given(st.floats(1e-4, 1e6), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_digits_are_those_asked_for_and_no_exponent(value, digits):
    said = units.sig(value, digits)
    assert "e" not in said or value >= 1e6 * (1 - 1e-6)
    assert float(said.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.floats(1e-30, 1e5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_however_small_it_is_plain_decimals(value, digits):
    said = units.small(value, digits)
    assert "e" not in said
    assert float(said.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


def test_zero_and_what_is_no_number_are_said_as_they_are():
    assert (units.sig(0.0), units.small(0.0), units.sig(math.inf)) == ("0", "0", "inf")
    assert units.small(math.nan) == "nan"


@pytest.mark.parametrize(("value", "bounds", "said"), [
    (0.0, {"above": 0}, "must be greater than 0"), (-1.0, {"at_least": 0}, "must be at least 0"),
    (5.0, {"above": 5, "nearest": "6"}, "nearest: 6")])
def test_a_range_is_said_with_what_lies_in_it(value, bounds, said):
    with pytest.raises(InputError) as caught:
        units.finite(value, "a field", **bounds)
    assert said in f"{caught.value.what} {caught.value.mend}"
    assert units.finite(7.0, **{key: bounds[key] for key in bounds if key != "nearest"}) == 7.0


@pytest.mark.parametrize(("text", "fleet"), [
    ("8 x A100", (8, "A100")), ("8×A100", (8, "A100")), ("8*A100", (8, "A100")),
    (" A100 ", (1, "A100")), ("xH100", (1, "xH100")), ("02xH100", (2, "H100"))])
def test_fleets_as_people_write_them(text, fleet):
    assert units.parse_fleet(text) == fleet


@pytest.mark.parametrize(("text", "amount", "currency"), [
    ("500€", 500, "EUR"), ("£5", 5, "GBP"), ("$1,000.50", 1000.5, "USD"), ("-5 eur", -5, "EUR"),
    ("  7.5 jpy ", 7.5, "JPY")])
def test_money_before_and_behind_its_sign(text, amount, currency):
    assert units.parse_money(text) == units.Money(amount, currency)


@pytest.mark.parametrize(("said", "amount", "currency"), [
    ("5k EUR", 5e3, "EUR"), ("1.5M USD", 1.5e6, "USD"), ("2K€", 2e3, "EUR"),
    ("$3B", 3e9, "USD"), ("20 kEUR", 2e4, "EUR")])
def test_money_in_thousands_and_millions_is_read(said, amount, currency):
    found = units.parse_money(said)
    assert (found.amount, found.currency) == (pytest.approx(amount), currency)
