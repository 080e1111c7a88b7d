"""Tables of access: names beside ids, units beside amounts, and what is not known said so."""

from __future__ import annotations

import io
import json

import pytest

from curbcut.ledger import access, audit, budgets, open_ledger, prices
from curbcut.ledger.audit import Entry
from curbcut.ledger.keys import KeptKey
from curbcut.ledger.usage import Usage
from curbcut.report import access as report
from curbcut.report.tables import plain_console, show


def text(table):
    file = io.StringIO()
    show([table], console=plain_console(file))
    return file.getvalue()


def key(id_, name, **more):
    values = {"created": 1_800_000_000.0, "revoked": None}
    return KeptKey(id=id_, name=name, **values | more)


def test_uses_go_to_the_key_that_asked():
    kept = [key("00000001", "ann", revoked=1.0), key("00000002", "ann"), key("00000003", "bob")]
    used = [Usage(key_id="00000001", key="ann", requests=1, prompt_tokens=10),
            Usage(key_id="00000002", key="ann", requests=2, output_tokens=20),
            Usage(key=None, requests=9), Usage(key="bob", requests=4)]
    rows = report.keys(kept, used, 0.0).rows
    assert [row[-2:] for row in rows] == [(1, 10), (2, 20), (4, 0)]


def test_times_are_utc_and_states_are_said():
    shown = text(report.keys([key("00000001", "ann", expires=1_800_003_600.0)], [], 1_800_009_999))
    assert "2027-01-15 09:00" in shown and "expired" in shown


def test_a_rotated_key_s_scope_bears_the_newest_name(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        access.issue_key(ledger, "ann", actor="test")
        scope = access.scope_of_key(ledger, "ann")
        budgets.set_budget(ledger, scope, "tokens", 1000, actor="test")
        access.set_allowance(ledger, scope, access.Allowance(models=()), actor="test")
        access.rotate_key(ledger, "ann", actor="test", grace_seconds=60)
        limits, found = report.tables(ledger, ["limits", "budgets"])
        told = report.as_plain(ledger)
    assert f"{scope} (ann)" in text(limits) and " none " in text(limits)
    assert f"{scope} (ann)" in text(found) and "1.00 k tokens" in text(found)
    assert told["budgets"][0]["scope"] == scope
    assert set(told) == {"organisations", "keys", "limits", "budgets", "prices", "licences"}
    json.dumps(told, allow_nan=False)


def test_prices_that_are_not_known_say_so(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        prices.set_price(ledger, prices.Price(
            model="tiny", prompt_nanousd=10**9, cached_nanousd=0, output_nanousd=2 * 10**9,
            output_millijoules=3_600_000_000), actor="test")
        [table] = report.tables(ledger, ["prices"])
        [row] = audit.entries(ledger)
    shown = text(table)
    assert "$1.00" in shown and "$2.00" in shown and "unknown" in shown and "1.00 kWh" in shown
    assert "prompt $1.00" in " ".join(text(report.audit([row])).split())


@pytest.mark.parametrize(("body", "words"), [
    ({"unit": "nanousd", "amount": 5 * 10**9, "period": "month"}, "amount $5.00, period month"),
    ({"unit": "tokens", "amount": None, "period": "all"}, "unit tokens, ended, period all"),
    ({"unit": "nanousd", "amount": None, "period": "day"}, "unit usd, ended, period day"),
    ({"prompt_nanousd": 10**9, "prompt_millijoules": 3_600_000_000},
     "prompt $1.00, prompt at most 1.00 kWh"),
    ({"models": '["tiny", "lab"]', "requests_a_minute": 5, "weight": 1.0},
     "models tiny lab, requests a minute 5, weight 1"),
    ({"models": "[]", "told": {"institution": "a school"}},
     "models none, told institution a school"),
    ({"expires": 1_800_000_000.0, "owner": ""}, "expires 2027-01-15 08:00:00"),
    ({"hash": "0123456789abcdef" * 4}, "hash 0123456789ab"), ({}, "key:0")])
def test_bodies_of_the_audit_chain_are_words(body, words):
    entry = Entry(7, 1_800_000_000.0, "cli:ann", "done", "key:0", body, "0" * 64)
    assert " ".join(text(report.audit([entry])).split()).endswith(words)
