"""Models and keys: what is served at what price, who may ask, what they used, who changed it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route

from curbcut.errors import InputError, UnknownName
from curbcut.web.answers import as_json
from curbcut.web.pages import page_route

if TYPE_CHECKING:
    from curbcut.ledger.audit import Verdict
    from curbcut.ledger.store import Ledger
    from curbcut.ledger.usage import By, Usage
    from curbcut.web.site import Site

DAY = 86400.0
SPANS: Mapping[str, float | None] = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "all": None}
"""How far back uses are counted, in seconds."""
ROWS = 50
"""Rows of the audit trail a page of it."""
COLUMNS: Mapping[By, str] = {"organisation": "organisation", "project": "project",
                             "key": "key_id", "model": "model"}
"""What uses are grouped by, and the column that says it."""
NOTHING: Mapping[str, Any] = {
    "requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "charged_usd": None,
    "cost_usd": None, "kwh": None, "joules_per_token": None, "usd_per_million": None,
    "cost_per_million": None, "energy": "", "uncharged": 0, "uncosted": 0, "unmetered": 0,
    "charged_tokens": 0, "costed_tokens": 0, "metered_tokens": 0, "last": None}
"""Figures of who used nothing."""


def routes(site: Site) -> list[Route]:
    """The page and its JSON."""
    chain = Chain()

    def access(request: Request) -> dict[str, Any]:
        ledger = site.ledger()
        if ledger is None:
            return {"cursor": "", "missing": True}
        cursor = f"{stamp(ledger)}.{span_of(request)}"
        if request.query_params.get("after") == cursor:
            return {"cursor": cursor, "same": True}
        return {"cursor": cursor, **whole(ledger, span_of(request), time.time())}

    def audit(request: Request) -> dict[str, Any]:
        ledger = site.ledger()
        if ledger is None:
            return {"missing": True, "entries": []}
        return trail(ledger, chain, _before(request))

    return [page_route("/access", "access.html", "/access"),
            Route("/api/access", as_json(access)), Route("/api/access/audit", as_json(audit))]


def span_of(request: Request) -> str:
    """How far back, by name; raises UnknownName."""
    found = request.query_params.get("span", "month")
    if found not in SPANS:
        raise UnknownName("span", found[:40], SPANS, where="span")
    return found


def stamp(ledger: Ledger) -> str:
    """Changes with each use, each change of access and each hold: three looks into indices."""
    import sqlalchemy as sa

    from curbcut.ledger import schema as tables

    newest = (sa.func.max(tables.uses.c.id), sa.func.max(tables.audit.c.sequence))
    with ledger.reading() as connection:
        used, changed = (connection.scalar(sa.select(one)) or 0 for one in newest)
        held = connection.execute(sa.select(
            sa.func.count(), sa.func.sum(tables.holds.c.covered_output_tokens)).where(
            tables.holds.c.state == "held")).one()
    return f"{used}.{changed}.{held[0]}.{held[1] or 0}"


def whole(ledger: Ledger, span: str, now: float) -> dict[str, Any]:
    """All that the page shows but the trail."""
    from curbcut.ledger import access, holds, leases, licences, plain, usage
    from curbcut.ledger.budgets import budgets
    from curbcut.ledger.prices import prices

    seconds = SPANS[span]
    start = None if seconds is None else now - seconds
    used = {kind: {getattr(one, column): figures(one)
                   for one in usage.used(ledger, start, by=[kind])}
            for kind, column in COLUMNS.items()}
    allowed, told = access.allowances(ledger), prices(ledger)
    limits: dict[str, list[dict[str, Any]]] = {}
    for budget in budgets(ledger, when=now):
        limits.setdefault(budget.scope, []).append(plain.budget(budget))

    def beside(scope: str) -> dict[str, Any]:
        found = allowed.get(scope)
        return {"allowance": None if found is None else plain.allowance(scope, found),
                "budgets": limits.get(scope, [])}

    models = sorted({*told, *used["model"]})
    return {
        "now": now, "since": start, "span": span,
        "servers": {"alive": leases.alive(ledger, now), "held": holds.live(ledger)},
        "models": [{"model": name, "price": plain.price(told[name]) if name in told else None,
                    **used["model"].get(name, NOTHING)} for name in models],
        "organisations": [{"name": name, **beside(f"organisation:{name}"),
                           **used["organisation"].get(name, NOTHING)}
                          for name in access.organisations(ledger)],
        "projects": [{"name": one.name, "organisation": one.organisation,
                      "archived": one.archived, **beside(f"project:{one.name}"),
                      **used["project"].get(one.name, NOTHING)}
                     for one in access.projects(ledger)],
        "keys": [{**plain.key(one, now), "line": one.line, **beside(f"key:{one.line or one.id}"),
                  **used["key"].get(one.id, NOTHING)} for one in access.kept_keys(ledger)],
        "unkeyed": used["key"].get(None, NOTHING),
        "licences": [plain.licence(one) for one in licences.licences(ledger)],
        "machine": _metered(ledger, start)}


def figures(found: Usage) -> dict[str, Any]:
    """What a group used, in what people count in; what is not known of any request is None. Sums
    are of the requests that are known: beside them stands of how many they are not.
    """
    from curbcut.ledger.amounts import kwh, usd

    return {
        "requests": found.requests, "prompt_tokens": found.prompt_tokens,
        "cached_tokens": found.cached_tokens, "output_tokens": found.output_tokens,
        "charged_usd": usd(found.charged_nanousd), "cost_usd": usd(found.cost_nanousd),
        "kwh": kwh(found.millijoules), "joules_per_token": found.joules_per_token,
        "usd_per_million": found.usd_per_million, "cost_per_million": found.cost_per_million,
        "charged_tokens": found.charged_tokens, "costed_tokens": found.costed_tokens,
        "metered_tokens": found.metered_tokens,
        "energy": ", ".join(sorted(found.by_basis)), "uncharged": found.uncharged,
        "uncosted": found.uncosted, "unmetered": found.unmetered, "last": found.last}


def _metered(ledger: Ledger, start: float | None) -> list[dict[str, Any]]:
    """Where the machines' joules and money went, idle time among it."""
    from curbcut.ledger.amounts import kwh, usd
    from curbcut.ledger.meterings import sum_meterings

    return [{"model": one.model, "kind": one.kind, "basis": one.basis, "seconds": one.seconds,
             "kwh": kwh(one.millijoules), "usd": usd(one.cost_nanousd), "kgco2e": one.kgco2e}
            for one in sum_meterings(ledger, start)]


