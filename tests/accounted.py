"""A ledger in which a month of two projects stands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from curbcut.ledger import access, budgets, holds, meterings, open_ledger, prices
from curbcut.ledger.amounts import Amount
from curbcut.ledger.holds import Taken, Wanted
from curbcut.ledger.meterings import Metering
from curbcut.ledger.prices import Price
from curbcut.ledger.store import Ledger

MONTH = "2026-03"
IN_MARCH = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()
BEFORE, AFTER = (datetime(2026, month, 28, 23, tzinfo=UTC).timestamp() for month in (2, 4))
KWH = 3_600_000_000
"""Millijoules of a kWh."""


def ledger_at(path: Path) -> Ledger:
    """An organisation with the projects thesis (ann) and course (bob); others stand empty."""
    ledger = open_ledger(path)
    access.create_organisation(ledger, "lab", actor="test")
    for project, key in (("thesis", "ann"), ("course", "bob")):
        access.create_project(ledger, project, "lab", actor="test")
        access.issue_key(ledger, key, project=project, actor="test")
    prices.set_price(ledger, Price(model="small", prompt_nanousd=10**9, cached_nanousd=10**8,
                                   output_nanousd=4 * 10**9), actor="test")
    budgets.set_budget(ledger, "project:thesis", "nanousd", 10**9, period="month", actor="test")
    budgets.set_budget(ledger, "organisation:lab", "millijoules", 9 * KWH, actor="test")
    return ledger


def use(ledger: Ledger, key: str, when: float = IN_MARCH, model: str = "small",
        **taken: object) -> None:
    """One settled request of a key, at a time."""
    ids = {one.name: one for one in access.kept_keys(ledger)}
    one = ids[key]
    values = {"prompt_tokens": 100, "output_tokens": 50, "nanousd": 300_000, "finish": "stop"}
    with patch("time.time", return_value=when):
        server = holds.open_server(ledger)
        hold = holds.hold(ledger, server, Wanted(
            scopes=("organisation:lab", f"project:{one.project}", f"key:{one.id}"),
            project=one.project, organisation="lab", model=model, key_id=one.id, key=key,
            most=Amount(tokens=1000, nanousd=10**7, millijoules=KWH)))
        holds.settle(ledger, hold, Taken(**values | taken))  # type: ignore[arg-type]


def meter(ledger: Ledger, kind: str, millijoules: int | None, model: str = "",
          kgco2e: float | None = None, when: float = IN_MARCH) -> None:
    """One line of metering."""
    meterings.record_meterings(ledger, [Metering(
        server="s1", model=model, kind=kind,  # type: ignore[arg-type]
        start=when, end=when + 60, seconds=60.0, millijoules=millijoules, cost_nanousd=None,
        kgco2e=kgco2e, basis="measured", source="counter of device; grid of a test")])
