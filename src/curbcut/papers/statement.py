"""A month's account of an organisation or a project: what was used, charged, and what it took.

Figures are the ledger's own whole numbers; what nobody measured or modelled is None, and of how
many requests it is not known stands beside. Months are those of UTC.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from curbcut.errors import InputError, UnknownName
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH, kwh, usd

if TYPE_CHECKING:
    from curbcut.ledger.audit import Verdict
    from curbcut.ledger.budgets import Budget
    from curbcut.ledger.meterings import MeteringSum
    from curbcut.ledger.prices import Price
    from curbcut.ledger.store import Ledger
    from curbcut.ledger.usage import Usage

KINDS = {"requests": "requests, of everybody", "idle": "nobody (idle)",
         "lost": "work that was never settled", "correction": "counter beyond these"}
"""Where a machine's energy goes, in the words of a statement."""
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Requests of one key for one model, or of several together."""

    project: str = ""
    key: str = ""
    key_id: str = ""
    model: str = ""
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    engine_seconds: float | None = None
    charged_usd: float | None = None
    cost_usd: float | None = None
    kwh_measured: float | None = None
    """Of the devices: accelerators, or a CPU's cores and memory. None where there is none."""
    kwh_modelled: float | None = None
    gco2e: float | None = None
    """Operational, at the facility, by the grid of the place."""
    uncharged: int = 0
    """Requests without a charge; `uncosted`, `unmetered`: without a cost, without energy."""
    uncosted: int = 0
    unmetered: int = 0
    charged_tokens: int = 0
    """Answer tokens of the requests whose charge is known; `costed_tokens`, `metered_tokens`: whose
    cost, whose energy is."""
    costed_tokens: int = 0
    metered_tokens: int = 0

    @property
    def kwh(self) -> float | None:
        """Measured and modelled together."""
        return _sum((self.kwh_measured, self.kwh_modelled))

    @property
    def joules_per_token(self) -> float | None:
        """Of an answer, its prompt's share in it, as `ledger.usage` has it."""
        return _each(self.kwh, self.metered_tokens, MILLIJOULES_PER_KWH / 1000)

    @property
    def usd_per_million(self) -> float | None:
        """Charged for a million tokens of answers."""
        return _each(self.charged_usd, self.charged_tokens)

    @property
    def cost_per_million(self) -> float | None:
        """The cost of a million tokens of answers."""
        return _each(self.cost_usd, self.costed_tokens)

    @property
    def gco2e_per_million(self) -> float | None:
        """Of a million tokens of answers."""
        return _each(self.gco2e, self.metered_tokens)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where joules of the machines went, all organisations together."""

    kind: str
    seconds: float
    kwh: float | None
    usd: float | None
    gco2e: float | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One month of one scope."""

    scope: str
    """ "organisation:lab" or "project:thesis"."""
    month: str
    """As in "2026-11"."""
    start: float
    end: float
    until: float
    """Up to when it was known: the end, or now where the month is not over."""
    lines: tuple[Line, ...]
    by_model: tuple[Line, ...]
    total: Line
    parts: tuple[Part, ...] = ()
    budgets: tuple[Budget, ...] = ()
    prices: tuple[Price, ...] = ()
    sources: tuple[str, ...] = ()
    """How energy, money and carbon are known."""
    unkeyed: int = 0
    """Requests of a server without keys: they are of no organisation, and in no statement."""
    audit: Verdict | None = None

    @property
    def name(self) -> str:
        """The scope's name."""
        return self.scope.partition(":")[2]

    @property
    def whole(self) -> bool:
        """Whether the month is over."""
        return self.until >= self.end

    @property
    def idle_share(self) -> float | None:
        """Of the machines' energy, what went to nobody; None where it is not known."""
        known = [part.kwh for part in self.parts if part.kwh is not None]
        idle = sum(part.kwh or 0.0 for part in self.parts if part.kind == "idle")
        return idle / sum(known) if known and sum(known) > 0 else None


