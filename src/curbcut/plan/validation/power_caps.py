"""Measured time and power of training under a cap, against what the physics says of the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import InputError
from curbcut.facts import accelerators
from curbcut.physics import power_cap
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.score import Prediction, Unexpressed
from curbcut.spec.estimate import Z90

COLUMNS = ("gpu", "power_limit_w", "limit_frac", "avg_power_w", "time_rel", "energy_rel")
TIME_SPREAD = 0.035
"""Log spread of epochs of one network, cap or none."""
_FAMILIES = {"rtx6000": "quadro-rtx-6000"}
"""Names of a table that mean an older card than the facts' of the same number."""
Z80, Z95 = 1.2815515655446004, 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One measured point: what a limit did to a network on a GPU."""

    id: str
    family: str
    limit: float
    """Share of the rated power."""
    draw: float
    """Mean draw without the cap, of the rated power."""
    seconds: float
    """Time over that without the cap."""
    watts: float
    """Mean power over that without the cap."""


def read(path: Path) -> tuple[list[Curve], list[Unexpressed]]:
    """The points with a cap, and the rows that are none. Raises InputError for other tables."""
    header, lines = cells_of.read(path)
    missing = set(COLUMNS) - set(header)
    if missing:
        raise InputError(f"has no column {', '.join(sorted(missing))}", where=str(path),
                         mend="give the columns of a table of power caps")
    own = [Cells(line) for line in lines]
    full = {_series(one): one for one in own if one.number("limit_frac") == 1}
    found: list[Curve] = []
    left: list[Unexpressed] = []
    for one in own:
        limit = one.number("limit_frac")
        name = f"{' '.join(_series(one))} at {one.text('power_limit_w')} W"
        try:
            if limit != 1:
                found.append(_curve(one, name, full.get(_series(one))))
        except CannotExpress as error:
            left.append(Unexpressed(name, one.text("gpu"), str(error)))
    return found, left


def _series(cells: Cells) -> tuple[str, ...]:
    """What is the same at all limits of one curve."""
    return tuple(cells.text(name) for name in (
        "gpu", "dataset", "network", "batch_size", "optimizer") if cells.text(name))


def _curve(cells: Cells, name: str, full: Cells | None) -> Curve:
    limit, watts_limit = cells.positive("limit_frac"), cells.positive("power_limit_w")
    time, energy = cells.positive("time_rel"), cells.positive("energy_rel")
    if not (limit and watts_limit and time and energy) or limit > 1:
        raise CannotExpress("no limit below the rated power with time and energy over those of it")
    drawn = full.positive("avg_power_w") if full else None
    if drawn is None:
        raise CannotExpress("no row of the same network at the rated power")
    return Curve(id=name, family=_family(cells), limit=limit, draw=drawn * limit / watts_limit,
                 seconds=time, watts=energy / time)


def _family(cells: Cells) -> str:
    name = cells.text("gpu").casefold()
    try:
        return _FAMILIES.get(name) or accelerators.accelerator(name).id.split("-")[0]
    except InputError:
        return name


def predict(path: Path, known: bool) -> dict[str, tuple[list[Prediction], list[Unexpressed]]]:
    """Time and energy of each point, over those at the rated power, by quantity.

    Unless `known`, the constants have not seen the GPU's family.
    """
    curves, left = read(path)
    return {"time": ([_time(one, known) for one in curves], left),
            "energy": ([_energy(one, known) for one in curves], [])}


def _found(one: Curve, known: bool) -> tuple[float, float, float, float]:
    """Predicted time and watts, and the log spread of time downwards and upwards."""
    constants = power_cap.cap_constants(one.family, "" if known else one.family)
    found = power_cap.capped(one.limit, one.draw, constants)
    low, _, high = power_cap.slowdown_spread(one.family if known else "")
    added = found.seconds - 1
    down = math.log(found.seconds / (1 + low * added)) / Z90
    up = math.log((1 + high * added) / found.seconds) / Z90
    return (found.seconds, found.watts, math.hypot(down, TIME_SPREAD),
            math.hypot(up, TIME_SPREAD))


def _time(one: Curve, known: bool) -> Prediction:
    seconds, _, down, up = _found(one, known)
    return _prediction(one, seconds, one.seconds, down, up)


def _energy(one: Curve, known: bool) -> Prediction:
    seconds, watts, down, up = _found(one, known)
    wide = power_cap.watts_spread()
    return _prediction(one, seconds * watts, one.seconds * one.watts,
                       math.hypot(down, wide), math.hypot(up, wide))


def _prediction(one: Curve, value: float, measured: float, down: float, up: float) -> Prediction:
    return Prediction(
        id=one.id, source=one.family, predicted=value, measured=measured,
        low80=value * math.exp(-Z80 * down), high80=value * math.exp(Z80 * up),
        low95=value * math.exp(-Z95 * down), high95=value * math.exp(Z95 * up))


