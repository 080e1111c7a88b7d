"""A forecast as tables a person enjoys: the run, each figure, ways to pay, and their sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.plan.machines import is_here
from curbcut.report import tables
from curbcut.report.labels import GROUPS, called, label
from curbcut.report.tables import Cell, Column, Figure, Format, Table, Value
from curbcut.spec import UNIT_OF, Account, Estimate, Resolved

if TYPE_CHECKING:
    from rich.console import Console

Line = tuple[str, str, Estimate]
"""Section, kind and figure, as `Account.lines` gives them."""

WAYS = "usd_ways"
_NO_SOURCE = (" not included", " not known")
"""Ends of what a source says that is none."""


def print_plan(run: Resolved, account: Account, *, notes: Sequence[str] = (),
               console: Console | None = None) -> None:
    """Prints what the run is and each figure of its forecast: value, interval, basis, source."""
    tables.show(plan_tables(run, account, notes=notes), console=console)


def plan_tables(run: Resolved, account: Account, chosen: Format = "text", *,
                notes: Sequence[str] = ()) -> list[Table]:
    """The tables of a plan. People read no exact zeros, what is not known in one note, and sources
    once each in a table of their own; in CSV every figure has its row.
    """
    currency, full = run.run.place.currency, chosen == "csv"
    lines = list(_plan_lines(account))
    missing = [line for line in lines if not line[2].known]
    shown = lines if full else [line for line in lines if line[2].known and not _zero(line[2])]
    ways = [line for line in shown if line[0] == WAYS]
    if len(ways) < 2 and not full:
        # One way to pay is the account itself.
        ways = []
    made = [_headline(run), _figures(run, account, [one for one in shown if one[0] != WAYS])]
    if chosen != "text":
        made = [replace(one, title=title) for one, title in zip(made, ("Run", "Forecast"),
                                                                strict=True)]
    if ways:
        made.append(_ways(ways, currency))
    said = [*not_known(missing), *notes, *_currency_note(currency)]
    made[-1] = replace(made[-1], notes=said)
    sources = _sources(lines)
    return [*made, sources] if sources.rows and not full else made


def _zero(estimate: Estimate) -> bool:
    return estimate.value == estimate.low == estimate.high == 0


def _plan_lines(account: Account) -> Iterator[Line]:
    """All lines but the modelled energy, where a forecast says its energy once more."""
    for section, kind, estimate in account.lines():
        if section != "kwh_modelled" or estimate != account.get("kwh", kind):
            yield section, kind, estimate


def _headline(run: Resolved) -> Table:
    return Table("", (Column("run", name="what"), Column(run.run.name, name="value", least=24,
                                                         wrap=True),
                      Column("chosen by", least=44, wrap=True)),
                 [(Cell(title, "bold"), what, Cell(why, "dim"))
                  for title, what, why in headline(run)])


def _figures(run: Resolved, account: Account, lines: Sequence[Line]) -> Table:
    rows: list[Sequence[Value]] = []
    for group, sections in GROUPS.items():
        mine = [line for line in lines if line[0] in sections]
        rows += [(Cell(group if i == 0 else "", "bold", group), *_cells(*line))
                 for i, line in enumerate(mine)]
        if group == "memory" and mine:
            rows += _fit_row(run, account)
    return Table("", (Column("", name="group"), Column("", name="figure", least=12), *_COLUMNS),
                 rows, (), run.run.place.currency)


_COLUMNS = (Column("", name="key", only="programs"),
            Column("forecast", right=True, interval=True, name="value"),
            Column("unit", only="programs"), Column("basis"), Column("source", only="programs"))


def _ways(lines: Sequence[Line], currency: str) -> Table:
    """The same run, paid for in each way that prices are known of."""
    return Table("Ways to pay for this run", (Column("", name="way", least=12), *_COLUMNS),
                 [_cells(*line) for line in lines], (), currency)


def _cells(section: str, kind: str, estimate: Estimate) -> tuple[Value, ...]:
    """Label, key (as `--explain` takes it), figure, unit, basis and source."""
    unit = UNIT_OF[section]
    return (label(section, kind), f"{section}.{kind}", Figure(estimate, unit), unit,
            estimate.basis, estimate.source)


def not_known(missing: Iterable[Line]) -> list[str]:
    """One line for all figures of which nothing is known: those of one reason together, and ways
    to pay that need a price that nobody has as one.
    """
    missing = list(missing)
    reasons: dict[str, list[str]] = {}
    ways = [line for line in missing if line[0] == WAYS and line[1] != "with_staff"]
    staff = any(kind == "staff" for _, kind, _ in missing)
    for section, kind, estimate in missing:
        if section != WAYS or (kind == "with_staff" and not staff):
            reasons.setdefault(reason(kind, estimate), []).append(called(section, kind))
    if ways:
        many = f"{len(ways)} ways to pay" if len(ways) > 1 else called(WAYS, ways[0][1])
        reasons.setdefault(reason("", ways[0][2]), []).append(many)
    said = [", ".join(names) + (f" ({why})" if why else "") for why, names in reasons.items()]
    return [f"not known: {'; '.join(said)}"] if said else []


def reason(kind: str, estimate: Estimate) -> str:
    """Why a figure is not known, without its name, as it stands in brackets."""
    why = estimate.source.removeprefix(f"{kind} not included: ").removeprefix(
        "staff not included: ")
    return why.replace("; ", ": ").replace(" (", ": ").replace(")", "")


def _sources(lines: Sequence[Line]) -> Table:
    """Where the figures come from, a row a group and each source once; what was given or counted
    needs none.
    """
    rows: list[Sequence[Value]] = []
    kinds, seen = {kind for _, kind, _ in lines}, set[str]()
    for group, sections in GROUPS.items():
        said = dict.fromkeys(
            part for section, _, estimate in lines if section in sections and estimate.known
            and estimate.basis != "given" and not _zero(estimate)
            for part in estimate.source.split("; ")
            if part and part not in seen and not part.endswith(_NO_SOURCE)
            and not kinds.issuperset(part.split(" + ")))
        # "watts" and then "watts, x time": the longer one says both.
        kept = [one for one in said if not any(o != one and o.startswith(one) for o in said)]
        seen.update(said)
        if kept:
            rows.append((Cell(group, "dim"), Cell("; ".join(kept), "dim")))
    return Table("Where these figures come from", (
        Column("", name="group"), Column("", name="sources", least=40, wrap=True)), rows)


def headline(resolved: Resolved) -> list[tuple[str, str, str]]:
    """What is run on what, and how: (title, what, who or what chose it), a row each."""
    run, origins = resolved.run, resolved.origins
    model, recipe, machine = run.model, run.recipe, run.machine

    def by(*keys: str) -> str:
        return "; ".join(dict.fromkeys(origins[key] for key in keys if origins.get(key)))

    shape = f"{model.preset}, " if model.preset else (
        f"{model.layers} layers of width {model.width:,}, ")
    count = f"{machine.accelerators} x " if machine.accelerators > 1 else ""
    name = f"{machine.name}: " if is_here(machine.name) else ""
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


def _text(resolved: Resolved) -> str:
    """The text by name; away from here the default one is only a stand-in that nobody named."""
    run = resolved.run
    if run.machine.name != "here" and resolved.origins.get("train.text") == "default":
        return "text that is not named (taken as new throughout)"
    return run.train.text


def fit(peak: Estimate | None, memory_bytes: int) -> str | None:
    """Whether the peak fits: "yes", "perhaps" (only its upper end does not), "no"; None unknown."""
    if peak is None or peak.value is None or peak.high is None:
        return None
    if peak.value > memory_bytes:
        return "no"
    return "yes" if peak.high <= memory_bytes else "perhaps"


def _fit_row(run: Resolved, account: Account) -> list[Sequence[Value]]:
    memory, peak = run.run.machine.memory_bytes, account.get("memory_bytes", "peak")
    verdict = fit(peak, memory)
    if verdict is None or peak is None or peak.value is None:
        return []
    colour = {"yes": "green", "no": "bold red", "perhaps": "yellow"}[verdict]
    said = Cell(f"{verdict}, {100 * peak.value / memory:.0f}%", colour, verdict)
    return [(Cell("", plain="memory"), f"fits in {units.show(memory, 'bytes')}", "", said, "", "",
             run.run.machine.source)]


def _currency_note(currency: str) -> list[str]:
    if currency == "USD":
        return []
    from curbcut.facts.currency import usd_per

    rate = usd_per(currency)
    return [f"1 {currency} = {rate.value:g} USD ({rate.year}, {rate.source})"]
