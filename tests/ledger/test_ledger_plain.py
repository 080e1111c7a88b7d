"""What programs read of access: in what people count in, whole, and without a secret."""

import json

import pytest

from curbcut.ledger import access, plain, usage
from curbcut.ledger.budgets import Budget
from curbcut.ledger.keys import KeptKey
from curbcut.ledger.licences import Licence
from curbcut.ledger.prices import Price
from curbcut.ledger.usage import Usage

KEY = KeptKey("00c0ffee", "ann", 100.0, None, "thesis", "user", "Ann", 200.0)


@pytest.mark.parametrize(("now", "revoked", "state"), [
    (150.0, None, "live"), (200.0, None, "expired"), (150.0, 120.0, "revoked"),
    (300.0, 120.0, "revoked")])
def test_the_state_of_a_key(now, revoked, state):
    key = KeptKey(**{**vars(KEY), "revoked": revoked})
    assert plain.key(key, now)["state"] == plain.state(key, now) == state


def test_a_key_has_all_but_its_hash(ledger):
    secret = access.issue_key(ledger, "bob", actor="test")
    [key] = access.kept_keys(ledger)
    told = plain.key(key, 0.0)
    assert set(told) == {*vars(key), "state", "scope"} - {"line"} and secret not in json.dumps(told)


@pytest.mark.parametrize(("unit", "each", "name"), [
    ("nanousd", 10**9, "usd"), ("millijoules", 3_600_000_000, "kwh"), ("tokens", 1, "tokens")])
def test_budgets_are_in_what_people_count_in(unit, each, name):
    told = plain.budget(Budget(scope="key:0", unit=unit, period="day", amount=5 * each,
                               spent=2 * each, held=each))
    assert told == {"scope": "key:0", "unit": name, "period": "day", "start": 0, "amount": 5,
                    "spent": 2, "held": 1, "left": 2}


def test_what_is_not_known_is_none_and_never_0():
    price = plain.price(Price(model="tiny", prompt_nanousd=0, cached_nanousd=0,
                              output_nanousd=10**8))
    assert (price["prompt_usd"], price["output_usd"], price["prompt_kwh"]) == (0, 0.1, None)
    used = plain.usage(Usage(requests=2, cost_nanousd=5 * 10**8, by_basis={"modelled": 3_600_000}))
    assert (used["charged_usd"], used["kwh"], used["cost_usd"]) == (None, None, 0.5)
    assert used["kwh_by_basis"] == {"modelled": 0.001}
    assert not [name for name in used if "nano" in name or "milli" in name]


def test_uses_of_the_ledger_are_told(ledger):
    ledger.record_use("ann", "tiny", prompt_tokens=10, output_tokens=5, seconds=0.1)
    [row] = usage.used(ledger, by=("model",))
    told = plain.usage(row)
    assert (told["model"], told["requests"], told["prompt_tokens"]) == ("tiny", 1, 10)
    json.dumps(told, allow_nan=False)


def test_limits_and_texts():
    told = plain.allowance("key:0", access.Allowance(models=("a", "b"), concurrency=2))
    assert told == {"scope": "key:0", "models": ["a", "b"], "requests_a_minute": None,
                    "tokens_a_minute": None, "concurrency": 2, "weight": 1.0}
    assert plain.allowance("key:0", access.Allowance())["models"] is None
    text = plain.licence(Licence(scope="project:a", hash="0" * 64, text="Be good.", set=1.0))
    assert text["characters"] == 8 and "Be good." not in json.dumps(text)
