"""Amounts, scopes and times as people write them, to what the ledger counts, and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.facts import currency
from curbcut.ledger import access, plain, said
from curbcut.ledger.amounts import UNITS
from curbcut.ledger.budgets import Budget

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("text", "counted"), [
    ("5 USD", ("nanousd", 5 * 10**9)), ("$0.25", ("nanousd", 250_000_000)),
    ("1,000 USD", ("nanousd", 10**12)), ("2k USD", ("nanousd", 2 * 10**12)),
    ("0 USD", ("nanousd", 0)), ("2 kWh", ("millijoules", 7_200_000_000)),
    ("2kwh", ("millijoules", 7_200_000_000)), ("1 J", ("millijoules", 1000)),
    ("1.5M tokens", ("tokens", 1_500_000)), ("1 token", ("tokens", 1)),
    ("3e6 tok", ("tokens", 3_000_000))])
def test_amounts(text, counted):
    assert said.amount(text) == counted


def test_other_money_is_at_the_facts_rate():
    assert said.amount("10 EUR") == ("nanousd", round(10e9 * currency.usd_per("EUR").value))


@pytest.mark.parametrize(("text", "words"), [
    ("5", "does not say of what"), ("", "does not say of what"), ("5 apples", "unknown unit"),
    ("-1 USD", "at least 0"), ("nan USD", "not a number"), ("inf tokens", "not a number"),
    ("1e300 USD", "not a number"), ("1e30 tokens", "more than"), ("1.5 tokens", "whole tokens"),
    ("1e-12 USD", "less than"), ("1,5 EUR", "comma"), ("5 kwhh", "kWh"), ("tokens", "cannot read")])
def test_amounts_that_are_none_say_why(text, words):
    with pytest.raises(InputError) as caught:
        said.amount(text, "--budget")
    assert words in str(caught.value) and str(caught.value).startswith("--budget: ")
    assert caught.value.mend


@given(st.integers(0, 2**61), st.sampled_from(UNITS))
def test_what_is_said_of_a_whole_number_is_read_as_it(value, unit):
    each = plain.EACH[unit]
    shown = plain.budget(Budget(scope="key:0", unit=unit, period="all", amount=value))
    text = f"{shown['amount']!r} {plain.NAMES[unit]}"
    again = said.amount(text)
    assert again[0] == unit
    # A double has 53 bits, and money goes through dollars: to a few parts in 10^15.
    assert math.isclose(again[1], value, rel_tol=1e-15 * 8, abs_tol=0.5), each


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_an_error_with_its_mend(text):
    try:
        unit, value = said.amount(text)
    except InputError as error:
        assert error.mend
    else:
        assert unit in UNITS and 0 <= value < 2**62


@pytest.mark.parametrize(("unit", "value", "shown"), [
    ("nanousd", 5_000_000_000, "$5.00"), ("millijoules", 3_600_000_000, "1.00 kWh"),
    ("tokens", 1_000_000, "1.00 M tokens"), ("tokens", 12, "12 tokens")])
def test_amounts_are_shown(unit, value, shown):
    assert said.show(unit, value) == shown


def test_units_have_names_of_people():
    assert [said.unit(name) for name in ("USD", "kwh", "tokens")] == [
        "nanousd", "millijoules", "tokens"]
    with pytest.raises(UnknownName, match="kwh"):
        said.unit("kwhs")


def test_a_key_s_scope_by_its_name_or_id(ledger):
    secret = access.issue_key(ledger, "ann", actor="test")
    id_ = secret.split("-")[1]
    assert said.scope(ledger, "key:ann") == said.scope(ledger, f"key:{id_}") == f"key:{id_}"
    assert said.scope(ledger, "project:any") == "project:any"
    access.revoke_key(ledger, "ann", actor="test")
    assert said.scope(ledger, f"key:{id_}") == f"key:{id_}"
    id_ = access.issue_key(ledger, "bob", actor="test").split("-")[1]
    new = access.rotate_key(ledger, "bob", actor="test").split("-")[1]
    assert said.scope(ledger, "key:bob") == said.scope(ledger, f"key:{new}") == f"key:{id_}"
    for text, words in (("key:ann", "live key"), ("key:00000000", "live key"),
                        ("keys:ann", "did you mean 'key'"), ("ann", "write organisation:ann")):
        with pytest.raises(InputError) as caught:
            said.scope(ledger, text)
        assert words in str(caught.value)


@pytest.mark.parametrize(("text", "when"), [
    ("30 d", NOW + 30 * 86400), ("1 h", NOW + 3600), ("2027-01-31", 1_801_440_000.0),
    ("2027-01-31T12:00", 1_801_396_800.0), ("2027-01-31T12:00+01:00", 1_801_393_200.0)])
def test_moments(text, when):
    assert said.moment(text, NOW) == when


@pytest.mark.parametrize("text", ["2020-01-01", "0 s", "-1 d", "soon", "7", "1e20 d", "inf d",
                                  "9999-12-31", ""])
def test_moments_that_are_none(text):
    with pytest.raises(InputError) as caught:
        said.moment(text, NOW, "--expires")
    assert caught.value.mend


@pytest.mark.parametrize("name", ["tiny", "llama-3.1-8b", "tiny:poet"])
def test_names_of_models(name):
    assert said.model(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "Qwen/Qwen3", "..", "a b", "a:b:c", "é", "a" * 65])
def test_names_of_no_models(name):
    with pytest.raises(InputError):
        said.model(name)
