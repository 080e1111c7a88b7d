"""From a question and machines to its choices: the first stage's physics."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from curbcut.errors import InputError
from curbcut.plan import layout, rules
from curbcut.plan.backwards import serving, table
from curbcut.plan.backwards.choices import MOST_TOKENS, Choices, choices
from curbcut.plan.backwards.fleets import Fleet
from curbcut.plan.backwards.law import Law
from curbcut.plan.backwards.question import COSTS, Question
from curbcut.plan.backwards.serving import Served
from curbcut.plan.backwards.table import Table
from curbcut.plan.calibration import Correction, memory_spread
from curbcut.spec.nouns import ModelShape

SMALLER, LARGER = 40.0, 6.0
"""How far from the training-optimal size shapes are priced: smaller ones for less money on the
front and for serving, larger ones for text that ends."""
REACHING = 60.0
"""Times the smallest model that could reach a loss, up to which larger ones are priced: it would
take endless tokens, and the cheapest is a few times as large."""
BUSY = 0.5
"""Share of the peak that no training exceeds, for that size alone."""
OPTIMAL = 120.0
"""C = 6 N D at D = 20 N: FLOPs over N squared."""


def build(question: Question, fleets: Sequence[Fleet], shapes: Sequence[ModelShape],
          recipe_fields: Mapping[str, Any] | None = None,
          learned: Mapping[str, Correction] | None = None, *, smallest: bool = False) -> Choices:
    """Prices every fleet, with `smallest` on shapes down to the least too. Raises InputError where
    no rate of any of them is known.
    """
    fields, learned = dict(recipe_fields or {}), learned or {}
    near = _near(question, fleets, shapes, smallest)
    names = [(tuple(each.name for each in one.machines), one.precision) for one in fleets]
    alike = dict(zip(names, fleets, strict=True))

    def work(one: Fleet) -> Table | None:
        own = fields | ({"precision": one.precision} if one.precision else {})
        base, _ = layout.base_recipe(near[0], one.machines[0], own)
        known = learned.get(one.machines[0].name, Correction())
        slower = known.of_step(near[0], base, one.machines[0])
        factor = slower.value if slower and slower.value else 1.0
        return table.priced(one.machines, near, base, factor, known.memory_factor,
                            memory_spread(one.machines[0], known))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = dict(zip(alike, pool.map(work, alike.values()), strict=True))
    both = [(one, mine) for one, name in zip(fleets, names, strict=True)
            if (mine := found[name]) is not None]
    if not both:
        said = ", ".join(sorted({one.machines[0].name for one in fleets}))
        raise InputError(f"no matmul rate of {said} is known", where="machine",
                         mend="set machine.peak_flops, or run `curbcut doctor` on it")
    kept = [one for one, _ in both]
    return choices(question, kept, [mine for _, mine in both],
                   _served(question, kept, near), near)


def _served(question: Question, fleets: Sequence[Fleet],
            shapes: tuple[ModelShape, ...]) -> list[Served] | None:
    """What serving takes on each fleet, in its rule's precision; none without traffic."""
    if question.traffic is None:
        return None
    found: dict[str, Served] = {}
    for one in fleets:
        last = one.machines[-1]
        if last.name not in found:
            found[last.name] = serving.served(shapes, last, rules.precision(last)[0],
                                              question.traffic)
    return [found[one.machines[-1].name] for one in fleets]


def _near(question: Question, fleets: Sequence[Fleet], shapes: Sequence[ModelShape],
          smallest: bool) -> tuple[ModelShape, ...]:
    """Shapes within reach of what any fleet could train in the limits, or of the wanted loss."""
    if len(shapes) == 1:
        return tuple(shapes)
    if question.loss is not None:
        return _reaching(question, question.loss, shapes)
    flops = 0.0
    for fleet in fleets:
        for machine, rates in zip(fleet.machines, fleet.rates, strict=True):
            peak = max([*machine.peak_flops.values(), *machine.measured_flops.values()], default=0)
            seconds = min(question.planned(name) / (rates[name].value or math.inf)
                          for name in COSTS)
            flops = max(flops, BUSY * peak * machine.accelerators * seconds)
    best = math.sqrt(flops / OPTIMAL)
    found = [one for one in shapes
             if (smallest or best / SMALLER <= one.active_parameters)
             and one.active_parameters <= LARGER * best]
    return tuple(found or [min(shapes, key=lambda one: one.parameters)])


def _reaching(question: Question, loss: float,
              shapes: Sequence[ModelShape]) -> tuple[ModelShape, ...]:
    """Shapes that reach a loss on endless tokens, up to far larger ones; all where none does."""
    best = Law(shapes, question, "muon").bits(np.full(len(shapes), MOST_TOKENS),
                                              np.arange(len(shapes)))
    able = [one.active_parameters for one, bits in zip(shapes, best, strict=True) if bits <= loss]
    if not able:
        return tuple(shapes)
    return tuple(one for one in shapes
                 if min(able) <= one.active_parameters <= REACHING * min(able))
