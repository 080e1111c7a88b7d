"""A forecast as one table a person enjoys, and promised against measured, line by line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.ledger import codec
from curbcut.report import tables
from curbcut.report.tables import Cell, Column
from curbcut.spec import Account, Comparison, Estimate, Resolved
from curbcut.spec import codec as spec_codec

if TYPE_CHECKING:
    from rich.console import Console

Line = tuple[str, str, Estimate]
"""Section, kind and figure, as `Account.lines` gives them."""

SOURCES_WIDTH = 140
"""Console width from which a plan has its sources in a column, and not below the table."""

_SPEAKS_ALONE = frozenset({"ownership", "staff", "rent", "embodied", "gradients", "optimiser",
                           "activations", "logits"})
"""Kinds whose name is clear without the group's."""


def print_plan(run: Resolved, account: Account, *, notes: Sequence[str] = (),
               console: Console | None = None) -> None:
    """Prints what the run is and each figure of its forecast: value, interval, basis, source."""
    from rich.text import Text

    console = console or tables.plain_console()
    currency = run.run.place.currency
    _print_headline(run, console)
    lines = list(_plan_lines(account))
    rows: list[list[Cell | str]] = []
    for group, sections in tables.GROUPS.items():
        mine = [line for line in lines if line[0] in sections and line[2].known]
        rows += [[Cell(group if i == 0 else "", "bold"), *_plan_cells(*line, currency)]
                 for i, line in enumerate(mine)]
        if group == "memory" and mine:
            rows += _fit_row(run, account)
    # A source is a sentence: it has a column only where there is room to read it.
    wide = console.width >= SOURCES_WIDTH
    columns = [Column(""), Column("", least=12), Column("forecast", right=True),
               Column("90% interval", right=True, least=12), Column("basis"),
               Column("source", least=6)]
    tables.print_rows(console, columns if wide else columns[:-1],
                      rows if wide else [row[:-1] for row in rows])
    console.print()
    unknown = _not_known((section, kind, estimate.source) for section, kind, estimate in lines
                         if not estimate.known)
    for note in [*unknown, *notes, *_currency_note(currency)]:
        console.print(Text(note, "dim"))
    if not wide:
        _print_sources(lines, console)


def _plan_lines(account: Account) -> Iterator[Line]:
    """All lines but the modelled energy, where a forecast says its energy once more."""
    for section, kind, estimate in account.lines():
        if section != "kwh_modelled" or estimate != account.get("kwh", kind):
            yield section, kind, estimate


def _plan_cells(section: str, kind: str, estimate: Estimate, currency: str) -> list[Cell | str]:
    return [tables.label(section, kind), tables.figure(estimate.value, section, currency),
            tables.interval(estimate, section, currency), estimate.basis,
            Cell(estimate.source, "dim")]


