"""A ledger with organisations, projects, keys, budgets, prices, uses and an audit trail."""

from __future__ import annotations

import random
import time
from pathlib import Path

from curbcut.ledger import access, licences, open_ledger
from curbcut.ledger import schema as tables
from curbcut.ledger.access import Allowance
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH, NANO
from curbcut.ledger.budgets import set_budget
from curbcut.ledger.meterings import Metering, record_meterings
from curbcut.ledger.prices import Price, set_price
from curbcut.ledger.store import Ledger

BY = "cli:ann"
MODELS = ("curb-124m", "llama-3.1-8b-instruct-with-a-rather-long-name")


def filled(path: Path, *, days: int = 12, uses: int = 400, now: float | None = None) -> Ledger:
    """The ledger; the same of the same `now`, save for keys' ids."""
    now = time.time() if now is None else now
    ledger = open_ledger(path)
    access.create_organisation(ledger, "university", actor=BY)
    for name, organisation in (("thesis", "university"), ("reading-group", "university"),
                               ("robots", "default")):
        access.create_project(ledger, name, organisation, actor=BY)
    set_price(ledger, Price(model=MODELS[0], prompt_nanousd=20_000_000, cached_nanousd=2_000_000,
                            output_nanousd=80_000_000, basis="modelled", source="plan"), actor=BY)
    set_price(ledger, Price(model=MODELS[1], prompt_nanousd=200_000_000, cached_nanousd=50_000_000,
                            output_nanousd=600_000_000), actor=BY)
    licences.set_licence(ledger, "project:robots", "Be kind to people.", actor=BY)
    accepted = [licences.needed(ledger, "robots")[0].hash]
    for name, project, role in (("ann", "thesis", "user"), ("ben", "reading-group", "user"),
                                ("boss", "default", "admin"), ("arm", "robots", "user")):
        access.issue_key(ledger, name, project=project, role=role, owner=f"{name}@example.org",
                         actor=BY, accepted=accepted if project == "robots" else ())
    access.issue_key(ledger, "guest", project="thesis", expires=now + 5 * 86400, actor=BY)
    access.revoke_key(ledger, "guest", actor=BY)
    access.set_allowance(ledger, "project:thesis", Allowance(
        models=MODELS, requests_a_minute=60, tokens_a_minute=100_000, weight=3.0), actor=BY)
    access.set_allowance(ledger, "organisation:university", Allowance(concurrency=8), actor=BY)
    _uses(ledger, days, uses, now)
    keys = {one.name: one.id for one in access.kept_keys(ledger)}
    set_budget(ledger, "project:thesis", "nanousd", 5 * NANO, period="month", actor=BY)
    set_budget(ledger, "project:thesis", "tokens", 3_000_000, actor=BY)
    set_budget(ledger, f"key:{keys['ben']}", "millijoules", MILLIJOULES_PER_KWH // 20, actor=BY)
    set_budget(ledger, "organisation:university", "nanousd", 200 * NANO, actor=BY)
    set_budget(ledger, "project:robots", "tokens", 10, actor=BY)
    record_meterings(ledger, [Metering(
        server="s", model=MODELS[0] if kind == "requests" else "", kind=kind, start=now - 7200,
        end=now - 3600, seconds=seconds, millijoules=millijoules, cost_nanousd=cost, kgco2e=None,
        basis="modelled", source="accounts.energy") for kind, seconds, millijoules, cost in (
        ("requests", 800.0, 90_000_000, 300_000_000), ("idle", 2800.0, 110_000_000, None))])
    return ledger


def _uses(ledger: Ledger, days: int, uses: int, now: float) -> None:
    """Requests over the last days, the same of each `now`; some without joules or a price."""
    draw = random.Random(7)
    keys = {one.name: one for one in access.kept_keys(ledger)}
    organisations = {one.name: one.organisation for one in access.projects(ledger)}
    rows = []
    for i in range(uses):
        key = keys[draw.choice(("ann", "ann", "ben", "arm"))]
        prompt, output = draw.randint(200, 4000), draw.randint(20, 900)
        rows.append({
            "key": key.name, "key_id": key.id, "project": key.project,
            "organisation": organisations[key.project], "model": MODELS[i % 3 == 0],
            "prompt_tokens": prompt, "output_tokens": output, "cached_tokens": prompt // 3,
            "seconds": output / 50, "time": now - draw.uniform(0, days * 86400), "finish": "stop",
            "charged_nanousd": 20 * prompt + 80 * output, "cost_nanousd": 30 * (prompt + output),
            "millijoules": None if i % 50 == 0 else 90 * (prompt + 8 * output),
            "energy_basis": "" if i % 50 == 0 else "modelled", "engine_seconds": output / 90})
    with ledger.writing() as connection:
        connection.execute(tables.uses.insert(), rows)
