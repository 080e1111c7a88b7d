"""Who may ask what, as tables: keys, limits, budgets, prices, texts, the audit chain."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from curbcut.ledger import access, plain, said, usage
from curbcut.ledger import budgets as ledger_budgets
from curbcut.ledger import licences as ledger_licences
from curbcut.ledger import prices as ledger_prices
from curbcut.ledger.access import Allowance, Project
from curbcut.ledger.amounts import NAMES, UNITS, Unit, kwh, usd
from curbcut.ledger.audit import Entry
from curbcut.ledger.budgets import Budget
from curbcut.ledger.keys import KeptKey
from curbcut.ledger.licences import Licence
from curbcut.ledger.prices import Price
from curbcut.ledger.usage import Usage
from curbcut.report.tables import Cell, Column, Table, Value

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

_EVERY = {"all": "", "month": "a month", "day": "a day"}


def tables(ledger: Ledger, names: Sequence[str] = ()) -> list[Table]:
    """Organisations, keys, limits, budgets, prices and licences, or those that are named."""
    return [_PARTS[name][0](ledger) for name in names or _PARTS]


def as_plain(ledger: Ledger, names: Sequence[str] = ()) -> dict[str, Any]:
    """The same for programs."""
    return {name: _PARTS[name][1](ledger) for name in names or _PARTS}


def organisations(names: Sequence[str], projects: Sequence[Project]) -> Table:
    """Organisations with their projects; an ended project says when it ended."""
    rows: list[Sequence[Value]] = []
    for name in names:
        of = [one for one in projects if one.organisation == name]
        rows += [(name, one.name, _day(one.created), _day(one.archived)) for one in of] \
            or [(name, "", "", "")]
    return Table("Organisations and projects", (
        Column("organisation"), Column("project"), Column("made"), Column("ended")), rows)


def keys(kept: Sequence[KeptKey], used: Sequence[Usage], now: float) -> Table:
    """Keys with what was asked with each; the secret is not known here. Uses of ledgers from before
    keys had projects know the key's name only.
    """
    by: dict[tuple[str | None, str | None], list[Usage]] = {}
    for one in used:
        by.setdefault((one.key_id, None if one.key_id else one.key), []).append(one)
    rows: list[Sequence[Value]] = []
    for key in kept:
        mine = by.get((key.id, None), []) + by.get((None, key.name), [])
        state = plain.state(key, now)
        rows.append((
            f"ck-{key.id}", Cell(key.name, "bold"), key.project, key.role, key.owner,
            _day(key.created), _moment(key.expires)[:16],
            Cell(state, "" if state == "live" else "dim"),
            sum(one.requests for one in mine), sum(one.tokens for one in mine)))
    return Table("Keys", (
        Column("key"), Column("name", wrap=True, least=12), Column("project"), Column("role"),
        Column("owner", least=6), Column("made"), Column("ends (UTC)", name="ends"),
        Column("state"), Column("requests", unit="count"), Column("tokens", unit="count")), rows)


def limits(allowances: Mapping[str, Allowance], names: Mapping[str, str]) -> Table:
    """What each scope may ask at a time; `names`: of keys, by id."""
    rows: list[Sequence[Value]] = []
    for scope, one in sorted(allowances.items()):
        models = "any" if one.models is None else ", ".join(one.models) or "none"
        rows.append((
            _scope(scope, names), models, _count(one.requests_a_minute),
            _count(one.tokens_a_minute), _count(one.concurrency), f"{one.weight:g}"))
    return Table("Limits", (
        Column("scope", wrap=True, least=20), Column("models", wrap=True, least=12),
        Column("requests a minute", True), Column("tokens a minute", True),
        Column("at a time", True), Column("weight", True)), rows)


def budgets(found: Sequence[Budget], names: Mapping[str, str]) -> Table:
    """Budgets with what is spent and held of them in this period, and left; `names`: of keys, by
    id.
    """
    rows: list[Sequence[Value]] = [
        (_scope(one.scope, names), NAMES[one.unit],
         *(_amount(one.unit, value) for value in (one.amount, one.spent, one.held, one.left)),
         Cell(_EVERY[one.period], plain=one.period)) for one in found]
    return Table("Budgets", (
        Column("scope", wrap=True, least=20), Column("unit", only="programs"),
        *(Column(name, True) for name in ("budget", "spent", "held", "left")), Column("each")),
        rows)


def prices(found: Mapping[str, Price]) -> Table:
    """What a million tokens cost, and take at most."""
    rows: list[Sequence[Value]] = [
        (name, usd(one.prompt_nanousd), usd(one.cached_nanousd), usd(one.output_nanousd),
         kwh(one.prompt_millijoules), kwh(one.output_millijoules), one.basis, one.source)
        for name, one in sorted(found.items())]
    return Table("Prices of a million tokens", (
        Column("model", wrap=True, least=12), Column("prompt", unit="usd"),
        Column("remembered", unit="usd"), Column("answer", unit="usd"),
        Column("prompt at most", unit="kwh"), Column("answer at most", unit="kwh"),
        Column("basis"), Column("source", least=8)), rows)


def licences(found: Sequence[Licence]) -> Table:
    """Texts that must be accepted before a key is issued."""
    return Table("Texts to accept", (
        Column("scope", wrap=True, least=20), Column("hash"), Column("since"), Column("ended"),
        Column("characters", unit="count")),
        [(one.scope, one.hash[:12], _day(one.set), _day(one.ended), len(one.text))
         for one in found])


def audit(found: Sequence[Entry]) -> Table:
    """Rows of the audit chain."""
    rows: list[Sequence[Value]] = [
        (str(one.sequence), _moment(one.time), one.actor, one.action, one.subject, told(one.body))
        for one in found]
    return Table("", (
        Column("row", True), Column("time (UTC)", name="time"), Column("who", wrap=True, least=10),
        Column("what"), Column("on", wrap=True, least=12),
        Column("told", wrap=True, least=16)), rows)


def told(body: Mapping[str, Any]) -> str:
    """The body of an audit row as people read it: "amount $5.00, period month"."""
    words = []
    for name, value in body.items():
        unit = next((one for one in UNITS if name.endswith(f"_{one}")
                     or (name == "amount" and body.get("unit") == one)), None)
        if unit and isinstance(value, int):
            name, value = name.removesuffix(f"_{unit}"), said.show(unit, value)
            name += " at most" if unit == "millijoules" and name != "amount" else ""
        elif name == "expires" and isinstance(value, int | float):
            value = _moment(value)
        elif name == "hash":
            value = str(value)[:12]
        elif name == "models" and isinstance(value, str):
            value = " ".join(json.loads(value)) or "none"
        elif name == "unit":
            value = None if body.get("amount") is not None else NAMES.get(value, value)
        elif isinstance(value, Mapping):
            value = ", ".join(f"{one} {what}" for one, what in value.items())
        elif isinstance(value, float):
            value = f"{value:g}"
        if value not in (None, ""):
            words.append(f"{name.replace('_', ' ')} {value}")
        elif name == "amount":
            words.append("ended")
    return ", ".join(words)


def _scope(scope: str, names: Mapping[str, str]) -> Cell:
    """A key's scope bears its id; people know it by its name."""
    name = names.get(scope.removeprefix("key:")) if scope.startswith("key:") else None
    return Cell(f"{scope} ({name})" if name else scope, plain=scope)