class Chain:
    """The verdict on the audit chain, until it grows: to walk it takes a moment a thousand rows."""

    def __init__(self) -> None:
        self._known: tuple[str, float, Verdict] | None = None

    def verdict(self, ledger: Ledger, head: str) -> tuple[Verdict, float]:
        """Of the chain whose newest row is `head`, and when it was walked: now, unless the same was
        within the last minute.
        """
        from curbcut.ledger.audit import verify

        now = time.time()
        if self._known is None or self._known[0] != head or now - self._known[1] > 60:
            self._known = head, now, verify(ledger)
        return self._known[2], self._known[1]


def trail(ledger: Ledger, chain: Chain, before: int | None) -> dict[str, Any]:
    """Rows of the trail below the sequence number `before` (the newest where it is None), the
    newest first, and the verdict on all of it.
    """
    from curbcut.ledger.audit import entries
    from curbcut.report.access import told

    if before is None:
        found = entries(ledger, limit=ROWS, newest=True)
    else:
        found = entries(ledger, after=max(0, before - 1 - ROWS), limit=ROWS)
        found = [one for one in found if one.sequence < before]
    newest = entries(ledger, limit=1, newest=True)
    verdict, walked = chain.verdict(ledger, newest[0].hash if newest else "")
    return {"entries": [{"sequence": one.sequence, "time": one.time, "actor": one.actor,
                         "action": one.action, "subject": one.subject, "told": told(one.body),
                         "hash": one.hash} for one in reversed(found)],
            "verdict": {"rows": verdict.rows, "head": verdict.head, "fault": verdict.fault,
                        "walked": walked}}


def _before(request: Request) -> int | None:
    text = request.query_params.get("before", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InputError(f"{text[:40]!r} is no row", where="before", mend="give a whole number")
    return int(text)