def month_of(text: str | None, now: float) -> tuple[str, float, float]:
    """A month as "2026-11" (None: that of `now`), its start and its end (seconds since 1970).

    Raises InputError for what is none, and for one that has not begun.
    """
    this = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
    said = this if text is None else text.strip()
    match = _MONTH.fullmatch(said)
    if match is None or match[1] == "0000":
        raise InputError(f"{said[:40]!r} is no month", where="statement",
                         mend=f"write it like {this}")
    if said > this:
        raise InputError(f"{said} has not begun", where="statement", mend=f"nearest: {this}")
    year, month = int(match[1]), int(match[2])
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return said, datetime(year, month, 1, tzinfo=UTC).timestamp(), after.timestamp()


def statement(ledger: Ledger, scope: str, month: str | None = None, *,
              now: float | None = None) -> Statement:
    """The account of "organisation:NAME" or "project:NAME" in a month (this one where None).

    Raises UnknownName for a scope that is not there, InputError for a month that is none.
    """
    from curbcut.ledger import audit, budgets, meterings, prices

    now = time.time() if now is None else now
    said, start, end = month_of(month, now)
    kind, name = _check(ledger, scope)
    used = _used(ledger, start, end, kind, name)
    sums = meterings.sum_meterings(ledger, start, end)
    carbon = _carbon(sums)
    lines = tuple(_line(one, carbon) for one in used)
    models = dict.fromkeys(line.model for line in lines)
    scopes = dict.fromkeys([scope, *(f"project:{line.project}" for line in lines if line.project),
                            *(f"key:{line.key_id}" for line in lines if line.key_id)])
    listed = prices.prices(ledger)
    return Statement(
        scope=scope, month=said, start=start, end=end, until=min(now, end), lines=lines,
        by_model=tuple(_together((line for line in lines if line.model == model), model)
                       for model in models),
        total=_together(lines), parts=_parts(sums),
        budgets=tuple(budgets.budgets(ledger, [*scopes], when=min(now, end - 1))),
        prices=tuple(listed[model] for model in models if model in listed),
        sources=tuple(meterings.sources(ledger, start, end)),
        unkeyed=_unkeyed(ledger, start, end), audit=audit.verify(ledger))


def rows(found: Statement) -> list[dict[str, str | int | float | None]]:
    """A statement as a flat table: a row a key and model, then the total, then the machines."""
    head = {"month": found.month, "scope": found.scope}
    names = [name for name in Line.__dataclass_fields__ if name not in _WHO]
    table: list[dict[str, str | int | float | None]] = []
    for what, line in [*(("use", line) for line in found.lines), ("total", found.total)]:
        table.append({**head, "line": what, **{name: getattr(line, name) for name in _WHO},
                      **{name: getattr(line, name) for name in names}, "machine_kwh": None})
    for part in found.parts:
        table.append({**dict.fromkeys(table[0]), **head, "line": f"machine: {part.kind}",
                      "engine_seconds": part.seconds, "cost_usd": part.usd,
                      "gco2e": part.gco2e, "machine_kwh": part.kwh})
    return table


def notes(found: Statement) -> list[str]:
    """What the sums leave out."""
    total = found.total
    parts = [(total.uncharged, "a charge"), (total.uncosted, "a cost"),
             (total.unmetered, "known energy")]
    said = [f"Of {total.requests:,} requests, {count:,} are without {what}."
            for count, what in parts if count]
    if found.unkeyed:
        said.append(f"{found.unkeyed:,} requests came without a key: they are of no organisation.")
    return said if found.whole else [*said, "The month is not over."]


def as_csv(found: Statement) -> str:
    """The rows as CSV; what is not known is empty. The last line holds the audit chain's head."""
    table = rows(found)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in table)
    if found.audit is not None:
        writer.writerow({"month": found.month, "scope": found.scope,
                         "line": f"audit: {found.audit.rows} rows, head {found.audit.head}"})
    return out.getvalue()


_WHO = ("project", "key", "key_id", "model")


