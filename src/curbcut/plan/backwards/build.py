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
from curbcut.plan.backwards.kept import Kept
from curbcut.plan.backwards.law import Law
from curbcut.plan.backwards.question import COSTS, Question
from curbcut.plan.backwards.serving import Served
from curbcut.plan.backwards.table import Table
from curbcut.plan.calibration import Correction, memory_spread
from curbcut.spec.nouns import ModelShape, Recipe

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

_Name = tuple[tuple[str, ...], str]
"""Machines and precision: fleets that have them alike differ by place or contract alone."""
_Asked = tuple[Recipe, tuple[float, float, float]]


def build(question: Question, fleets: Sequence[Fleet], shapes: Sequence[ModelShape],
          recipe_fields: Mapping[str, Any] | None = None,
          learned: Mapping[str, Correction] | None = None, *, smallest: bool = False,
          kept: Kept | None = None) -> Choices:
    """Prices every fleet, with `smallest` on shapes down to the least too; what is `kept` is not
    priced again. Raises InputError where no rate of any of them is known.
    """
    near = _near(question, fleets, shapes, smallest)
    asked = _asked(near[0], fleets, dict(recipe_fields or {}), learned or {})
    if kept is None:
        return _joined(question, fleets, near, asked, kept)
    key = (tuple(fleets), tuple(shapes), tuple(asked.items()), repr(question.traffic))
    whole = kept.choices(key, lambda: _joined(question, fleets, shapes, asked, kept))
    wanted = frozenset(near)
    return whole.of_shapes(np.array([i for i, one in enumerate(whole.shapes) if one in wanted]),
                           question)


def _asked(shape: ModelShape, fleets: Sequence[Fleet], fields: Mapping[str, Any],
           learned: Mapping[str, Correction]) -> dict[_Name, _Asked]:
    """By fleets that are alike: the recipe that all rows share, and what measured runs taught."""
    found: dict[_Name, _Asked] = {}
    for one in fleets:
        if _name(one) in found:
            continue
        own = dict(fields) | ({"precision": one.precision} if one.precision else {})
        base, _ = layout.base_recipe(shape, one.machines[0], own)
        known = learned.get(one.machines[0].name, Correction())
        slower = known.of_step(shape, base, one.machines[0])
        factor = slower.value if slower and slower.value else 1.0
        found[_name(one)] = base, (factor, known.memory_factor,
                                   memory_spread(one.machines[0], known))
    return found


def _name(one: Fleet) -> _Name:
    return tuple(each.name for each in one.machines), one.precision


def _joined(question: Question, fleets: Sequence[Fleet], shapes: Sequence[ModelShape],
            asked: Mapping[_Name, _Asked], kept: Kept | None) -> Choices:
    """The choices of all fleets whose rates are known, among all of `shapes`."""
    alike = {_name(one): one for one in fleets}

    def work(one: Fleet) -> Table | None:
        base, factors = asked[_name(one)]

        def price() -> Table | None:
            return table.priced(one.machines, shapes, base, *factors)

        # A machine has peaks by precision, which do not hash; its words say all of it.
        return price() if kept is None else kept.table(
            (repr(one.machines), tuple(shapes), base, factors), price)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = dict(zip(alike, pool.map(work, alike.values()), strict=True))
    both = [(one, mine) for one in fleets if (mine := found[_name(one)]) is not None]
    if not both:
        said = ", ".join(sorted({one.machines[0].name for one in fleets}))
        raise InputError(f"no matmul rate of {said} is known", where="machine",
                         mend="set machine.peak_flops, or run `curbcut doctor` on it")
    able = [one for one, _ in both]
    return choices(question, able, [mine for _, mine in both],
                   _served(question, able, tuple(shapes)), shapes)


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
