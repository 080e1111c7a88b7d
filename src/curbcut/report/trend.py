"""Trends and the barrier map as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.plan.trend.barrier import Reach
from curbcut.plan.trend.frontier import Point
from curbcut.plan.trend.ladder import LONGEST_SECONDS
from curbcut.plan.trend.line import CONFIDENCE
from curbcut.plan.trend.outlook import Outlook
from curbcut.report.tables import Cell, Column, Format, Table, Value, money, show
from curbcut.spec.estimate import Estimate

if TYPE_CHECKING:
    from rich.console import Console

OF_LINE = f"{CONFIDENCE:.0%} interval"
APPROACHES: Mapping[str, str] = {
    "amortised": "hardware written off + energy", "acquisition": "all hardware bought",
    "cloud": "rent of the cloud"}
"""Each of Epoch's by what it counts."""
DEAREST = 5
"""Models that are named in the table of the frontier."""
MOST_AGAIN = 10
"""Published models that people are shown; CSV and JSON have all."""


def print_trend(found: Outlook, chosen: Format = "text", *, currency: str = "USD",
                console: Console | None = None) -> None:
    """Prints all tables in a format."""
    show(list(tables(found, currency, whole=chosen in ("csv", "json"))), chosen, console=console)


def tables(found: Outlook, currency: str = "USD", *, whole: bool = False) -> Iterator[Table]:
    """All tables; `whole` ones leave no row out."""
    # What was published is said as it was, in dollars.
    yield _frontier(found)
    yield _dearest(found, whole)
    yield _arithmetic(found, whole)
    yield _factors(found, whole)
    yield _tasks(found, whole)
    yield _again(found, whole)
    yield _map(found, currency)
    yield _how(found, currency)
    yield _years(found, currency)


def _frontier(found: Outlook) -> Table:
    rows: list[Sequence[Value]] = []
    for one in found.frontier:
        line = one.line
        rows.append((
            APPROACHES[one.approach], len(one.points), line.growth if line else None,
            line.r_squared if line else None,
            Cell(f"{12 * line.doubling_years:.1f} months", plain=12 * line.doubling_years)
            if line else None, one.points[-1].published.isoformat()
            if one.points else ""))
    return Table("Cost of training the largest models, by day of publication",
                 (Column("approach", least=16), Column("models"),
                  Column("times a year", interval=OF_LINE), Column("R2"),
                  Column("doubles in", name="doubling_months"), Column("newest")), rows,
                 ["least squares of log10 of dollars of December 2023 on the day; models and "
                  "approaches of arXiv:2405.21015 (Epoch AI), computed from its inputs"])


def _dearest(found: Outlook, whole: bool) -> Table:
    by_name: dict[str, dict[str, Point]] = {
        one.approach: {point.name: point for point in one.points} for one in found.frontier}
    headline = by_name["amortised"]
    names = sorted({point.name for one in found.frontier for point in one.points},
                   key=lambda name: (-headline[name].usd if name in headline else 0.0, name))
    rows: list[Sequence[Value]] = []
    for name in names if whole else names[:DEAREST]:
        points = [by_name[approach].get(name) for approach in APPROACHES]
        published = next(point.published for point in points if point)
        rows.append((name, published.isoformat(),
                     *(point.usd if point else Cell("none", "dim", None) for point in points)))
    return Table("The dearest of them, dollars of December 2023",
                 (Column("model"), Column("published"),
                  *(Column(name, unit="usd") for name in APPROACHES)), rows,
                 [", ".join(f"{name}: {what}" for name, what in APPROACHES.items())])


def _arithmetic(found: Outlook, whole: bool) -> Table:
    rows: list[Sequence[Value]] = []
    for pace in found.paces:
        best, line = pace.best, pace.line
        unit = "flops/s" if pace.way == "purchase" else "flops"
        said = units.show(best.value, unit) if best else ""
        none = Cell("too few", "dim", None)
        rows.append((f"{pace.way} of {pace.family}", len(pace.offers),
                     line.growth if line else none, line.r_squared if line else "",
                     Cell(f"best lately: {said} on {best.name}" if best else "", "",
                          best.value if best else None), best.name if best else ""))
    columns = (Column("price"), Column("points"), Column("times a year", interval=OF_LINE),
               Column("R2"), Column("best lately", below=True, name="best"), Column("on"))
    kept = len(columns) if whole else len(columns) - 1
    return Table("Arithmetic for a dollar, at peak rates", columns[:kept],
                 [row[:kept] for row in rows],
                 ["purchases by day of release, FLOP/s a dollar; rents on demand by day of the "
                  "price, FLOP a dollar, one point a chip and day; best of the newest two years",
                  "R2 near 0 means that the facts show no trend for that family"])


def _factors(found: Outlook, whole: bool) -> Table:
    rows: list[Sequence[Value]] = [(one.name, one.yearly, one.yearly.source)
                                   for one in found.factors]
    columns: tuple[Column, ...] = (Column("of what"), Column("times a year", interval="interval"),
                                   Column("source"))
    notes = ["a capability costs arithmetic x its price; the product is no measurement: measured "
             "records follow"]
    if not whole:
        # A source is a sentence: below the table it is not cut.
        notes = [*(f"{one.name}: {one.yearly.source}" for one in found.factors), *notes]
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    return Table("A fixed capability: how many times less it takes each year", columns, rows, notes)


