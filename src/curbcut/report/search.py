"""What a search found: the best recipe, those that it beat and why, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.plan.misfit import said
from curbcut.plan.offers import Priced, RunnerUp
from curbcut.plan.search_draft import Searched
from curbcut.plan.space import FIELDS
from curbcut.report import tables
from curbcut.report.tables import Cell, Column, Figure, Format, Table, Value
from curbcut.spec import Estimate, codec
from curbcut.train import refusals

if TYPE_CHECKING:
    from rich.console import Console

RUNS_HERE = "runs here"
PARTS = {"tensor": "tensor-parallel collectives", "experts": "all-to-alls of experts",
         "context": "context-parallel messages", "stages": "messages between stages",
         "data": "data-parallel collectives", "bubble": "pipeline bubble", "launch": "launches",
         "optimiser": "optimiser step", "offload": "offload", "other": "stragglers and the rest"}
"""Parts of a step by a person's words."""
MOST_REASONS = 3
"""Parts of a step that are named as what a runner-up lost by."""
LEAST_SHARE = 0.005
"""Parts of less than this share of a step, or of the largest part lost, are not named."""
MOST_FRONT = 12
"""Lines of the front that a person is shown; JSON has all."""


@dataclass(frozen=True)
class Total:
    """What the whole job takes in steps of one recipe."""

    seconds: Estimate
    usd: Estimate
    kwh: Estimate


