"""What making a chip takes: energy, gases and materials a cm2 by process, and dies of accelerators.

The figures of ACT (Gupta et al., ISCA 2022; facebookresearch/ACT), and die sizes as Epoch AI lists
them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table
from curbcut.facts.accelerators import accelerator


@dataclass(frozen=True, kw_only=True)
class Fab:
    """Making one cm2 of wafer in one process."""

    process_nm: float
    kwh_per_cm2: float
    gas_kg_per_cm2_low: float
    """kg CO2e of process gases at 99% abatement."""
    gas_kg_per_cm2_high: float
    """kg CO2e of process gases at 95% abatement."""
    materials_kg_per_cm2: float
    source: str
    date: str


@dataclass(frozen=True, kw_only=True)
class Die:
    """Silicon of one accelerator."""

    accelerator: str
    die_mm2: float
    process_nm: float
    source: str
    date: str


def fab(process_nm: float) -> Fab:
    """The process nearest in ratio to `process_nm` (above 0): ACT has eight, from 28 to 3 nm."""
    return min(_fabs(table.overlay_folder()),
               key=lambda one: abs(math.log(one.process_nm / process_nm)))


def die(name: str) -> Die | None:
    """The die of an accelerator (id or alias); None where no source states it.

    Raises UnknownName for an unknown accelerator.
    """
    return _dies(table.overlay_folder()).get(accelerator(name).id)


@functools.cache
def _fabs(overlay: Path) -> tuple[Fab, ...]:
    return tuple(
        Fab(process_nm=row.number("process_nm"), kwh_per_cm2=row.number("kwh_per_cm2"),
            gas_kg_per_cm2_low=row.number("gas_g_per_cm2_low") / 1000,
            gas_kg_per_cm2_high=row.number("gas_g_per_cm2_high") / 1000,
            materials_kg_per_cm2=row.number("materials_g_per_cm2") / 1000,
            source=row.text("source"), date=row.text("date"))
        for row in table.rows("fab", ("process_nm",)))


@functools.cache
def _dies(overlay: Path) -> dict[str, Die]:
    found = {}
    for row in table.rows("dies", ("accelerator",)):
        wanted = accelerator(row.text("accelerator"), where=row.place).id
        found[wanted] = Die(accelerator=wanted, die_mm2=row.number("die_mm2"),
                            process_nm=row.number("process_nm"), source=row.text("source"),
                            date=row.text("date"))
    return found