def _not_known(missing: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line for all figures of which nothing is known: those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for section, kind, reason in missing:
        why = reason.removeprefix(f"{kind} not included: ").removeprefix("staff not included: ")
        reasons.setdefault(why, []).append(_called(section, kind))
    said = [", ".join(names) + (f" ({why})" if why else "") for why, names in reasons.items()]
    return [f"not known: {'; '.join(said)}"] if said else []


def _print_sources(lines: Sequence[Line], console: Console) -> None:
    """Where the figures come from, a paragraph a group; what was given or counted needs none."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    for group, sections in tables.GROUPS.items():
        said = list(dict.fromkeys(
            estimate.source for section, _, estimate in lines if section in sections
            and estimate.known and estimate.basis != "given" and estimate.source))
        # "watts" and then "watts, x time": the longer one says both.
        said = [one for one in said if not any(o != one and o.startswith(one) for o in said)]
        if said:
            grid.add_row(Text(group, "dim"), Text("; ".join(said), "dim"))
    if grid.row_count:
        console.print(Text("where these figures come from:", "dim"))
        console.print(grid)


def _print_headline(run: Resolved, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_row(Text("run", "bold"), Text(run.run.name, "bold"))
    for title, what, why in headline(run):
        grid.add_row(Text(title, "bold"), Text.assemble(what, (f"  ({why})" if why else "", "dim")))
    console.print(grid)
    console.print()


def headline(resolved: Resolved) -> list[tuple[str, str, str]]:
    """What is run on what, and how: (title, what, who or what chose it), a row each."""
    run, origins = resolved.run, resolved.origins
    model, recipe, machine = run.model, run.recipe, run.machine

    def by(*keys: str) -> str:
        return "; ".join(dict.fromkeys(origins[key] for key in keys if origins.get(key)))

    shape = f"{model.preset}, " if model.preset else (
        f"{model.layers} layers of width {model.width:,}, ")
    count = f"{machine.accelerators} x " if machine.accelerators > 1 else ""
    name = f"{machine.name}: " if machine.name == "here" else ""
    cores = f", {machine.cores} cores" if machine.kind == "cpu" and machine.cores else ""
    return [
        ("model", f"{shape}{units.show(model.parameters, 'count')} parameters",
         by("model.preset") if model.preset else by("model.layers", "model.width")),
        ("text", f"{units.show(run.train.tokens, 'count')} tokens of {_text(resolved)}",
         by("train.tokens", "train.text")),
        ("machine", f"{name}{count}{machine.accelerator}{cores}", by("machine.name")),
        ("steps", f"{run.steps:,} of {recipe.global_batch:,} x {recipe.sequence_tokens:,} tokens, "
         f"in micro-batches of {recipe.micro_batch:,}",
         by("recipe.global_batch", "recipe.micro_batch")),
        ("numbers", recipe.precision, by("recipe.precision")),
        ("learning", f"{recipe.optimiser} at {units.sig(recipe.learning_rate)}, "
         f"{recipe.schedule} schedule", by("recipe.learning_rate", "recipe.schedule")),
    ]


def fit(peak: Estimate | None, memory_bytes: int) -> str | None:
    """Whether the peak fits: "yes", "perhaps" (only its upper end does not), "no"; None unknown."""
    if peak is None or peak.value is None or peak.high is None:
        return None
    if peak.value > memory_bytes:
        return "no"
    return "yes" if peak.high <= memory_bytes else "perhaps"


def _fit_row(run: Resolved, account: Account) -> list[list[Cell | str]]:
    memory, peak = run.run.machine.memory_bytes, account.get("memory_bytes", "peak")
    verdict = fit(peak, memory)
    if verdict is None or peak is None or peak.value is None:
        return []
    colour = {"yes": "green", "no": "bold red", "perhaps": "yellow"}[verdict]
    return [["", "fits", Cell(verdict, colour),
             f"{100 * peak.value / memory:.0f}% of {units.show(memory, 'bytes')}", "",
             Cell(run.run.machine.source, "dim")]]


def _currency_note(currency: str) -> list[str]:
    if currency == "USD":
        return []
    from curbcut.facts.currency import usd_per

    rate = usd_per(currency)
    return [f"1 {currency} = {rate.value:g} USD ({rate.year}, {rate.source})"]


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
    """Prints each promise beside its measurement, and how many were held.

    What was not measured has no row: the closing lines say it, with what was promised.
    """
    from rich.text import Text

    console = console or tables.plain_console()
    lines = promised.against(measured)
    rows: list[list[Cell | str]] = []
    for group, sections in tables.GROUPS.items():
        mine = [line for line in lines if line.section in sections and _known(line.measured)]
        rows += [[Cell(group if i == 0 else "", "bold"), *_comparison_cells(line, currency)]
                 for i, line in enumerate(mine)]
    tables.print_rows(console, [
        Column(""), Column("", least=10), Column("promised", right=True),
        Column("90% interval", right=True, least=10), Column("measured", right=True),
        Column("ratio", right=True), Column("")], rows)
    found = verdict(lines)
    console.print()
    console.print(Text(_verdict_line(found), "bold"))
    for text in _closing(lines, found, currency):
        console.print(Text(text, "dim"))


def _exact(line: Comparison) -> bool:
    """Whether the promise is a figure that somebody stated or counted, without an interval."""
    promised = line.promised
    return promised is not None and promised.basis == "given" and promised.low == promised.high


def _comparison_cells(line: Comparison, currency: str) -> list[Cell | str]:
    promised, measured = line.promised, line.measured
    assert measured is not None
    expected: Cell | str = Cell("not promised", "dim")
    if promised is not None:
        expected = tables.figure(promised.value, line.section, currency)
    return [tables.label(line.section, line.kind), expected,
            tables.interval(promised, line.section, currency, beside_value=True)
            if promised else "", tables.figure(measured.value, line.section, currency),
            _ratio(line), _mark(line)]


def _ratio(line: Comparison) -> str:
    if line.ratio is None:
        return ""
    return f"{line.ratio:.2f}" if 0.1 <= line.ratio < 100 else units.sig(line.ratio, 2)


def _text(resolved: Resolved) -> str:
    """The text by name; away from here the default one is only a stand-in that nobody named."""
    run = resolved.run
    if run.machine.name != "here" and resolved.origins.get("train.text") == "default":
        return "text that is not named (taken as new throughout)"
    return run.train.text


def _mark(line: Comparison) -> Cell:
    if line.ratio is not None and _exact(line):
        same = math.isclose(line.ratio, 1.0, rel_tol=1e-3)
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
        reason = next(line.measured.source for line in reversed(silent) if line.measured)
        said.append(f"{reason}: watts and kWh are modelled (see the energy lines marked \"model\")")
        unmeasured = [line for line in unmeasured if line not in silent]
    said += _reasons("not measured", [
        (f"{_name(line)} {tables.figure(line.promised.value, line.section, currency)}",
         line.measured) for line in unmeasured if line.promised])
    said += _reasons("not promised", [(_name(line), line.promised) for line in found.unpromised])
    return said + _not_known(
        (line.section, line.kind, side.source) for line in lines
        if not _known(line.promised) and not _known(line.measured)
        for side in [line.measured or line.promised] if side)


def _reasons(what: str, missing: Iterable[tuple[str, Estimate | None]]) -> list[str]:
    """A line for each reason why the figures of one side are not known."""
    reasons: dict[str, list[str]] = {}
    for name, side in missing:
        reasons.setdefault(side.source if side else "", []).append(name)
    return [f"{what}{f' ({reason})' if reason else ''}: {', '.join(names)}"
            for reason, names in reasons.items()]


def _name(line: Comparison) -> str:
    return _called(line.section, line.kind)


def _called(section: str, kind: str) -> str:
    """A figure's name where it stands alone: its label, with its group where that says more."""
    label = tables.label(section, kind)
    group = next(group for group, sections in tables.GROUPS.items() if section in sections)
    clear = group in ("use", "loss") or section in ("tokens", "tokens_per_second", "flops", "watts")
    return label if clear or kind in _SPEAKS_ALONE else f"{group} {label}"


def _known(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.known


def as_plain(promised: Account | None, measured: Account | None, *, run: Resolved | None = None,
             notes: Sequence[str] = ()) -> dict[str, Any]:
    """A plan or a comparison as JSON-ready data; what is not known is None."""
    plain: dict[str, Any] = {}
    if run is not None:
        plain |= {"run": spec_codec.plain(run.run), "origins": dict(run.origins)}
    plain |= {"promised": None if promised is None else codec.plain(promised),
              "measured": None if measured is None else codec.plain(measured)}
    if promised is not None and measured is not None:
        lines = promised.against(measured)
        count = verdict(lines)
        plain |= {"held": count.held, "checked": count.checked, "lines": [
            {"section": line.section, "figure": line.kind, "ratio": line.ratio,
             "inside": line.inside} for line in lines]}
    return plain | {"notes": list(notes)}


def as_json(promised: Account | None, measured: Account | None = None, *,
            run: Resolved | None = None, notes: Sequence[str] = ()) -> str:
    """`as_plain` as JSON text: the same input gives the same bytes."""
    return json.dumps(as_plain(promised, measured, run=run, notes=notes), indent=2,
                      allow_nan=False)