def total(one: Priced, tokens: int) -> Total:
    """All steps of `tokens`; evaluation, checkpoints and faults come with the plan of the run."""
    steps = -(-tokens // one.recipe.step_tokens)
    return Total(one.seconds.scaled(steps), one.usd(steps), one.kwh(steps))


def standing(one: Priced) -> str:
    """ "runs here", or "priced only" and by what training refuses it."""
    reason = refusals.reason(one.offer.space.shape, one.recipe, one.offer.machine)
    return f"priced only: {reason}" if reason else RUNS_HERE


def runs(searched: Searched) -> Priced | None:
    """The best that training runs, where the best of all is priced only."""
    one = searched.running
    return one if one is not None and standing(one) == RUNS_HERE else None


def reasons(up: RunnerUp, best: Priced) -> list[str]:
    """Why a runner-up lost, the largest part first."""
    found = []
    if up.priced.over_bytes:
        found.append(f"does not fit by {units.show(up.priced.over_bytes, 'bytes')}")
    parts = [(group, more) for group, more in up.lost_by(best).items() if more][:MOST_REASONS]
    least = LEAST_SHARE * max((abs(more) for _, more in parts), default=0.0)
    found += [f"{PARTS.get(group, group)} {'+' if more > 0 else '-'}"
              f"{units.show(abs(more), 'seconds')}" for group, more in parts if abs(more) > least]
    if up.priced.offer is not best.offer:
        found = [*_dearer(up.priced, best), *found]
    return found or ["as good: the first of equals was taken"]


def _dearer(one: Priced, best: Priced) -> Iterator[str]:
    """How another machine's step compares in money and energy."""
    for what, mine, theirs in (("money", one.usd().value, best.usd().value),
                               ("energy", one.kwh().value, best.kwh().value)):
        if mine and theirs:
            yield f"{what} {mine / theirs - 1:+.0%}"


def as_plain(searched: Searched) -> dict[str, Any]:
    """The search for programs: nothing in it depends on the clock."""
    found, tokens = searched.found, searched.resolved.run.train.tokens
    best, running = found.best, runs(searched)
    return {
        "objective": found.objective, "priced": found.priced, "fit": found.fit,
        "kept": list(searched.kept),
        "left_out": [{"machine": name, "reason": why} for name, why in found.left_out],
        "best": _plain(best, tokens),
        "best_that_runs": _plain(running, tokens) if running else None,
        "runners_up": [{"differs": up.differs, "lost_by_seconds": up.lost_by(best),
                        "over_bytes": up.priced.over_bytes, "why": reasons(up, best)}
                       | _plain(up.priced, tokens) for up in found.runners_up],
        "front": [_plain(one, tokens) for one in found.front],
    }


def _plain(one: Priced, tokens: int) -> dict[str, Any]:
    whole = total(one, tokens)
    reason = refusals.reason(one.offer.space.shape, one.recipe, one.offer.machine)
    return {"machine": one.offer.machine.name, "recipe": codec.plain(one.recipe),
            "step_seconds": codec.plain(one.seconds), "peak_bytes": codec.plain(one.peak_bytes),
            "groups_seconds": dict(one.groups), "seconds": codec.plain(whole.seconds),
            "usd": codec.plain(whole.usd), "kwh": codec.plain(whole.kwh),
            "runs_here": not reason, "priced_only_for": reason or None}


def toml(one: Priced) -> Iterator[str]:
    """The recipe's fields as lines of [recipe], those that the search set or held."""
    for name in (*FIELDS, "sequence_tokens", "global_batch"):
        yield f"{name} = {_quoted(getattr(one.recipe, name))}"


def differences(one: Priced, other: Priced) -> str:
    """The fields in which one recipe differs from another."""
    return ", ".join(f"{name} = {_quoted(getattr(one.recipe, name))}" for name in FIELDS
                     if getattr(one.recipe, name) != getattr(other.recipe, name)) or "the same"


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def print_search(searched: Searched, *, top: int, console: Console | None = None) -> None:
    """Prints the search: counts, the best, runners-up and why they lost, the front."""
    from rich.columns import Columns
    from rich.text import Text

    console = console or tables.plain_console()
    counts, best, *others = search_tables(searched, top=top)
    tables.print_table(counts, console)
    console.print()
    console.print(Text(best.title, "bold"))
    one = searched.found.best
    console.print(Text(f'[machine]\nname = "{one.offer.machine.name}"\n[recipe]'))
    console.print(Columns([Text(line) for line in toml(one)], padding=(0, 3), column_first=True))
    for table in (replace(best, title=""), *others):
        tables.print_table(table, console)
        if table is not others[-1]:
            console.print()


def search_tables(searched: Searched, chosen: Format = "text", *, top: int) -> list[Table]:
    """What was priced, the best and (but in text) its recipe, the best that runs here where that
    is another, runners-up and why they lost, and the front (all of it in CSV).
    """
    found = searched.found
    made = [_counts(searched), _best(searched)]
    if chosen != "text":
        made.append(Table("Its recipe", (Column("field"), Column("value")), [
            ("machine", found.best.offer.machine.name),
            *(line.replace('"', "").split(" = ", 1) for line in toml(found.best))]))
    if (running := runs(searched)) is not None:
        made.append(_beside("The best of what runs here", [("beside the best", running, ())],
                            found.best))
    if found.runners_up:
        made.append(_beside("Runners-up, and why they lost", [
            (_differs(up), up.priced, reasons(up, found.best)) for up in found.runners_up[:top]],
            found.best))
    return [*made, _front(searched, len(found.front) if chosen == "csv" else MOST_FRONT)]


def _counts(searched: Searched) -> Table:
    found, tokens = searched.found, searched.resolved.run.train.tokens
    notes = [f"{name} left out: {why}" for name, why in found.left_out]
    if searched.kept:
        notes.append(f"kept as given: {', '.join(searched.kept)}")
    return Table(f"{found.priced:,} recipes priced, {found.fit:,} fit; least {found.objective} for "
                 f"{units.show(tokens, 'count')} tokens", (), (), notes)


def _best(searched: Searched) -> Table:
    best, run = searched.found.best, searched.resolved.run
    whole = total(best, run.train.tokens)
    rows: list[Sequence[Value]] = [
        (Cell(name, "bold"), Figure(estimate, unit), unit, Cell(estimate.source, "dim"))
        for name, unit, estimate in (
            ("a step", "seconds", best.seconds), ("all steps", "seconds", whole.seconds),
            ("money", "usd", whole.usd), ("energy", "kwh", whole.kwh),
            ("memory a rank", "bytes", best.peak_bytes))]
    return Table(f"The best: {standing(best)}", (
        Column("", name="figure"), Column("forecast", right=True, interval=True, name="value"),
        Column("unit", only="programs"), Column("source", least=20, wrap=True)), rows,
        [f"of a step: {_shares(best.groups)}"], run.place.currency)


def _shares(groups: Mapping[str, float]) -> str:
    whole = sum(groups.values())
    parts = sorted(groups.items(), key=lambda item: -item[1])
    return ", ".join(f"{PARTS.get(name, name)} {seconds / whole:.1%}" for name, seconds in parts
                     if seconds >= LEAST_SHARE * whole)


def _differs(up: RunnerUp) -> str:
    return "the fastest, if it fitted" if up.differs == "memory" else f"other {up.differs}"


def _beside(title: str, them: Sequence[tuple[str, Priced, Sequence[str]]], best: Priced) -> Table:
    """Recipes with their figures, beside the best, and why they lost."""
    assert best.seconds.value
    rows: list[Sequence[Value]] = []
    for name, one, why in them:
        assert one.seconds.value is not None
        more = one.seconds.value / best.seconds.value - 1
        machine = f"{one.offer.machine.name}: " if one.offer is not best.offer else ""
        runs_too = standing(one) == standing(best) == RUNS_HERE
        rows.append((Cell(name, "bold"), one.seconds, Cell(f"{more:+.1%}", plain=more),
                     one.peak_bytes, "; ".join((machine + differences(one, best), *why)),
                     machine + differences(one, best), "; ".join(why),
                     Cell("" if runs_too else standing(one), "dim", standing(one))))
    return Table(title, (
        Column("", name="what"), Column("a step", unit="seconds", interval=True),
        Column("more", right=True, name="more_share"), Column("a rank", unit="bytes"),
        Column("what and why", below=True, only="people"), Column("recipe", only="programs"),
        Column("why", only="programs"), Column("stands", below=True)), rows)


def _front(searched: Searched, most: int) -> Table:
    run, front = searched.resolved.run, searched.found.front
    step = max(1, -(-len(front) // most))
    rows: list[Sequence[Value]] = []
    for one in [*front[:-1:step], front[-1]]:
        whole = total(one, run.train.tokens)
        rows.append((whole.seconds, whole.usd.value, whole.kwh.value, one.peak_bytes.value,
                     Cell("yes" if standing(one) == RUNS_HERE else "no",
                          plain=standing(one) == RUNS_HERE),
                     f"{one.offer.machine.name}: {said(one.recipe, one.recipe)}"))
    notes = [f"{len(rows)} of {len(front)} shown; --format csv and --json have all"]
    title = "The Pareto front: what nothing beats in time, money, energy and memory together"
    return Table(title, (
        Column("all steps", unit="seconds", interval=True), Column("money", unit="usd"),
        Column("energy", unit="kwh"), Column("a rank", unit="bytes"),
        Column("runs", name="runs_here"), Column("recipe", least=20, wrap=True)), rows,
        notes if step > 1 else [], run.place.currency)
