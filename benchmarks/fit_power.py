"""Fits the power of accelerators, and the series of measurements behind it, and writes the facts.

    python benchmarks/fit_power.py mlenergy.csv [--dry]

Constants stand on all rows; those "without" an architecture on the others' rows (all models of one
shape are left out together: tuned, in fp8 or with eyes). Spreads are the errors on architectures
never seen. The table is ML.ENERGY's (v3, vLLM 0.11.1), which has no licence and is not shipped;
without it, nothing is done. `--dry` prints the errors and writes nothing.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curbcut.physics import power
from curbcut.plan.validation import cells, energy_model, energy_rows
from curbcut.plan.validation.energy_rows import EnergyRow

FACTS = Path(__file__).parents[1] / "src/curbcut/facts"
HEADER = ("name", "accelerator", "stack", "version", "without", "value", "low", "high", "unit",
          "rows", "sources", "note", "source", "date")
SOURCE, DATE = "Curbcut fit, benchmarks/fit_power.py", "2026-11-22"
EIGHTY = 1.2816
UNITS = {"request_seconds": "s", "block_rows": "tokens", "knee": "power"}
Floats = NDArray[np.float64]


def unit(name: str) -> str:
    """The unit of a constant, by its name."""
    if name in UNITS or "_seconds" in name or "_tokens_" in name:
        return UNITS.get(name, "s" if "_seconds" in name else "tokens")
    return "of TDP" if name in power.NAMES else "share"


def lines(found: energy_model.Fitted, rows: Sequence[EnergyRow], note: str,
          without: str = "") -> dict[str, list[tuple[object, ...]]]:
    """Lines of both files of facts for one fit; sources are architectures."""
    out: dict[str, list[tuple[object, ...]]] = {power.FILE: [], energy_model.FILE: []}
    for (name, family), value in found.values.items():
        width = EIGHTY * found.widths.get((name, family), 0.7)
        own = telling(name, family, rows)
        count = len({row.architecture for row in own})
        said = note if (name, family) in found.widths else energy_model.LINK_NOTE
        if count < 2:
            said += "; unsupported: one architecture" if own else "; unsupported: no row of its own"
        out[power.FILE if name in power.NAMES else energy_model.FILE].append(
            (name, family, "", "", without, f"{value:.4g}", f"{value * np.exp(-width):.4g}",
             f"{value * np.exp(width):.4g}", unit(name), len(own), count, said, SOURCE, DATE))
    return out


def telling(name: str, family: str, rows: Sequence[EnergyRow]) -> list[EnergyRow]:
    """The rows that tell a constant: of its family, its task, or its kind of kernel."""
    found = [row for row in rows if not family or row.family == family]
    task = name.removeprefix(energy_model.PROMPT).removeprefix(energy_model.READ)
    if task in energy_rows.TASKS:
        found = [row for row in found if row.task == task]
    if name.startswith("block_"):
        found = [row for row in found if row.blocked]
    if name.startswith(("expert_", "block_")):
        found = [row for row in found if row.shape.experts]
    return found


def spread_lines(off: Mapping[str, Floats], rows: Sequence[EnergyRow]) -> list[
        tuple[object, ...]]:
    """Lines of both intervals of joules and watts, and of the spread of watts."""
    count = len({row.architecture for row in rows})
    found: list[tuple[object, ...]] = []
    for name, errors in off.items():
        for label, ends in (("80", (0.1, 0.9)), ("95", (0.025, 0.975))):
            low, high = np.exp(np.quantile(-errors, ends))
            found.append((f"{name}_spread{label}", "", "", "", "", 1, f"{min(low, 1):.4g}",
                          f"{max(high, 1):.4g}", "factor", len(rows), count,
                          "measured over predicted for architectures never seen", SOURCE, DATE))
    return found


def error_factors(errors: Floats) -> tuple[float, float]:
    """Median and 90% quantile of the factor by which predictions are off."""
    return (float(np.exp(np.median(np.abs(errors)))),
            float(np.exp(np.quantile(np.abs(errors), 0.9))))


def print_errors(title: str, off: Mapping[str, Floats], rows: Sequence[EnergyRow]) -> None:
    """Errors over all, by GPU, model, batch, precision and kind."""
    groups: Mapping[str, Callable[[EnergyRow], str]] = {
        "all": lambda row: "", "GPU": lambda row: row.family,
        "kind": lambda row: "experts" if row.shape.experts else "dense",
        "precision": lambda row: row.precision, "task": lambda row: row.task,
        "batch": lambda row: f"from {4 ** int(np.log(row.batch) / np.log(4) + 1e-6):4d}",
        "model": lambda row: row.name}
    print(title)
    for name, of in groups.items():
        labels = np.array([of(row) for row in rows])
        for label in sorted(set(labels)):
            own = labels == label
            said = "  ".join(f"{key} x{error_factors(errors[own])[0]:.2f} "
                             f"(p90 x{error_factors(errors[own])[1]:.2f})"
                             for key, errors in off.items())
            print(f"  {name:10}{label:42}{own.sum():5} rows  {said}")


def left_out(rows: Sequence[EnergyRow], rates: Floats, labels: Sequence[str],
             start: energy_model.Values) -> tuple[
                 dict[str, Floats], dict[str, energy_model.Fitted]]:
    """log(predicted / measured) of joules and watts of each row, its label never seen; and the
    constants without each label.
    """
    marks = np.array(labels)
    off = {name: np.empty(len(rows)) for name in energy_rows.MEASURED}
    fits = {}
    for label in sorted(set(labels)):
        others = [row for row, mark in zip(rows, marks, strict=True) if mark != label]
        fits[label] = energy_model.fit(others, rates[marks != label].tolist(), start)
        own = [row for row, mark in zip(rows, marks, strict=True) if mark == label]
        got = energy_model.predicted(energy_model.table(own), fits[label].values)
        for name in off:
            told = np.array([row.measured[name] for row in own])
            off[name][marks == label] = np.log(getattr(got, name) / told)
    return off, fits


def main(arguments: Sequence[str]) -> int:
    """Fits, writes, and prints what unseen models' errors are."""
    paths = [Path(one) for one in arguments if not one.startswith("--")]
    if not paths or not paths[0].is_file():
        print("no table of measured energy of inference given: nothing to fit")
        return 0
    rows, left = energy_rows.read(paths[0])
    raw = cells.read(paths[0])[1]
    rates = np.array([float(raw[int(row.id.split()[1]) - 1]["output_tokens_s"]) for row in rows])
    for one in left:
        print(f"left out: {one.id} ({one.source}): {one.reason}")
    whole = energy_model.fit(rows, rates.tolist())
    off, _ = left_out(rows, rates, [row.name for row in rows], whole.values)
    print_errors("model never seen", off, rows)
    off, fits = left_out(rows, rates, [row.architecture for row in rows], whole.values)
    print_errors("architecture never seen", off, rows)
    found = lines(whole, rows, "all rows of ML.ENERGY's v3 table")
    for label, fitted in fits.items():
        others = [row for row in rows if row.architecture != label]
        for file, own in lines(fitted, others, f"the table without {label}", label).items():
            found[file] += own
    found[energy_model.FILE] += spread_lines(off, rows)
    deviation = float(np.std(np.clip(off["watts"], *np.quantile(off["watts"], (0.05, 0.95)))))
    found[power.FILE].append(("spread", "", "", "", "", f"{deviation:.4g}", f"{deviation:.4g}",
                              f"{max(deviation, 0.2):.4g}", "log", len(rows), len(fits),
                              "of watts, architecture never seen, 5% of either end cut; high: "
                              "families that no row is of", SOURCE, DATE))
    if "--dry" not in arguments:
        for file, own in found.items():
            with (FACTS / f"{file}.csv").open("w", newline="", encoding="utf-8") as out:
                csv.writer(out, lineterminator="\n").writerows([HEADER, *own])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
