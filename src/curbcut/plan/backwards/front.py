"""What nothing beats in loss, money, time, energy and carbon; and what the best machine beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curbcut.plan import pareto
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.points import Point, point
from curbcut.plan.backwards.question import COSTS, NAMES
from curbcut.plan.backwards.solve import Solution

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

POINTS = 12
"""Points of the front that stand for it."""
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Of a row's most tokens, that are looked at."""
NEAR_LOSS = 1.25
"""Losses beyond this times the best one's are left out: nobody buys them."""
LEAST_SECONDS, FEW = 3600.0, 8
"""Nobody sets up more accelerators than a node's for less than an hour: an assumption, for what is
shown alone."""
UNKNOWN = 1e300
"""Stands for money or carbon that nobody knows: it never beats one that is known."""
RUNNERS_UP = 6
ALIKE = 0.02
"""Relative differences below this are not named as reasons."""


def front(solution: Solution, best: Point | None = None) -> list[Point]:
    """A dozen points of the Pareto front, lowest loss first, what was chosen among them: the exact
    search may put another row first than the coarse table does.
    """
    rows, tokens, counts = _candidates(solution)
    if not len(rows):
        return []
    kept = pareto.front(counts)
    chosen = _representatives(np.log(np.maximum(counts[kept], 1e-12)))
    chosen = chosen[np.argsort(counts[kept[chosen], 0], kind="stable")]
    found = [point(solution.choices, int(rows[kept[i]]), float(tokens[kept[i]])) for i in chosen]
    if best is None or any((one.row, one.tokens) == (best.row, best.tokens) for one in found):
        return found
    others = [one for one in found if one.row != best.row][:POINTS - 1]
    return sorted([*others, best], key=lambda one: one.bits.value or 0.0)


def _candidates(solution: Solution) -> tuple[Rows, Floats, Floats]:
    """Rows, their tokens, and loss with costs [candidates, 5], within reach of the best."""
    choices = solution.choices
    pieces = []
    shares = SHARES if choices.question.loss is None else (1.0,)
    best = float(solution.bits[solution.row])
    wanted = choices.question.loss
    least = 0.0 if wanted is None else (1 - ALIKE) * min(wanted, best)
    possible = np.isfinite(solution.bits)
    counts_of = [np.array([one.accelerators for one in fleet.machines])
                 for fleet in choices.fleets]
    many = np.concatenate(counts_of)[
        np.cumsum([0, *map(len, counts_of[:-1])])[choices.of_fleet] + choices.of_machine]
    for share in shares:
        tokens = share * np.where(possible, solution.tokens, 0.0)
        bits, costs = choices.scored(tokens), choices.costs(tokens)
        short = (many > FEW) & (costs[:, 3] < LEAST_SECONDS)
        near = np.flatnonzero(possible & (bits <= NEAR_LOSS * best) & (bits >= least) & ~short)
        counts = np.column_stack([bits, np.minimum(costs[:, [0, 3, 1, 2]], UNKNOWN)])[near]
        pieces.append((near, tokens[near], counts))
    rows, tokens, counts = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return rows, tokens, counts


def _representatives(logs: Floats) -> Rows:
    """The lowest loss, then each time the point farthest from all taken so far."""
    taken = [int(np.lexsort((logs[:, 1], logs[:, 0]))[0])]
    width = np.ptp(logs, axis=0)
    scaled = logs[:, :3] / np.where(width > 0, width, 1.0)[:3]
    far = np.full(len(logs), np.inf)
    while len(taken) < min(POINTS, len(logs)):
        far = np.minimum(far, np.abs(scaled - scaled[taken[-1]]).sum(1))
        far[taken] = -1.0
        taken.append(int(np.argmax(far)))
    return np.array(taken, np.intp)


def runners_up(solution: Solution, top: int = RUNNERS_UP) -> list[Point]:
    """The best of each other accelerator or contract, nearest first, with why it lost; and the
    best's own accelerator in its other precision.
    """
    choices, row = solution.choices, solution.row
    mine = choices.fleets[int(choices.of_fleet[row])]
    found: dict[object, tuple[float, int]] = {}
    for i in np.unique(choices.of_fleet):
        fleet = choices.fleets[int(i)]
        if fleet is mine:
            continue
        rows = np.flatnonzero(choices.of_fleet == i)
        one = int(rows[np.lexsort((solution.costs[rows, 0], solution.score[rows]))[0]])
        score = float(solution.score[one])
        same = (fleet.machines, fleet.place) == (mine.machines, mine.place)
        key = fleet.precision if same else (tuple(each.name for each in fleet.machines),
                                            fleet.place.contract, fleet.place.zone)
        twin = (choices.machine(one).name, fleet.place, fleet.precision) == (
            choices.machine(row).name, mine.place, mine.precision)
        if np.isfinite(score) and not twin and (key not in found or (score, one) < found[key]):
            found[key] = (score, one)
    return [point(choices, one, float(solution.tokens[one]), reason(solution, one))
            for _, one in sorted(found.values())[:top]]


def reason(solution: Solution, row: int) -> str:
    """Why a row lost: what holds it, and how its price and speed a FLOP compare."""
    choices, best = solution.choices, solution.row
    said = []
    bound = _bound(choices, row)
    if bound and bound != _bound(choices, best):
        said.append(f"{NAMES[bound]} ends it")
    for what, mine, theirs in (
            ("hour", _rent(choices, row), _rent(choices, best)),
            ("FLOP", _flop_usd(choices, row), _flop_usd(choices, best))):
        if theirs > 0 and abs(mine / theirs - 1) > ALIKE:
            said.append(f"{what} x{mine / theirs:.2f}")
    life = choices.life[row, 0] - choices.life[best, 0]
    if abs(life) > ALIKE * max(1.0, solution.costs[best, 0]):
        said.append(f"serves {'dearer' if life > 0 else 'cheaper'}")
    return ", ".join(said) or "about as good"


def _bound(choices: Choices, row: int) -> str:
    if choices.question.loss is not None:
        return ""
    return (*COSTS, "data")[int(np.argmin(choices.bounds_at(row)))]


def _rent(choices: Choices, row: int) -> float:
    return float(choices.rates[row, 0] / choices.machine(row).accelerators)


def _flop_usd(choices: Choices, row: int) -> float:
    """Dollars of a training FLOP, as 6 N of them a token."""
    return float(choices.rates[row, 0] * choices.per_token[row]
                 / choices.shape(row).active_parameters)
