"""Budgets as the page tells them: the pace and the day on which nothing is left."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access_samples import filled
from curbcut.ledger import FILE_NAME
from curbcut.ledger.budgets import Budget
from curbcut.ledger.usage import Usage
from curbcut.web.budget import PACE_SECONDS, PART_SECONDS, _said, pace_of

NOW = 1_800_000_000.0
WIDE = int(PACE_SECONDS // PART_SECONDS)


def budget(unit="nanousd", amount=10_000, spent=4_000, held=0, period="all"):
    return Budget(scope="project:p", unit=unit, period=period, amount=amount, spent=spent,
                  held=held)


def uses(amounts, project="p"):
    """The last stretches, the newest last."""
    last = NOW // PART_SECONDS
    return [Usage(project=project, organisation="o", key_id="k", requests=1,
                  start=(last - len(amounts) + 1 + i) * PART_SECONDS, charged_nanousd=one,
                  prompt_tokens=one, millijoules=one) for i, one in enumerate(amounts)]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=WIDE),
       st.sampled_from(["tokens", "nanousd", "millijoules"]))
def test_a_pace_is_what_was_used_over_the_time(amounts, unit):
    found = pace_of(budget(unit), uses(amounts), {}, NOW - PACE_SECONDS, NOW)
    assert found is not None
    assert found.value == pytest.approx(sum(amounts) / PACE_SECONDS)
    assert 0 <= found.low <= found.value * (1 + 1e-9) <= found.high * (1 + 2e-9)


def test_others_do_not_count():
    assert pace_of(budget(), uses([5, 5], project="other"), {}, NOW - 86400, NOW) is None
    assert pace_of(budget(), [], {}, None, NOW) is None


def test_a_key_counts_with_its_whole_line():
    mine = Budget(scope="key:first", unit="tokens", period="all", amount=9)
    found = pace_of(mine, uses([700]), {"k": "first"}, NOW - PACE_SECONDS, NOW)
    assert found is not None and found.value == pytest.approx(700 / PACE_SECONDS)


def test_a_minute_of_use_is_no_pace_of_a_minute():
    found = pace_of(budget(), uses([3600]), {}, NOW - 60, NOW)
    assert found is not None and found.value == pytest.approx(1.0)


def test_the_day_on_which_nothing_is_left():
    mine = budget(amount=10_000, spent=4_000, held=1_000)
    pace = pace_of(mine, uses([7000]), {}, NOW - PACE_SECONDS, NOW)
    found = _said(mine, pace, NOW)
    assert found["empty"]["value"] == pytest.approx(NOW + 5000 / 7000 * PACE_SECONDS)
    assert found["empty"]["low"] <= found["empty"]["value"]
    assert found["empty"]["high"] is None or found["empty"]["high"] >= found["empty"]["value"]
    assert found["lasts"] is False and found["gone"] is False


def test_a_budget_that_lasts_its_period_says_so():
    slow = pace_of(budget(period="month"), uses([1]), {}, NOW - PACE_SECONDS, NOW)
    assert _said(budget(period="month", amount=10**9), slow, NOW)["lasts"] is True
    assert _said(budget(amount=10**9), None, NOW) | {} == {
        "ends": None, "gone": False, "pace_a_day": None, "empty": None, "lasts": True}


def test_nothing_left_is_gone_whatever_the_pace():
    for pace in (None, pace_of(budget(), uses([5]), {}, NOW - 999, NOW)):
        found = _said(budget(amount=5, spent=4, held=1), pace, NOW)
        assert found["gone"] and not found["lasts"] and found["empty"] is None


def test_the_page_adds_up(ask, runs):
    ledger = filled(runs / FILE_NAME, uses=60, now=time.time() - 60)
    found = ask("/api/budget")
    assert found["total"]["requests"] == 60
    assert sum(one["requests"] for one in found["days"]) == 60
    assert sum(one["charged_usd"] for one in found["days"]) == pytest.approx(
        found["total"]["charged_usd"])
    rows = {(one["name"], one["unit"], one["period"]): one for one in found["budgets"]}
    thesis = rows["thesis", "usd", "month"]
    assert thesis["left"] == pytest.approx(5 - thesis["spent"]) and thesis["lasts"]
    assert rows["ben", "kwh", "all"]["scope"].startswith("key:")
    assert rows["robots", "tokens", "all"]["gone"] and thesis["ends"] > found["now"]
    assert found["training"] == {"runs": 0, "usd": None, "kwh": None, "usd_ahead": None,
                                 "kwh_ahead": None, "modelled": 0, "unknown": 0}
    assert ask("/api/budget", after=found["cursor"]) == {"cursor": found["cursor"], "same": True}
    ledger.close()


def test_training_stands_beside(ask, runs, site, monkeypatch):
    ledger = filled(runs / FILE_NAME, uses=1)
    rows = [{"name": name, "state": state, "began": 1.0, "progress": 0.5, "usd": {
        "now": usd, "promised": 10.0, "low": 8.0, "high": 12.0, "basis": basis}, "kwh": {
        "now": None, "promised": None, "low": None, "high": None, "basis": ""}}
        for name, state, usd, basis in (("a", "training", 4.0, "modelled"),
                                        ("b", "done", 9.0, "measured"),
                                        ("c", "crashed", None, ""))]
    from curbcut.web import budget as page

    found = page.whole(ledger, rows, time.time())
    assert [one["name"] for one in found["runs"]] == ["b", "a"]
    assert found["training"] == {"runs": 3, "usd": 13.0, "kwh": None, "usd_ahead": 6.0,
                                 "kwh_ahead": None, "modelled": 1, "unknown": 1}
    ledger.close()
