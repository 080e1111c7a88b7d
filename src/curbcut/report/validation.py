"""Predictions against published measurements, as a person reads them."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curbcut.report import validation_lines
from curbcut.report.tables import Cell, Column, Format, Table, Value, show

if TYPE_CHECKING:
    from curbcut.plan.validation.calibrate import Calibration
    from curbcut.plan.validation.outcome import Outcome, Part
    from curbcut.plan.validation.score import Score

_FIGURES = (Column("rows", right=True),
            Column("median error", right=True, name="median_abs_pct_error"),
            Column("mean error", right=True, name="mean_abs_pct_error"),
            Column("p90", right=True, name="p90_abs_pct_error"),
            Column("bias", right=True, name="bias_pct"),
            Column("in 80%", right=True, name="coverage80"),
            Column("in 95%", right=True, name="coverage95"))
_TITLES = {"throughput": "Step time", "memory": "Peak memory", "runs": "Accelerator-hours",
           "serving": "Serving", "energy": "Energy", "cost": "Cost"}
_OWN_REGIME = ("energy", "cost")
"""Kinds that know of no stack."""
_PARTS = {"percent": "in percent of a baseline", "gb_or_gib": "in GB that may be GiB",
          "ttft": "time to first token", "tpot": "time per output token",
          "throughput": "tokens a second", "rated": "accelerator-hours x rated power, reproduced",
          "rated from memory": "accelerator-hours x rated power, figures from memory, reproduced",
          "measured from memory": "figures from memory", "idle": "machines at rest",
          "time": "time under a power cap", "inference": "joules an output token",
          "watts": "watts of accelerators"}


def print_outcome(outcome: Outcome, chosen: Format = "text") -> None:
    """Prints a table for each quantity, then what could not be expressed, by reason. JSON is the
    outcome's own.
    """
    plain = outcome.plain() if chosen == "json" else None
    show([] if plain is not None else outcome_tables(outcome, chosen), chosen, plain=plain)


def outcome_tables(outcome: Outcome, chosen: Format = "text") -> list[Table]:
    """Errors by source, rows worth showing, what the outcome says besides, and what is left out."""
    title = "Tokens a second" if outcome.table == "sweep" and outcome.kind == "throughput" else (
        _TITLES[outcome.kind])
    regime = "" if outcome.kind in _OWN_REGIME else f" ({outcome.regime.name()})"
    parts = {name: part for name, part in outcome.parts.items()
             if len(outcome.parts) == 1 or part.predictions or part.unexpressed}
    made = _merged(parts, title, regime) or [
        _part(part, f"{title}, {_PARTS.get(name, name)}{regime}" if name else f"{title}{regime}")
        for name, part in parts.items()]
    lines = validation_lines.table(outcome.more, chosen)
    if lines:
        made.append(lines)
    said = [*_more(outcome), *validation_lines.sentences(outcome.more)]
    if said:
        made.append(Table("", (), (), said))
    return made + [_left(part) for part in parts.values() if part.unexpressed]


def _merged(parts: dict[str, Part], title: str, regime: str) -> list[Table]:
    """One table for several quantities of one source; none for anything else."""
    scores = {name: part.score for name, part in parts.items()}
    sources = {source for one in scores.values() for source in one.by_source}
    if len(parts) < 2 or len(sources) != 1:
        return []
    return [Table(f"{title}, {next(iter(sources))}{regime}", (
        Column("quantity", least=20, wrap=True), *_FIGURES),
        [_line(_PARTS.get(name, name), one) for name, one in scores.items()])]


def _part(part: Part, title: str) -> Table:
    total = part.score
    rows = [_line(name, one) for name, one in total.by_source.items()]
    notes = []
    if len(rows) != 1:
        rows.append(_line("all rows", total, "bold"))
        if total.macro_mape is not None:
            notes.append(f"mean error over sources: {total.macro_mape:.1f}%")
    return Table(title, (Column("source", least=20, wrap=True), *_FIGURES), rows, notes)


def _line(name: str, one: Score, style: str = "") -> list[Value]:
    figures = [_percent(one.median_abs_pct_error), _percent(one.mean_abs_pct_error),
               _percent(one.p90_abs_pct_error), _percent(one.bias_pct, sign=True),
               _percent(one.coverage80, 0, scale=100), _percent(one.coverage95, 0, scale=100)]
    return [Cell(name, style), Cell(str(one.rows), style, one.rows),
            *(cell._replace(style=style) for cell in figures)]


def _percent(value: float | None, digits: int = 1, *, sign: bool = False,
             scale: float = 1.0) -> Cell:
    """`value` times `scale` as per cent; programs read `value`. A dash for what there is not."""
    if value is None or not math.isfinite(value):
        return Cell("-", plain=None)
    text = f"{scale * value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return Cell(f"{text}%", plain=value)


def _more(outcome: Outcome) -> Iterator[str]:
    by_time = outcome.more.get("step_time")
    if by_time:
        yield (f"By step time: mean error {_percent(by_time['mean_abs_pct_error']).text}, median "
               f"{_percent(by_time['median_abs_pct_error']).text}, bias "
               f"{_percent(by_time['bias_pct'], sign=True).text}")
    fits = outcome.more.get("feasibility")
    if fits:
        told = fits["confusion"]
        yield (f"Fits or not: balanced accuracy "
               f"{_percent(fits['balanced_accuracy'], scale=100).text}; of "
               f"{told['fits_ok'] + told['too_big_ok']} that ran {told['fits_ok']} were said to "
               f"fit, of {told['fits_failed'] + told['too_big_failed']} that failed (crashes too) "
               f"{told['too_big_failed']} were said not to; best threshold "
               f"{_percent(fits['best_threshold'], 0, scale=100).text} of memory with "
               f"{_percent(fits['best_balanced_accuracy'], scale=100).text}")
    if outcome.more.get("regret_pct") is not None:
        yield (f"Regret of the recipe we would choose: {outcome.more['regret_pct']:.1f}% of the "
               f"best measured (mean of {outcome.more['cells']:.0f} cells of model and machine), "
               f"{outcome.more['median_regret_pct']:.1f}% in the middle one, "
               f"{outcome.more['worst_regret_pct']:.1f}% in the worst")


def _left(part: Part) -> Table:
    many = len(part.unexpressed)
    reasons = Counter(one.reason for one in part.unexpressed).most_common()
    return Table(f"Not expressed: {many} row{'' if many == 1 else 's'}",
                 (Column("rows", right=True), Column("reason", least=40, wrap=True)),
                 [(count, reason) for reason, count in reasons])


def print_calibration(found: Calibration, chosen: Format = "text", plain: object = None) -> None:
    """Prints each fitted constant beside its prior, and the error before and after; JSON is of
    `plain`.
    """
    version = f" {found.version}" if found.version else ""
    after = "-" if found.after is None else _percent(found.after.mean_abs_pct_error).text
    before = _percent(found.before.mean_abs_pct_error).text
    rows: list[Sequence[Value]] = []
    for one in found.constants:
        low, high = one.prior * one.low, one.prior * one.high
        rows.append((one.name, one.accelerator or one.version or "all", one.unit,
                     _four(one.prior), _four(one.value), f"{low:.4g} .. {high:.4g}",
                     Cell("", plain=low), Cell("", plain=high)))
    show([Table(f"{found.stack}{version}: {found.rows} rows of {found.sources} sources", (
        Column("constant"), Column("for"), Column("unit", least=6), Column("prior", right=True),
        Column("fitted", right=True), Column("90% interval", right=True, only="people"),
        Column("low", only="programs"), Column("high", only="programs")), rows, [
            f"mean error of step time: {before} where the stack was never seen, {after} on rows "
            "left out of the fit"])], chosen, plain=plain)


def _four(value: float) -> Cell:
    return Cell(f"{value:.4g}", plain=value)


def rows_csv(parts: Sequence[tuple[str, Part]]) -> str:
    """Each prediction as a line of CSV: what was predicted, measured and assumed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["quantity", "id", "source", "predicted", "low80", "high80", "low95", "high95",
                     "measured", "assumed"])
    for name, part in parts:
        for one in part.predictions:
            figures = (one.predicted, one.low80, one.high80, one.low95, one.high95, one.measured)
            writer.writerow([name, one.id, one.source, *(f"{value:.6g}" for value in figures),
                             "; ".join(one.assumed)])
    return out.getvalue()
