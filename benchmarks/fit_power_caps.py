"""Fits how accelerators bear a power cap and prints the rows of `facts/power_caps.csv`.

    python benchmarks/fit_power_caps.py [CURVES.csv] [--write]

CURVES.csv (default ../shared/data/power_cap_curves.csv: traces of Zeus, ml-energy/zeus, Apache-2.0)
has time and mean power of an epoch by limit, network and batch on four GPUs. Constants are fitted
to all rows, for each family (held near the general ones), and without each family; errors printed
are those of rows whose family was left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curbcut.physics.power_cap import FILE, NAMES, CapConstants, capped
from curbcut.plan.validation import power_caps
from curbcut.plan.validation.power_caps import Curve

Array = NDArray[np.float64]
LOW = np.array([0.05, 1.2, 0.3, 0.1, 1.0, 0.1, 1.0])
HIGH = np.array([0.45, 4.0, 0.95, 1.0, 1.8, 0.97, 1.12])
START = np.array([0.2, 2.4, 0.65, 0.6, 1.25, 0.5, 1.03])
NOISE = 0.05
"""Log error beyond which a row pulls by its sign alone: epochs of one network differ so much."""
NEAR = 0.5
"""Width of a family's constants around the general ones, on the scale they are searched on."""
TRIES = 4000
FELT = 0.02
"""Predicted extra time from which rows tell how far it may be off."""
Z80 = 1.2815515655446004
SOURCE = '"Curbcut fit, benchmarks/fit_power_caps.py; traces: Zeus (ml-energy/zeus, Apache-2.0)"'
NOTE = '"traces of one project: unsupported by a second"'


def main() -> None:
    """Prints the table, or writes it over the project's own with --write."""
    plain = [one for one in sys.argv[1:] if not one.startswith("--")]
    path = Path(plain[0] if plain else "../shared/data/power_cap_curves.csv")
    if not path.is_file():
        print(f"no curves at {path}: nothing to fit")
        return
    curves = power_caps.read(path)[0]
    lines, errors = fit_all(curves)
    header = ("name,accelerator,stack,version,without,value,low,high,unit,rows,sources,note,"
              "source,date")
    text = "\n".join([header, *lines]) + "\n"
    print("\n".join(errors))
    if "--write" in sys.argv:
        target = Path(__file__).parents[1] / f"src/curbcut/facts/{FILE}.csv"
        target.write_text(text, encoding="utf-8")
    else:
        print(text)


def fit_all(curves: Sequence[Curve]) -> tuple[list[str], list[str]]:
    """Lines of the table, and what the fit says of families that it did not see."""
    general = fit(curves)
    names = sorted({one.family for one in curves})
    own = {name: fit([one for one in curves if one.family == name], general) for name in names}
    out = {name: fit([one for one in curves if one.family != name]) for name in names}
    lines = [*_lines(general, {name: [point[place] for point in out.values()]
                               for place, name in enumerate(NAMES)}, rows=len(curves))]
    errors, ratios, draws = [], [], []
    for name in names:
        part = [one for one in curves if one.family == name]
        lines += _lines(own[name], {}, accelerator=name, rows=len(part))
        lines += _lines(out[name], {}, without=name, rows=len(curves) - len(part))
        ratios.append(_extra(out[name], part))
        draws.append(_residuals(out[name], _cases(part))[len(part):])
        lines.append(_slowdown(_extra(own[name], part), name, len(part)))
        errors.append(f"{name}: never seen {_errors(out[name], part)}; own "
                      f"{_errors(own[name], part)}")
    lines.append(_slowdown(np.concatenate(ratios), "", len(curves)))
    lines.append(_watts_spread(np.concatenate(draws), len(curves)))
    return lines, errors


