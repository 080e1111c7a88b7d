"""Budgets: what is spent, held and left of each, how fast it goes and when it is gone; and what
training takes beside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route

from curbcut.spec.estimate import Z90
from curbcut.web.access import stamp
from curbcut.web.answers import as_json
from curbcut.web.pages import page_route

if TYPE_CHECKING:
    from curbcut.ledger.budgets import Budget
    from curbcut.ledger.store import Ledger
    from curbcut.ledger.usage import Usage
    from curbcut.web.site import Site

PACE_SECONDS = 7 * 86400.0
"""How far back the pace is taken from."""
PART_SECONDS = 6 * 3600.0
"""Stretches of it that are compared: how unlike they are says how sure the pace is."""
LEAST_SECONDS = 3600.0
"""A pace is not taken from less."""
DAYS = 30
"""Days of the chart."""
MOST_RUNS = 20
"""Training runs that are listed: those that took most money."""


def routes(site: Site) -> list[Route]:
    """The page and its JSON."""
    def budget(request: Request) -> dict[str, Any]:
        site.asked()
        ledger = site.ledger()
        if ledger is None:
            return {"cursor": "", "missing": True}
        runs, _ = site.table.names_since("")
        cursor = f"{stamp(ledger)}.{runs}"
        if request.query_params.get("after") == cursor:
            return {"cursor": cursor, "same": True}
        return {"cursor": cursor, **whole(ledger, site.table.since("").rows, time.time())}

    return [page_route("/budget", "budget.html", "/budget"),
            Route("/api/budget", as_json(budget))]


def whole(ledger: Ledger, rows: Sequence[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """All that the page shows; `rows` are the runs."""
    from curbcut.ledger import access, holds, plain, usage
    from curbcut.ledger.budgets import budgets

    lines = {one.id: one.line or one.id for one in access.kept_keys(ledger)}
    names = {one.line or one.id: one.name for one in access.kept_keys(ledger)}
    recent = usage.used(ledger, now - PACE_SECONDS, by=["organisation", "project", "key"],
                        every_seconds=PART_SECONDS)
    first = _first(usage.used(ledger, by=["organisation", "project", "key"]), lines)
    found = []
    for one in budgets(ledger, when=now):
        pace = pace_of(one, recent, lines, first.get(one.scope), now)
        found.append({**plain.budget(one), "name": _name(one.scope, names),
                      **_said(one, pace, now)})
    days = usage.used(ledger, now - DAYS * 86400, by=["project"], every_seconds=86400.0)
    return {"now": now, "held": holds.live(ledger), "budgets": found,
            "pace_days": PACE_SECONDS / 86400, "days": [_day(one) for one in days],
            "total": _totals(usage.used(ledger, by=[])),
            "runs": _dearest(rows), "training": _trained(rows)}


@dataclass(frozen=True)
class Pace:
    """Units a second; `low` and `high` bound 90% of what so few stretches can say of it."""

    value: float
    low: float
    high: float


def pace_of(budget: Budget, recent: Sequence[Usage], lines: Mapping[str, str],
            first: float | None, now: float) -> Pace | None:
    """How fast a budget was used in the last days; None where nothing was used in them."""
    if first is None:
        return None
    began = max(now - PACE_SECONDS, min(first, now - LEAST_SECONDS))
    parts: dict[int, float] = {}
    for one in recent:
        if budget.scope in _scopes(one, lines) and one.start is not None:
            part = int(one.start // PART_SECONDS)
            parts[part] = parts.get(part, 0.0) + amount(one, budget.unit)
    if not parts:
        return None
    mean = sum(parts.values()) / (now - began)
    # The first and the last stretch are cut: each counts by the part of it that was seen.
    seen = range(int(began // PART_SECONDS), int(now // PART_SECONDS) + 1)
    widths = [min(now, (i + 1) * PART_SECONDS) - max(began, i * PART_SECONDS) for i in seen]
    rates = [parts.get(i, 0.0) / width for i, width in zip(seen, widths, strict=True) if width > 0]
    if len(rates) < 2:  # one stretch says nothing of others: twice or half
        return Pace(mean, mean / 2, mean * 2)
    spread = math.sqrt(sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1))
    wide = Z90 * spread / math.sqrt(len(rates))
    return Pace(mean, max(0.0, mean - wide), mean + wide)


def amount(one: Usage, unit: str) -> float:
    """What a group used of one unit of budgets; what is not known counts nothing, as budgets do."""
    if unit == "tokens":
        return float(one.tokens)
    return float((one.charged_nanousd if unit == "nanousd" else one.millijoules) or 0)


def _said(budget: Budget, pace: Pace | None, now: float) -> dict[str, Any]:
    """Pace a day and the time at which nothing is left, each with its interval; None for never."""
    from curbcut.ledger.periods import end_of
    from curbcut.ledger.plain import EACH

    each, ends = EACH[budget.unit], end_of(budget.period, now)
    gone = budget.left == 0
    plain: dict[str, Any] = {"ends": ends, "gone": gone, "pace_a_day": None, "empty": None,
                             "lasts": None}
    if pace is None:
        return plain | {"lasts": not gone}
    plain["pace_a_day"] = {name: getattr(pace, name) * 86400 / each
                           for name in ("value", "low", "high")}
    if gone:
        return plain | {"lasts": False}
    at = {"value": _at(budget.left, pace.value, now), "low": _at(budget.left, pace.high, now),
          "high": _at(budget.left, pace.low, now)}
    lasts = ends is not None and (at["value"] is None or at["value"] >= ends)
    return plain | {"empty": at, "lasts": lasts}


def _at(left: float, rate: float, now: float) -> float | None:
    """When `left` is gone; None where that is further than a calendar reaches."""
    after = left / rate if rate > 0 else math.inf
    return now + after if after < 100 * 365.25 * 86400 else None


def _scopes(one: Usage, lines: Mapping[str, str]) -> tuple[str, ...]:
    key = one.key_id
    return (f"organisation:{one.organisation}", f"project:{one.project}",
            f"key:{lines.get(key, key)}" if key else "")


def _first(found: Sequence[Usage], lines: Mapping[str, str]) -> dict[str, float]:
    """When each scope was first used."""
    first: dict[str, float] = {}
    for one in found:
        for scope in _scopes(one, lines):
            first[scope] = min(first.get(scope, math.inf), one.first)
    return first


def _name(scope: str, names: Mapping[str, str]) -> str:
    kind, _, name = scope.partition(":")
    return names.get(name, name) if kind == "key" else name


def _day(one: Usage) -> dict[str, Any]:
    return {"project": one.project or "without a key", "start": one.start} | _totals([one])


def _totals(found: Sequence[Usage]) -> dict[str, Any]:
    from curbcut.ledger.amounts import kwh, usd

    def total(name: str) -> int | None:
        known = [value for one in found if (value := getattr(one, name)) is not None]
        return sum(known) if known else None

    return {"requests": sum(one.requests for one in found),
            "tokens": sum(one.tokens for one in found),
            "charged_usd": usd(total("charged_nanousd")), "cost_usd": usd(total("cost_nanousd")),
            "kwh": kwh(total("millijoules")),
            "uncharged": sum(one.uncharged for one in found),
            "uncosted": sum(one.uncosted for one in found),
            "unmetered": sum(one.unmetered for one in found)}


def _dearest(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    spent = [row for row in rows if row["usd"]["now"] is not None or row["state"] == "training"]
    spent.sort(key=lambda row: -(row["usd"]["now"] or 0.0))
    return [{name: row[name] for name in ("name", "state", "usd", "kwh", "began", "progress")}
            for row in spent[:MOST_RUNS]]


def _trained(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All runs together: what they took, and what those under way are still promised to take."""
    def total(unit: str) -> float | None:
        known = [row[unit]["now"] for row in rows if row[unit]["now"] is not None]
        return sum(known) if known else None

    def ahead(unit: str) -> float | None:
        going = [row[unit] for row in rows if row["state"] == "training"]
        known = [max(0.0, one["promised"] - (one["now"] or 0.0)) for one in going
                 if one["promised"] is not None]
        return sum(known) if known else None

    modelled = sum(row["usd"]["basis"] == "modelled" for row in rows)
    return {"runs": len(rows), "usd": total("usd"), "kwh": total("kwh"), "usd_ahead": ahead("usd"),
            "kwh_ahead": ahead("kwh"), "modelled": modelled,
            "unknown": sum(row["usd"]["now"] is None and row["began"] is not None
                           for row in rows)}
