"""What was used between two times, by organisation, project, key, model and stretch of time.

A use belongs to the time at which it was settled; so months add up to the year. A sum of figures
of which none is known is None, never 0, and beside each sum stands of how many requests it is not
known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa

from curbcut.errors import InputError, UnknownName
from curbcut.ledger.amounts import usd
from curbcut.ledger.prices import MILLION
from curbcut.ledger.schema import uses

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

By = Literal["organisation", "project", "key", "model"]
BY: tuple[By, ...] = get_args(By)
MOST_LINES = 100_000
"""Of one answer: years by the minute are refused, before they fill the memory."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "organisation": ("organisation",), "project": ("project",), "key": ("key_id", "key"),
    "model": ("model",)}
_ADDED = ("prompt_tokens", "cached_tokens", "output_tokens", "seconds", "engine_seconds",
          "charged_nanousd", "cost_nanousd", "millijoules")
_FRACTIONS = ("seconds", "engine_seconds")
_KNOWN = {"uncharged": "charged_nanousd", "uncosted": "cost_nanousd", "unmetered": "millijoules"}
_ANSWERED = {"charged_tokens": "charged_nanousd", "costed_tokens": "cost_nanousd",
             "metered_tokens": "millijoules"}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Requests of one group; what it is not grouped by is None."""

    organisation: str | None = None
    project: str | None = None
    key_id: str | None = None
    key: str | None = None
    model: str | None = None
    start: float | None = None
    """Start of the stretch of time (seconds since 1970), where asked for by stretches."""
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's, those that were remembered."""
    output_tokens: int = 0
    seconds: float = 0.0
    """Of all requests from acceptance to end; they overlap."""
    engine_seconds: float | None = None
    """Their shares of the engine's steps."""
    charged_nanousd: int | None = None
    """By the price list."""
    cost_nanousd: int | None = None
    """Their shares of the machine's money."""
    millijoules: int | None = None
    by_basis: Mapping[str, int] = field(default_factory=dict)
    """Millijoules by how they are known: measured, modelled, ..."""
    uncharged: int = 0
    """Requests without a charge; `uncosted`, `unmetered`: without a cost, without joules."""
    uncosted: int = 0
    unmetered: int = 0
    charged_tokens: int = 0
    """Answer tokens of the requests whose charge is known: what is told a token is of these alone;
    `costed_tokens`, `metered_tokens`: whose cost, whose joules are."""
    costed_tokens: int = 0
    metered_tokens: int = 0
    abandoned: int = 0
    """Requests whose server died; what was delivered of them is charged."""
    first: float = 0.0
    """Time of the first one."""
    last: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.output_tokens

    @property
    def joules_per_token(self) -> float | None:
        """Of an answer, its prompt's share in it; None where it is not known."""
        return each(self.millijoules, 1000 * self.metered_tokens)

    @property
    def usd_per_million(self) -> float | None:
        """Charged for a million tokens of answers, their prompts in it; None where not known."""
        return each(usd(self.charged_nanousd), self.charged_tokens / MILLION)

    @property
    def cost_per_million(self) -> float | None:
        """The same of the cost."""
        return each(usd(self.cost_nanousd), self.costed_tokens / MILLION)


def each(figure: float | None, of: float) -> float | None:
    """`figure` over what it is of; None where either is not known, or nothing."""
    return None if figure is None or not of else figure / of


def used(ledger: Ledger, start: float | None = None, end: float | None = None, *,
         by: Sequence[By] = BY, every_seconds: float | None = None,
         organisation: str | None = None, project: str | None = None, key_id: str | None = None,
         model: str | None = None) -> list[Usage]:
    """What was used from `start` on and before `end` (seconds since 1970), a line a group of `by`
    (none: one line of all, if there is any use) and, with `every_seconds`, a stretch of time.

    The last four narrow it. Ordered by the groups. Raises UnknownName for another grouping,
    InputError for more than `MOST_LINES` lines.
    """
    for name in by:
        if name not in BY:
            raise UnknownName("grouping", name, BY, where="usage")
    names = [column for name in by for column in _COLUMNS[name]]
    chosen = {"organisation": organisation, "project": project, "key_id": key_id, "model": model}
    with ledger.reading() as connection:
        query = _query(connection, names, every_seconds)
        query = query.where(*(uses.c[name] == value for name, value in chosen.items()
                              if value is not None))
        query = query if start is None else query.where(uses.c.time >= start)
        query = query if end is None else query.where(uses.c.time < end)
        found = [dict(row._mapping) for row in connection.execute(query.limit(MOST_LINES + 1))]
    if len(found) > MOST_LINES:
        raise InputError(f"these are more than {MOST_LINES} lines", where="usage",
                         mend="ask for less time, longer stretches, or fewer groups")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault(tuple(row[name] for name in (*names, "start")), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: tuple(
        (value is not None, value) for value in item[0]))
    return [_usage(dict(zip((*names, "start"), group, strict=True)), rows, every_seconds)
            for group, rows in ordered]


def _query(connection: sa.Connection, names: Sequence[str], every: float | None) -> Any:
    """By basis of the joules too: these are put together afterwards."""
    stretch: Any = sa.literal(None)
    if every is not None:
        # PostgreSQL rounds a cast, and not every SQLite knows floor.
        ratio = uses.c.time / every
        cut = sa.func.floor(ratio) if connection.dialect.name == "postgresql" else ratio
        stretch = sa.cast(cut, sa.BigInteger)
    group = [*(uses.c[name] for name in names), uses.c.energy_basis]
    known = [sa.func.count(uses.c[column]).label(name) for name, column in _KNOWN.items()]
    known += [sa.func.sum(sa.case((uses.c[column].is_not(None), uses.c.output_tokens), else_=0))
              .label(name) for name, column in _ANSWERED.items()]
    died = sa.func.sum(sa.case((uses.c.finish == "abandoned", 1), else_=0)).label("abandoned")
    query = sa.select(
        *group, stretch.label("start"), sa.func.count().label("requests"),
        *(sa.func.sum(uses.c[name]).label(name) for name in _ADDED), *known, died,
        sa.func.min(uses.c.time).label("first"), sa.func.max(uses.c.time).label("last"))
    return query.group_by(*group, *(() if every is None else ("start",)))


def _usage(group: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
           every: float | None) -> Usage:
    sums: dict[str, Any] = {}
    for name in _ADDED:
        values = [row[name] for row in rows if row[name] is not None]
        total = sum(values) if values else None
        sums[name] = total if total is None or name in _FRACTIONS else int(total)
    requests = sum(row["requests"] for row in rows)
    lacking = {name: requests - sum(row[name] for row in rows) for name in _KNOWN}
    answered: dict[str, Any] = {name: sum(int(row[name]) for row in rows) for name in _ANSWERED}
    bases: dict[str, int] = {}
    for row in rows:
        if row["millijoules"] is not None:
            bases[row["energy_basis"]] = int(row["millijoules"])
    start = None if every is None else group["start"] * every
    return Usage(**{**group, "start": start}, **sums, **lacking, **answered, requests=requests,
                 by_basis=bases, abandoned=sum(int(row["abandoned"]) for row in rows),
                 first=min(row["first"] for row in rows), last=max(row["last"] for row in rows))
