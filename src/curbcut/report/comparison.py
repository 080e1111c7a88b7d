"""Promised against measured, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.ledger import codec
from curbcut.report import tables
from curbcut.report.account import WAYS, not_known, reason
from curbcut.report.labels import GROUPS, called, label
from curbcut.report.tables import Cell, Column, Figure, Table, Value
from curbcut.spec import UNIT_OF, Account, Comparison, Estimate

if TYPE_CHECKING:
    from rich.console import Console

_PROJECT = frozenset({"project", "development"})
"""Kinds that are of all runs of a project."""


@dataclass(frozen=True)
class Verdict:
    """How many promises could be checked, and which figures were not held or not known."""

    checked: int
    outside: tuple[Comparison, ...]
    unmeasured: tuple[Comparison, ...]
    unpromised: tuple[Comparison, ...]
    """Figures that were measured, and that the forecast says it could not know."""

    @property
    def held(self) -> int:
        """Promises whose measurement fell inside their interval."""
        return self.checked - len(self.outside)


def compared(promised: Account, measured: Account) -> list[Comparison]:
    """Lines of promises: other ways to pay, and figures of a whole project, are none of one run."""
    return [line for line in promised.against(measured) if not _no_promise(line)]


def _no_promise(line: Comparison) -> bool:
    return line.section == WAYS or line.kind in _PROJECT


def verdict(lines: Iterable[Comparison]) -> Verdict:
    """Counts the lines: a promise is checked where both sides have a figure.

    What was given exactly (tokens asked for, FLOPs counted) is no promise.
    """
    lines = list(lines)
    checked = [line for line in lines if line.inside is not None and not _exact(line)]
    return Verdict(
        len(checked), tuple(line for line in checked if line.inside is False),
        tuple(line for line in lines if _known(line.promised) and not _known(line.measured)),
        tuple(line for line in lines if line.promised is not None and not line.promised.known
              and _known(line.measured)))


def print_comparison(promised: Account, measured: Account, *, currency: str = "USD",
                     console: Console | None = None) -> None:
    """Prints each promise beside its measurement, and how many were held."""
    tables.show(comparison_tables(promised, measured, currency=currency), console=console)


def comparison_tables(promised: Account, measured: Account, *, title: str = "",
                      currency: str = "USD") -> list[Table]:
    """Each promise beside its measurement, and how many were held. What was not measured has no
    row: the closing sentences say it, with what was promised.
    """
    lines = compared(promised, measured)
    rows: list[Sequence[Value]] = []
    for group, sections in GROUPS.items():
        mine = [line for line in lines if line.section in sections and _known(line.measured)]
        rows += [(Cell(group if i == 0 else "", "bold", group), *_cells(line))
                 for i, line in enumerate(mine)]
    found = verdict(lines)
    notes = _closing(lines, found, currency)
    if len(lines) < len(promised.against(measured)):
        notes.append("not compared: other ways to pay, and the whole project's figures, are no "
                     "promises of this run")
    return [Table(title, (
        Column("", name="group"), Column("", name="figure", least=10),
        Column("", name="key", only="programs"), Column("promised", right=True, interval=True),
        Column("measured", right=True), Column("unit", only="programs"),
        Column("ratio", right=True), Column("", name="verdict")), rows, (), currency),
        Table(_verdict_line(found), (), (), notes)]


def _exact(line: Comparison) -> bool:
    """Whether the promise is a figure that somebody stated or counted, without an interval."""
    promised = line.promised
    return promised is not None and promised.basis == "given" and promised.low == promised.high


def _cells(line: Comparison) -> tuple[Value, ...]:
    unit, promised, measured = UNIT_OF[line.section], line.promised, line.measured
    assert measured is not None
    expected: Value = Cell("not promised", "dim", None)
    if promised is not None:
        expected = Figure(promised, unit)
    return (label(line.section, line.kind), f"{line.section}.{line.kind}", expected,
            Figure(measured.value, unit), unit, Cell(_ratio(line), plain=line.ratio), _mark(line))


def _ratio(line: Comparison) -> str:
    if line.ratio is None:
        return ""
    return f"{line.ratio:.2f}" if 0.1 <= line.ratio < 100 else units.sig(line.ratio, 2)


def _mark(line: Comparison) -> Cell:
    if line.ratio is not None and _exact(line):
        same = round(line.ratio, 2) == 1.0  # what prints as 1.00 does not differ
        return Cell("equal", "green") if same else Cell("differs", "yellow")
    return {True: Cell("inside", "green"), False: Cell("OUTSIDE", "bold red"),
            None: Cell("")}[line.inside]


def _verdict_line(found: Verdict) -> str:
    if not found.checked:
        return "no promise could be checked"
    promises = "promise" if found.checked == 1 else "promises"
    said = [f"{_name(line)} {units.sig(line.ratio or 0.0, 2)}x" for line in found.outside]
    outside = f"; outside: {', '.join(said)}" if said else ""
    return f"{found.held} of {found.checked} {promises} held{outside}"


def _closing(lines: Sequence[Comparison], found: Verdict, currency: str) -> list[str]:
    """What has no row or no promise, in as few lines as there are reasons."""
    unmeasured, said = list(found.unmeasured), []
    modelled = any(line.section == "kwh_modelled" and _known(line.measured) for line in lines)
    silent = [line for line in unmeasured if line.section in ("watts", "kwh")]
    if modelled and any(line.section == "kwh" for line in silent):
        why = next(line.measured.source for line in reversed(silent) if line.measured)
        said.append(f"{why}: watts and kWh are modelled (see the energy lines marked \"model\")")
        unmeasured = [line for line in unmeasured if line not in silent]
    said += _reasons("not measured", [
        (f"{_name(line)} {tables.figure(line.promised.value, line.section, currency)}", line.kind,
         line.measured) for line in unmeasured if line.promised])
    said += _reasons("not promised", [(_name(line), line.kind, line.promised)
                                      for line in found.unpromised])
    return said + not_known((line.section, line.kind, side) for line in lines
                            if not _known(line.promised) and not _known(line.measured)
                            for side in [line.measured or line.promised] if side)


def _reasons(what: str, missing: Iterable[tuple[str, str, Estimate | None]]) -> list[str]:
    """A line for each reason why the figures of one side are not known."""
    reasons: dict[str, list[str]] = {}
    for name, kind, side in missing:
        reasons.setdefault(reason(kind, side) if side else "", []).append(name)
    return [f"{what}{f' ({why})' if why else ''}: {', '.join(names)}"
            for why, names in reasons.items()]


def _name(line: Comparison) -> str:
    return called(line.section, line.kind)


def _known(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.known


def as_plain(promised: Account | None, measured: Account | None) -> dict[str, Any]:
    """A comparison as JSON-ready data; what is not known is None."""
    plain: dict[str, Any] = {
        "promised": None if promised is None else codec.plain(promised),
        "measured": None if measured is None else codec.plain(measured)}
    if promised is not None and measured is not None:
        lines = compared(promised, measured)
        count = verdict(lines)
        plain |= {"held": count.held, "checked": count.checked, "lines": [
            {"section": line.section, "figure": line.kind, "ratio": line.ratio,
             "inside": line.inside} for line in lines]}
    return plain | {"notes": []}
