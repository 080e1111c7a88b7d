"""Who worked on four models, how long, and what they earned: Epoch AI's inputs (Apache-2.0).

Each range is a 90% interval. The notebook's, of arXiv:2405.21015; its names of people are not kept.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import table
from curbcut.facts.epoch import day_of
from curbcut.facts.table import Row

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Role:
    """People of one kind in a project."""

    name: str
    people: int
    fte: Range
    """Share of full time of each, over the project."""
    salary_usd: Range
    """A year, without overheads."""
    equity_usd: Range
    """A year."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """How long a model's project took, and who took part.

    Either `years`, or from a day between the two of `start` to `end` less a delay.
    """

    model: str
    years: Range | None
    start: tuple[date, date] | None
    end: date | None
    delay_days: Range | None
    least_days: float
    roles: tuple[Role, ...]
    source: str


def projects() -> list[Project]:
    """All projects, in the order of the file."""
    return list(_projects(table.overlay_folder()).values())


def project(model: str) -> Project:
    """The project of a model; raises UnknownName with the nearest names."""
    found = _projects(table.overlay_folder())
    if model not in found:
        raise UnknownName("project", model, found)
    return found[model]


@functools.cache
def _projects(overlay: Path) -> dict[str, Project]:
    roles: dict[str, list[Role]] = {}
    for row in table.rows("epoch/contributors", ("model", "role")):
        roles.setdefault(row.text("model"), []).append(Role(
            name=row.text("role"), people=row.whole("people"), fte=_range(row, "fte"),
            salary_usd=_range(row, "salary"), equity_usd=_range(row, "equity")))
    return {row.text("model"): _project(row, tuple(roles.get(row.text("model"), ())))
            for row in table.rows("epoch/projects", ("model",))}


def _project(row: Row, roles: tuple[Role, ...]) -> Project:
    first, last = day_of(row, "start_low"), day_of(row, "start_high")
    return Project(
        model=row.text("model"),
        years=_range(row, "years") if row.maybe_text("years_low") else None,
        start=(first, last) if first and last else None, end=day_of(row, "end"),
        delay_days=_range(row, "delay_days") if row.maybe_text("delay_days_low") else None,
        least_days=row.maybe_number("least_days") or 0.0, roles=roles, source=row.text("source"))


def _range(row: Row, name: str) -> Range:
    return row.number(f"{name}_low"), row.number(f"{name}_high")
