"""Our costs against published ones: what runs state, and Epoch's tables (`cost_epoch`).

A run's stated cost is beside what its accelerator-hours cost at the rent that its sources state,
and at today's price book: two bases, two parts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curbcut.accounts.rent import rent_price
from curbcut.errors import InputError
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation import cost_epoch, machines, runs
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.outcome import Outcome, Part, Regime
from curbcut.plan.validation.score import Prediction, Unexpressed
from curbcut.spec.nouns import Place

_RUNS = ("model", "gpu", "cost_usd_reported")
_RENT = re.compile(
    r"\$\s*(?P<usd>\d+(?:\.\d+)?)\s*(?:/|an? |per )\s*(?P<one>[a-z]+\d*[- ])?h(?:rs?|ours?)?\b"
    r"(?P<after>\s*(?:(?:a|per|for(?: an?| the)?|/)\s*)?(?:node|machine|server|\d+\s*x\s*\w+))?",
    re.I)
"""A rent as people write it: "$2/GPU-h", "$8/h", "$24/h node", "$24 an hour for a node"."""
_WHOLE = re.compile(r"node|machine|server|\d+\s*x", re.I)
NODE = 8
"""Accelerators of a machine whose number nobody says, or of one node of a larger one."""


def validate_cost(path: Path, regime: Regime) -> Outcome:
    """Scores the costs in `path`.

    Raises InputError for a file that is none of the tables.
    """
    header, lines = cells_of.read(path)
    rows = [Cells(line) for line in lines]
    found = cost_epoch.outcome(set(header), rows, regime)
    if found:
        return found
    if set(_RUNS) <= set(header):
        stated, book = _run_part(rows, _at_stated_rent), _run_part(rows, _at_the_book)
        return Outcome(kind="cost", table="published runs", regime=regime,
                       parts={"at the stated rent": stated, "at the price book": book},
                       more={"lines": _side_by_side(stated, book)})
    raise InputError("has no columns of a table of costs", where=str(path),
                     mend="give Epoch's results (system, capex_energy_usd, ...) or inputs (System, "
                     f"Publication date, ...), or runs with {', '.join(_RUNS)}")


def _run_part(rows: Sequence[Cells], price: Callable[[Cells], tuple[float, float, float, str]]
              ) -> Part:
    """Published runs with a cost: accelerator-hours at a rent (value, low, high, basis)."""
    found: list[Prediction] = []
    left: list[Unexpressed] = []
    for row in rows:
        name = row.text("model") or "?"
        try:
            stated = row.positive("cost_usd_reported")
            if stated is None:
                raise CannotExpress("cost not published")
            hours = runs.measured_hours(row)
            usd, low, high, basis = price(row)
            found.append(Prediction(
                id=name, source="published runs", predicted=hours * usd, low80=hours * low,
                high80=hours * high, low95=hours * low, high95=hours * high, measured=stated,
                assumed=(*row.assumed, basis)))
        except (CannotExpress, InputError) as error:
            left.append(Unexpressed(name, "published runs", str(error).partition("\n")[0]))
    return Part(predictions=found, unexpressed=left)


def _side_by_side(stated: Part, book: Part) -> list[dict[str, Any]]:
    """Each run as stated, by its accelerator-hours at the rent it states, and at the book's."""
    own = {one.id: one.predicted for one in stated.predictions}
    return [{"id": one.id, "reported": one.measured, "unit": "USD", "reproduced": own.get(one.id),
             "modelled": one.predicted, "low": one.low95, "high": one.high95,
             "ratio": one.predicted / one.measured, "basis": one.assumed[-1]}
            for one in book.predictions]


def _at_stated_rent(row: Cells) -> tuple[float, float, float, str]:
    match = _RENT.search(row.text("sources")) or _RENT.search(row.text("notes"))
    if not match:
        raise CannotExpress("no rent stated in sources or notes")
    usd, basis = float(match["usd"]), "an accelerator and hour"
    if _WHOLE.search(f"{match['one'] or ''} {match['after'] or ''}"):
        count = min(row.whole("n_gpus") or NODE, NODE)
        usd, basis = usd / count, f"{basis}, a machine of {count}"
    return usd, usd, usd, f"rent as stated, ${usd:g} {basis}"


def _at_the_book(row: Cells) -> tuple[float, float, float, str]:
    one = dataclasses.replace(machines.accelerator(row, row.text("gpu")), nodes=1)
    price = rent_price(one, Place(tenure="rent"))
    if price.value is None or price.low is None or price.high is None:
        raise CannotExpress(price.source.partition(";")[0])
    return price.value, price.low, price.high, f"our book: {price.source}"
