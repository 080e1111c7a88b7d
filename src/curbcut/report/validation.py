"""Predictions against published measurements, as a person reads them."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from curbcut.report import validation_lines
from curbcut.report.tables import Cell, Column, plain_console, print_rows

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.plan.validation.calibrate import Calibration
    from curbcut.plan.validation.outcome import Outcome, Part
    from curbcut.plan.validation.score import Score

_COLUMNS = (Column("source", least=20), Column("rows", right=True),
            Column("median error", right=True), Column("mean error", right=True),
            Column("p90", right=True), Column("bias", right=True),
            Column("in 80%", right=True), Column("in 95%", right=True))
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


def print_outcome(outcome: Outcome) -> None:
    """Prints a table for each quantity, then what could not be expressed, by reason."""
    console = plain_console()
    title = "Tokens a second" if outcome.table == "sweep" and outcome.kind == "throughput" else (
        _TITLES[outcome.kind])
    for name, part in outcome.parts.items():
        if len(outcome.parts) > 1 and not (part.predictions or part.unexpressed):
            continue
        what = f"{title}, {_PARTS.get(name, name)}" if name else title
        regime = "" if outcome.kind in _OWN_REGIME else f" ({outcome.regime.name()})"
        console.print(f"{what}{regime}")
        _print_part(console, part)
    _print_more(console, outcome)
    validation_lines.print_lines(console, outcome.more)
    for part in outcome.parts.values():
        _print_left(console, part)


def _print_part(console: Console, part: Part) -> None:
    total = part.score
    rows = [_line(name, one) for name, one in total.by_source.items()]
    rows.append(_line("all rows", total, "bold"))
    print_rows(console, _COLUMNS, rows)
    if total.macro_mape is not None:
        console.print(f"  mean error over sources: {total.macro_mape:.1f}%")
    console.print()


def _line(name: str, one: Score, style: str = "") -> list[Cell]:
    figures = [_percent(one.median_abs_pct_error), _percent(one.mean_abs_pct_error),
               _percent(one.p90_abs_pct_error), _percent(one.bias_pct, sign=True),
               _percent(None if one.coverage80 is None else 100 * one.coverage80, 0),
               _percent(None if one.coverage95 is None else 100 * one.coverage95, 0)]
    return [Cell(text, style) for text in (name, str(one.rows), *figures)]


def _percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}%"


def _print_more(console: Console, outcome: Outcome) -> None:
    by_time = outcome.more.get("step_time")
    if by_time:
        console.print(f"By step time: mean error {_percent(by_time['mean_abs_pct_error'])}, median "
                      f"{_percent(by_time['median_abs_pct_error'])}, bias "
                      f"{_percent(by_time['bias_pct'], sign=True)}")
    fits = outcome.more.get("feasibility")
    if fits:
        told = fits["confusion"]
        console.print(
            f"Fits or not: balanced accuracy {_percent(_hundred(fits['balanced_accuracy']))}; of "
            f"{told['fits_ok'] + told['too_big_ok']} that ran {told['fits_ok']} were said to fit, "
            f"of {told['fits_failed'] + told['too_big_failed']} that failed (crashes too) "
            f"{told['too_big_failed']} were said not to; best threshold "
            f"{_percent(_hundred(fits['best_threshold']), 0)} of memory with "
            f"{_percent(_hundred(fits['best_balanced_accuracy']))}")
    if outcome.more.get("regret_pct") is not None:
        console.print(
            f"Regret of the recipe we would choose: {outcome.more['regret_pct']:.1f}% of the best "
            f"measured (mean of {outcome.more['cells']:.0f} cells of model and machine), "
            f"{outcome.more['median_regret_pct']:.1f}% in the middle one, "
            f"{outcome.more['worst_regret_pct']:.1f}% in the worst")


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _print_left(console: Console, part: Part) -> None:
    if not part.unexpressed:
        return
    console.print(f"Not expressed: {len(part.unexpressed)} rows")
    for reason, count in Counter(one.reason for one in part.unexpressed).most_common():
        console.print(f"  {count:5d}  {reason}")


def print_calibration(found: Calibration) -> None:
    """Prints each fitted constant beside its prior, and the error before and after."""
    console = plain_console()
    version = f" {found.version}" if found.version else ""
    console.print(f"{found.stack}{version}: {found.rows} rows of {found.sources} sources")
    print_rows(console, (Column("constant"), Column("for"), Column("unit", least=6),
                         Column("prior", right=True), Column("fitted", right=True),
                         Column("90% interval", right=True)),
               [[Cell(one.name), Cell(one.accelerator or one.version or "all"), Cell(one.unit),
                 Cell(f"{one.prior:.4g}"), Cell(f"{one.value:.4g}"),
                 Cell(f"{one.prior * one.low:.4g} .. {one.prior * one.high:.4g}")]
                for one in found.constants])
    after = "-" if found.after is None else _percent(found.after.mean_abs_pct_error)
    console.print(f"mean error of step time: {_percent(found.before.mean_abs_pct_error)} where the "
                  f"stack was never seen, {after} on rows left out of the fit")


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
