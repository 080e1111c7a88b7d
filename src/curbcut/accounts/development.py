"""The run that is kept is not all: experiments and failed runs, in money, energy and carbon alike.

The multiplier is what a project takes over what its final run takes. Until a ledger has seen enough
runs it is the literature's (`development_multiplier`: Epoch 1.2 to 4, OLMo 2 1.5, Olmo 3 5.6).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate, given

if TYPE_CHECKING:
    from curbcut.ledger import Training

KEY = "development.multiplier"
FEWEST_RUNS, FEWEST_FINISHED = 5, 3
"""Runs that a ledger must hold before its own ratio says more than the literature."""
DRAWS = 400
"""Bootstrap draws: the 5% and 95% ends of a ratio settle to a few per cent."""


def multiplier(stated: float = 0.0, own: Estimate | None = None) -> Estimate:
    """All of a project over its final run: what the person states (`TrainJob.development`, above
    0), else the ledger's own ratio, else the literature's with its interval.

    Raises InputError for a stated one below 1: the final run is part of its project.
    """
    if 0 < stated < 1:
        raise InputError(f"{stated:g} x of this run cannot be all runs", where="train.development",
                         mend="write 1 or more; 0 for the ledger's or the literature's")
    if stated:
        return given(stated, f"stated: all runs take {stated:g} x this one")
    if own is not None and own.known:
        return own
    return known("development_multiplier")


def own_ratio(trainings: Sequence[Training], seed: int = 0) -> Estimate | None:
    """Accelerator-seconds of all trainings over those of the runs that finished, not below 1.

    Lost work, stopped and failed runs count in the one and not in the other; an experiment that
    finished counts in both. The interval is a bootstrap over runs. None for too few runs.
    """
    finished = [one for one in trainings if one.finished and one.kept_seconds > 0]
    if len(trainings) < FEWEST_RUNS or len(finished) < FEWEST_FINISHED:
        return None
    draw = random.Random(seed)
    ratios = [ratio for ratio in (_ratio(draw.choices(trainings, k=len(trainings)))
                                  for _ in range(DRAWS)) if ratio is not None]
    ratios.sort()
    value = _ratio(trainings)
    assert value is not None
    low, high = ratios[int(0.05 * len(ratios))], ratios[int(0.95 * len(ratios))]
    return Estimate(value, min(low, value), max(high, value), "measured",
                    f"own ledger: {len(trainings)} trainings, {len(finished)} of them finished")


def _ratio(trainings: Sequence[Training]) -> float | None:
    kept = sum(one.kept_seconds for one in trainings if one.finished)
    return max(1.0, sum(one.all_seconds for one in trainings) / kept) if kept > 0 else None


def ledger_ratio(path: Path) -> Estimate | None:
    """`own_ratio` of the SQLite ledger at `path`; None where there is none, or too few runs.

    Nothing is made or written. Raises DamagedFile for a file that is no ledger.
    """
    if not path.is_file():
        return None
    from curbcut.ledger import kept_trainings

    return own_ratio(kept_trainings(path))


def write(sheet: Sheet, times: Estimate) -> None:
    """Writes the multiplier `times`, usd.development (what comes on top of usd.total), and the
    whole project's usd.project, kwh.project and kgco2e.project, each from what stands on the sheet.
    """
    if KEY not in sheet:
        sheet.leaf(KEY, times)
    said = times.source.partition(": ")[0]
    if "usd.total" in sheet:
        sheet.formula("usd.development", "total x (development - 1)", ["usd.total", KEY], _on_top,
                      "usd", source=f"experiments and failed runs: {said}")
    for section, run in (("usd", "total"), ("kwh", "facility"), ("kgco2e", "total")):
        key = f"{section}.{run}"
        if key in sheet:
            sheet.formula(f"{section}.project", f"{run} x development", [key, KEY], _product,
                          section, source=f"this run x {said}")


def _on_top(total: Number, times: Number) -> Number:
    return total * (times - 1.0)


def _product(total: Number, times: Number) -> Number:
    return total * times