def fit(curves: Sequence[Curve], near: Array | None = None, seed: int = 0) -> Array:
    """Constants in the order of `NAMES`, by a seeded random walk downhill; `near` holds them."""
    cases, middle = _cases(curves), _inner(START if near is None else near)
    width = 2.0 if near is None else NEAR
    random = np.random.default_rng(seed)

    def badness(point: Array) -> float:
        off = np.abs(_residuals(_outer(point), cases))
        loss = np.where(off < NOISE, off ** 2 / 2, NOISE * (off - NOISE / 2)).sum() / NOISE ** 2
        return float(loss + (((point - middle) / width) ** 2).sum() / 2)

    point, step = middle.copy(), 0.3
    best = badness(point)
    for _ in range(TRIES):
        trial = point + step * random.standard_normal(7) * (random.random(7) < 0.5)
        found = badness(trial)
        better = found < best
        point, best = (trial, found) if better else (point, best)
        step = min(step * 1.3, 1.0) if better else max(step * 0.98, 0.003)
    return _outer(point)


def _outer(point: Array) -> Array:
    values: Array = LOW + (HIGH - LOW) / (1 + np.exp(-point))
    return values


def _inner(values: Array) -> Array:
    share = np.clip((values - LOW) / (HIGH - LOW), 1e-3, 1 - 1e-3)
    point: Array = np.log(share / (1 - share))
    return point


def _cases(curves: Sequence[Curve]) -> Array:
    """Limit, draw, time and watts of each row, [rows, 4]."""
    return np.array([(one.limit, one.draw, one.seconds, one.watts) for one in curves])


def _residuals(values: Array, cases: Array) -> Array:
    """Log errors of time and of watts, one after the other."""
    found = capped(cases[:, 0], cases[:, 1], CapConstants(*values))
    return np.concatenate([np.log(found.seconds / cases[:, 2]), np.log(found.watts / cases[:, 3])])


def _extra(values: Array, curves: Sequence[Curve]) -> Array:
    """Measured over predicted extra time, where there is enough of it to tell."""
    cases = _cases(curves)
    added = capped(cases[:, 0], cases[:, 1], CapConstants(*values)).seconds - 1
    told = added > FELT
    ratios: Array = (cases[told, 2] - 1) / added[told]
    return ratios


def _errors(values: Array, curves: Sequence[Curve]) -> str:
    cases = _cases(curves)
    time, watts = np.split(_residuals(values, cases), 2)
    off = {"time": time, "watts": watts, "energy": time + watts}
    return ", ".join(f"{name} {np.median(np.abs(np.expm1(part))):.1%} (p90 "
                     f"{np.quantile(np.abs(np.expm1(part)), 0.9):.1%})"
                     for name, part in off.items())


def _lines(values: Array, others: Mapping[str, Sequence[float]], *, accelerator: str = "",
           without: str = "", rows: int) -> Iterator[str]:
    """A line a constant; its ends are those of fits without one family."""
    for name, value in zip(NAMES, values, strict=True):
        around = [float(value), *others.get(name, ())]
        yield (f"{name},{accelerator},,,{without},{value:.4g},{min(around):.4g},{max(around):.4g},"
               f"share,{rows},1,{NOTE},{SOURCE},2026-11-22")


def _slowdown(ratios: Array, accelerator: str, rows: int) -> str:
    low, high = np.quantile(ratios, (0.05, 0.95))
    return (f"slowdown,{accelerator},,,,1,{np.clip(low, 0.1, 1):.3g},{max(1.0, high):.3g},"
            f"of the extra time,{rows},1,5% and 95% of measured over predicted; unsupported by a "
            f"second project,{SOURCE},2026-11-22")


def _watts_spread(residuals: Array, rows: int) -> str:
    """Standard deviation that four of five rows of families left out are within 80% of."""
    value = np.quantile(np.abs(residuals), 0.8) / Z80
    return (f"watts_spread,,,,,{value:.2g},{value:.2g},{value:.2g},log,{rows},1,of mean watts "
            f"under a cap: 80% of rows of families left out over {Z80:.4g}; unsupported by a "
            f"second project,{SOURCE},2026-11-22")


if __name__ == "__main__":
    main()