def _tasks(found: Outlook, whole: bool) -> Table:
    rows: list[Sequence[Value]] = []
    for task in found.tasks:
        first, last = task.records[0], task.records[-1]
        rows.append((task.name, _record(first.value, first.unit), first.day.isoformat(),
                     _record(last.value, last.unit), last.day.isoformat(), task.factor,
                     task.yearly, last.included, last.source))
    columns = (Column("task"), Column("took", right=True), Column("on", name="first_day"),
               Column("takes", right=True), Column("by", name="last_day"), Column("times less"),
               Column("a year", name="times_less_a_year"), Column("what got better"),
               Column("source"))
    notes = [] if whole else [
        f"{last.task}: {last.what}; better is {last.included}; {last.source}"
        for last in (task.records[-1] for task in found.tasks)]
    kept = len(columns) if whole else len(columns) - 2
    return Table("Measured records of one capability", columns[:kept],
                 [row[:kept] for row in rows], notes)


def _record(value: float, unit: str) -> Cell:
    return Cell(money(value) if unit == "usd" else units.show(value, unit), "", value)


def _again(found: Outlook, whole: bool) -> Table:
    kept = found.again if whole else found.again[-MOST_AGAIN:]
    rows: list[Sequence[Value]] = [
        (one.name, one.published.isoformat(), one.compute_flops, one.owned_usd,
         one.rented_usd if one.rented_usd is not None else Cell("none", "dim", None), one.now,
         one.factor if one.factor is not None else "") for one in kept]
    notes = ["owned: hardware written off + energy; rented: the cloud of then; both in dollars of "
             "December 2023; today: rent of a training-optimal dense model "
             "of the same arithmetic, on the machine of least cost"]
    if len(kept) < len(found.again):
        notes.append(f"the newest {len(kept)} of {len(found.again)}; --format csv has all")
    return Table("Published trainings at today's rent",
                 (Column("model", least=12, wrap=True), Column("published"),
                  Column("FLOPs", unit="flops", name="flops"), Column("owned", unit="usd"),
                  Column("rented", unit="usd"), Column("today", unit="usd", interval=True),
                  Column("x less", name="times_less")), rows, notes)


def _map(found: Outlook, currency: str) -> Table:
    return Table(
        f"Who can train what in {_year(found.year, found)}: the largest training-optimal model",
        (Column("budget", unit="usd"), Column("parameters", unit="count", interval=True),
         Column("120 P^2", unit="count", name="rule_of_thumb"), Column("binds", least=8)),
        [(one.budget_usd, one.parameters,
          one.rule_of_thumb if one.rule_of_thumb else Cell("", plain=None), _binds(one))
         for one in found.reaches],
        ["cheapest of all machines with a known rent and all shapes and layouts, through the same "
         f"physics and accounts as a plan; at most {LONGEST_SECONDS / 86400:.0f} days; dense, 20 "
         "tokens a parameter; where time binds nothing larger is done by then",
         "the interval is that of time and rent; rule of thumb: C = 120 P^2 (arXiv:2404.08811) at "
         "the machine's rent and 37.5% of its peak", *_basis(found.reaches)], currency)


def _binds(one: Reach) -> Value:
    if one.rung is None:
        return one.parameters.source
    return "time" if one.time_binds else "money"


def _how(found: Outlook, currency: str) -> Table:
    """What the map's models are trained on, and what is expected of them."""
    rows: list[Sequence[Value]] = []
    for one in found.reaches:
        if one.rung is None or one.parameters.value is None:
            continue
        machine = one.rung.machine
        tokens = one.rung.tokens * one.parameters.value / one.rung.shape.parameters
        rows.append((one.budget_usd, tokens, machine.name, one.seconds,
                     one.bits_per_byte))
    return Table("Each of them",
                 (Column("budget", unit="usd"), Column("tokens", unit="count"),
                  Column("machine", least=16), Column("time", unit="seconds"),
                  Column("bits a byte", interval=True)), rows,
                 ["bits a byte: expected on text like that of the laws; `curbcut plan --on "
                  "MACHINE` plans on one of them"], currency)


def _basis(reaches: Sequence[Reach]) -> list[str]:
    said = dict.fromkeys(one.basis for one in reaches)
    return [] if list(said) == ["today's prices"] else [
        f"prices by the trend of rents ({', '.join(said)}): today's machines at that year's "
        "dollars' worth"]


def _years(found: Outlook, currency: str) -> Table:
    years = [row[0] for row in found.by_year]
    columns = [Column("budget", unit="usd"), *(
        Column(_year(one.year, found, short=True), unit="count", right=True,
               name=f"parameters_{one.year:.0f}") for one in years)]
    rows: list[Sequence[Value]] = []
    for i, first in enumerate(found.by_year[0]):
        rows.append((first.budget_usd, *(_size(row[i].parameters) for row in found.by_year)))
    ahead = found.by_year[-1]
    beyond = [_year(one.year, found) for one in years if one.basis == "extrapolated"]
    notes = [f"extrapolated: {', '.join(beyond)}"] if beyond else []
    notes.append(
        f"prices alone; if algorithms go on as well, {_year(ahead[0].year, found)} trains what "
        "is as good as " + ", ".join(
            f"{_count(one.as_good_as)} of today for {money(one.budget_usd, currency)}"
            for one in ahead[:3] if one.as_good_as.value) + " (published rate, wide interval)")
    return Table("The same budgets in other years: parameters by the trend of rents",
                 tuple(columns), rows, notes, currency)


def _size(estimate: Estimate) -> Value:
    return Cell(_count(estimate), "", estimate.value)


def _count(estimate: Estimate) -> str:
    return "too little" if estimate.value is None else units.show(estimate.value, "count")


def _year(year: float, found: Outlook, *, short: bool = False) -> str:
    if year == found.ladder.year:
        return f"{int(year)} today" if short else f"{int(year)} (today's prices)"
    return f"{year:.0f}" if year == int(year) else f"{year:.1f}"