def _names(ledger: Ledger) -> Mapping[str, str]:
    """Of keys, by the id of the first of their line: the newest has the name."""
    return {key.line or key.id: key.name for key in access.kept_keys(ledger)}


def _amount(unit: Unit, value: int) -> Cell:
    return Cell(said.show(unit, value), plain=value / plain.EACH[unit])


def _count(value: int | None) -> Cell:
    return Cell("any", "dim", None) if value is None else Cell(f"{value:,}", plain=float(value))


def _day(when: float | None) -> str:
    return _moment(when)[:10]


def _moment(when: float | None) -> str:
    at = None if when is None else datetime.fromtimestamp(when, UTC)
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def _keys(ledger: Ledger) -> Table:
    return keys(access.kept_keys(ledger), usage.used(ledger, by=("key",)), time.time())


def _plain_organisations(ledger: Ledger) -> list[dict[str, Any]]:
    found = access.projects(ledger)
    return [{"name": name, "projects": [vars(one) for one in found if one.organisation == name]}
            for name in access.organisations(ledger)]


def _plain_keys(ledger: Ledger) -> list[dict[str, Any]]:
    kept, counted = access.kept_keys(ledger), _keys(ledger).rows
    return [{**plain.key(key, time.time()), "requests": row[-2], "tokens": row[-1]}
            for key, row in zip(kept, counted, strict=True)]


_PARTS: Mapping[str, tuple[Callable[[Ledger], Table], Callable[[Ledger], Any]]] = {
    "organisations": (lambda ledger: organisations(access.organisations(ledger),
                                                   access.projects(ledger)),
                      _plain_organisations),
    "keys": (_keys, _plain_keys),
    "limits": (lambda ledger: limits(access.allowances(ledger), _names(ledger)),
               lambda ledger: [plain.allowance(scope, one) for scope, one
                               in sorted(access.allowances(ledger).items())]),
    "budgets": (lambda ledger: budgets(ledger_budgets.budgets(ledger), _names(ledger)),
                lambda ledger: [plain.budget(one) for one in ledger_budgets.budgets(ledger)]),
    "prices": (lambda ledger: prices(ledger_prices.prices(ledger)),
               lambda ledger: [plain.price(one) for _, one
                               in sorted(ledger_prices.prices(ledger).items())]),
    "licences": (lambda ledger: licences(ledger_licences.licences(ledger)),
                 lambda ledger: [plain.licence(one)
                                 for one in ledger_licences.licences(ledger)]),
}
