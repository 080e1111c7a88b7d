"""What people cost: a team's line on the sheet, and the development of four known models.

A team: full-time equivalents x dollars a year x the run's wall-clock time (`development` multiplies
it by all runs of the project). Where nobody said how many people, the line is not known.

The four models (GPT-3, OPT-175B, GPT-4, Gemini Ultra; arXiv:2405.21015, section 3): capital and
energy of the first approach times all experiments over the final run, and each contributor's salary
x overheads + equity, times his share of full time, times the project's years. The authors' notebook
draws equity once a contributor and keeps it through all samples of three of the models; here it is
drawn for every sample, so intervals of staff are wider. Energy, too, is the first approach's for
each model, where theirs takes a published figure for GPT-3 and another formula for OPT and Gemini.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from curbcut.accounts import epoch as approaches
from curbcut.accounts.rent import hours_a_year, once
from curbcut.accounts.sheet import SAMPLES, Sheet
from curbcut.facts import epoch, epoch_staff
from curbcut.facts.epoch_staff import Project, Range, Role
from curbcut.spec.estimate import Z90, Estimate, given, unknown
from curbcut.spec.nouns import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WITHOUT = "staff not included"
BLOCK = 64
"""Contributors drawn at a time: memory stays small."""


def write(sheet: Sheet, place: Place) -> None:
    """Writes usd.staff: not known where nobody said `staff_fte`. Needs seconds.total."""
    if not place.staff_fte:
        sheet.leaf("usd.staff", unknown(
            f"{WITHOUT}: nobody said how many people (place.staff_fte)", "default"), "usd")
        return
    people = once(sheet, "staff.fte", given(place.staff_fte, "place.staff_fte"))
    seconds = 3600.0 * hours_a_year()
    sheet.formula("usd.staff", "people x dollars a year x seconds / seconds of a year",
                  (people, _write_usd_per_year(sheet, place), "seconds.total"),
                  lambda fte, usd, time: fte * usd * time / seconds, "usd")


def _write_usd_per_year(sheet: Sheet, place: Place) -> str:
    """What one full-time equivalent costs a year: as said, else a salary and its overheads."""
    key = "staff.usd_per_year"
    if place.staff_usd_per_year:
        return once(sheet, key, given(place.staff_usd_per_year, "place.staff_usd_per_year"), "usd")
    salary = once(sheet, "staff.salary_usd", _constant("salary_usd"), "usd")
    overhead = once(sheet, "staff.overhead", _constant("staff_overhead"))
    return sheet.formula(key, "salary x overheads", (salary, overhead),
                         lambda usd, ratio: usd * ratio, "usd",
                         source="researchers of large companies in California (Epoch AI): set "
                         "place.staff_usd_per_year for other people")


def _constant(name: str) -> Estimate:
    found = epoch.constant(name)
    return Estimate(found.value, found.low, found.high, "default", found.source)


def models() -> list[str]:
    """Names of the models whose development is known."""
    return [one.model for one in epoch_staff.projects()]


def development(model: str, samples: int = SAMPLES, seed: int = 0, *,
                equity_once: bool = False) -> Mapping[str, NDArray[np.float64]]:
    """Draws of what a model's development cost, by part, in dollars of December 2023.

    Parts: staff, chips, server, network, energy and total, each of [samples]. With `equity_once`
    equity is drawn as the authors' notebook does. Raises UnknownName for a model without a project.
    """
    import numpy as np

    project = epoch_staff.project(model)
    costs = approaches.three(model)
    assert costs.amortised is not None
    generator = np.random.default_rng([seed, zlib.crc32(model.encode())])
    ratio = costs.amortised.usd_2023 / costs.amortised.usd
    known = epoch.constant("experiment_factor")
    factor = _between((known.low, known.high), samples, generator) * ratio
    found = {name: usd * factor for name, usd in costs.amortised.parts.items()}
    price = epoch.electricity(costs.model.published.year)
    found["energy"] = found["energy"] * _between(
        (price.low / price.value, price.high / price.value), samples, generator)
    found["staff"] = ratio * staff_usd(project, samples, generator, equity_once)
    return found | {"total": np.sum(list(found.values()), axis=0)}


def staff_usd(project: Project, samples: int, generator: np.random.Generator,
              equity_once: bool = False) -> NDArray[np.float64]:
    """Draws of what all contributors of a project cost, in dollars of its time, [samples]."""
    import numpy as np

    a_year = np.zeros(samples)
    for role in project.roles:
        for first in range(0, role.people, BLOCK):
            people = min(BLOCK, role.people - first)
            a_year += _people(role, people, samples, generator, equity_once)
    drawn: NDArray[np.float64] = a_year * _years(project, samples, generator)
    return drawn


def _people(role: Role, people: int, samples: int, generator: np.random.Generator,
            equity_once: bool) -> NDArray[np.float64]:
    """Dollars a year of some people of a role, together, [samples]."""
    overhead = epoch.constant("staff_overhead")
    shape = (people, samples)
    salary = _between(role.salary_usd, shape, generator)
    salary *= _between((overhead.low, overhead.high), shape, generator)
    salary += _between(role.equity_usd, (people, 1) if equity_once else shape, generator)
    salary *= _between(role.fte, shape, generator)
    together: NDArray[np.float64] = salary.sum(axis=0)
    return together


def _years(project: Project, samples: int,
           generator: np.random.Generator) -> NDArray[np.float64] | float:
    """Draws of how long a project took."""
    import numpy as np

    if project.years:
        low, high = project.years
        return low if low == high else _between(project.years, samples, generator)
    assert project.start and project.end
    first, last = (float(one.toordinal()) for one in project.start)
    end = float(project.end.toordinal())
    kept = np.empty(0)
    while len(kept) < samples:
        start = (first + last) / 2 + generator.standard_normal(samples) * (last - first) / 2 / Z90
        delay = _between(project.delay_days, samples, generator) if project.delay_days else 0.0
        days = end - delay - start
        kept = np.concatenate([kept, days[days > project.least_days]])
    return kept[:samples] / approaches.DAYS_A_YEAR


def _between(ends: Range, shape: int | tuple[int, int],
             generator: np.random.Generator) -> NDArray[np.float64]:
    """Log-normal draws of which 90% lie between the ends."""
    import numpy as np

    low, high = (math.log(end) for end in ends)
    drawn: NDArray[np.float64] = np.exp(
        (low + high) / 2 + generator.standard_normal(shape) * (high - low) / 2 / Z90)
    return drawn