def _safe(value: str | int | float | None) -> str | int | float | None:
    """Text that a spreadsheet would take for a formula is said to be text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _check(ledger: Ledger, scope: str) -> tuple[str, str]:
    from curbcut.ledger import access

    kind, _, name = scope.partition(":")
    if kind == "organisation":
        known: Sequence[str] = access.organisations(ledger)
    elif kind == "project":
        known = [one.name for one in access.projects(ledger)]
    else:
        raise UnknownName("kind of scope", kind, ("organisation", "project"), where=scope)
    if name not in known:
        raise UnknownName(kind, name, known, where="statement")
    return kind, name


def _used(ledger: Ledger, start: float, end: float, kind: str, name: str) -> list[Usage]:
    from curbcut.ledger.usage import used

    return used(ledger, start, end, by=("project", "key", "model"),
                organisation=name if kind == "organisation" else None,
                project=name if kind == "project" else None)


def _unkeyed(ledger: Ledger, start: float, end: float) -> int:
    from curbcut.ledger.usage import used

    return sum(one.requests for one in used(ledger, start, end, by=("organisation",))
               if one.organisation is None)


def _carbon(sums: Sequence[MeteringSum]) -> Mapping[str, float]:
    """Grams of a model's requests for each millijoule of the devices."""
    grams: dict[str, float] = {}
    joules: dict[str, int] = {}
    for one in sums:
        if one.kind == "requests" and one.millijoules and one.kgco2e is not None:
            grams[one.model] = grams.get(one.model, 0.0) + one.kgco2e * 1000
            joules[one.model] = joules.get(one.model, 0) + one.millijoules
    return {model: grams[model] / joules[model] for model in grams}


def _line(one: Usage, carbon: Mapping[str, float]) -> Line:
    model = one.model or ""
    each = carbon.get(model.partition(":")[0])
    counted = one.by_basis.get("measured")
    rest = [value for basis, value in one.by_basis.items() if basis != "measured"]
    return Line(
        project=one.project or "", key=one.key or "", key_id=one.key_id or "", model=model,
        requests=one.requests, prompt_tokens=one.prompt_tokens, cached_tokens=one.cached_tokens,
        answer_tokens=one.output_tokens, engine_seconds=one.engine_seconds,
        charged_usd=usd(one.charged_nanousd), cost_usd=usd(one.cost_nanousd),
        kwh_measured=kwh(counted),
        kwh_modelled=kwh(sum(rest)) if rest else None,
        gco2e=None if each is None or one.millijoules is None else each * one.millijoules,
        uncharged=one.uncharged, uncosted=one.uncosted, unmetered=one.unmetered,
        charged_tokens=one.charged_tokens, costed_tokens=one.costed_tokens,
        metered_tokens=one.metered_tokens)


def _together(lines: Iterable[Line], model: str = "") -> Line:
    """All lines as one; what is known of none of them is None."""
    every = list(lines)
    figures: dict[str, Any] = {
        name: (_sum if name in _MAYBE else sum)(getattr(line, name) for line in every)
        for name in Line.__dataclass_fields__ if name not in _WHO}
    return Line(model=model, **figures)


_MAYBE = ("engine_seconds", "charged_usd", "cost_usd", "kwh_measured", "kwh_modelled", "gco2e")


def _parts(sums: Sequence[MeteringSum]) -> tuple[Part, ...]:
    found = []
    for kind in KINDS:
        mine = [one for one in sums if one.kind == kind]
        if mine:
            carbon = _sum(one.kgco2e for one in mine)
            found.append(Part(
                kind=kind, seconds=sum(one.seconds for one in mine),
                kwh=_sum(kwh(one.millijoules) for one in mine),
                usd=_sum(usd(one.cost_nanousd) for one in mine),
                gco2e=None if carbon is None else carbon * 1000))
    return tuple(found)


def _each(figure: float | None, tokens: int, times: float = 1e6) -> float | None:
    from curbcut.ledger.usage import each

    return each(None if figure is None else figure * times, tokens)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
