"""The best of all choices within the limits, what binds it, and what one more of each would buy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curbcut.plan import rules
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.question import COSTS, Question

Floats = NDArray[np.float64]

STEP = 0.01
"""Share of a limit by which it is raised for its shadow price."""
LARGE_STEP = 0.1
"""Share for what people are told that it buys."""
BINDS_WITHIN = 0.02
"""Limits that allow at most so much more than the tightest bind too."""
MEMORY_GAIN = 0.005
"""Share of the loss that endless memory would have to save to be said to bind."""
ALIKE = 1e-9


@dataclass(frozen=True)
class Shadow:
    """What a limit is worth at the margin. Gains are bits a byte; for a target loss, dollars."""

    name: str
    """By `question.NAMES`."""
    limit: float
    """In the unit of `COSTS`, of bytes for data."""
    per_unit: float
    """Gain by one more unit: the slope over `STEP`."""
    tenth: float
    """Gain by a tenth more."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The best row, and every row's tokens and loss."""

    choices: Choices
    row: int
    tokens: Floats
    bits: Floats
    """Bits a byte of each row; infinite for one that cannot be."""
    score: Floats
    """What is least: bits a byte, or dollars where a loss is wanted; of rows that may not fit, as
    if they were slower (`rules.UNSURE_MEMORY`)."""
    costs: Floats

    @property
    def found(self) -> bool:
        """Whether any row is possible."""
        return bool(np.isfinite(self.score[self.row]))


def solve(choices: Choices) -> Solution:
    """Lowest loss within the limits; least life-cycle money where a loss is wanted. Equals are
    told apart by money, then time.
    """
    if choices.question.loss is not None:
        return _cheapest(choices, choices.question.loss)
    tokens, bits = choices.most()
    some = np.maximum(tokens, 0.0)
    costs, score = choices.costs(some), choices.scored(some, bits)
    return Solution(choices, _best(score, costs), tokens, bits, score, costs)


def _least(choices: Choices) -> float:
    """The best score alone."""
    if choices.question.loss is not None:
        return float(solve(choices).score.min())
    tokens, bits = choices.most()
    return float(choices.scored(np.maximum(tokens, 0.0), bits).min())


def _cheapest(choices: Choices, loss: float) -> Solution:
    tokens = choices.needed(loss)
    costs = choices.costs(tokens)
    limits = np.array([choices.question.planned(name) for name in COSTS])
    bits = choices.bits(np.where(np.isfinite(tokens), tokens, 0.0))
    inside = np.isfinite(bits) & ((costs <= limits * (1 + ALIKE)) | np.isinf(limits)).all(1)
    score = np.where(inside, choices.unsure * costs[:, 0], np.inf)
    return Solution(choices, _best(score, costs), tokens, np.where(inside, bits, np.inf), score,
                    costs)


def _best(score: Floats, costs: Floats) -> int:
    least = np.flatnonzero(score == np.fmin.reduce(score))
    return int(least[np.lexsort((costs[least, 3], costs[least, 0]))[0]])


def binds(solution: Solution) -> list[str]:
    """What keeps the best from being better, tightest first, by `question.NAMES`."""
    choices, row = solution.choices, solution.row
    bounds = choices.bounds_at(row)
    names = (*COSTS, "data")
    if choices.question.loss is not None:
        found = ["loss"]
    else:
        least = bounds.min()
        found = [names[i] for i in np.argsort(bounds, kind="stable")
                 if np.isfinite(bounds[i]) and bounds[i] <= least * (1 + BINDS_WITHIN)]
    if _roomier(solution) < solution.score.min() * (1 - MEMORY_GAIN):
        found.append("memory")
    sizes = [one.active_parameters for one in choices.shapes]
    mine = choices.shape(row).active_parameters
    if len(sizes) > 1 and mine == max(sizes):
        found.append("law")
    return found


def _roomier(solution: Solution) -> float:
    """The best score if every layout fitted its machine."""
    roomy = replace(solution.choices, per_token=solution.choices.roomy_per_token,
                    sure=np.ones_like(solution.choices.sure))
    return _least(roomy)


def shadows(solution: Solution) -> Iterator[Shadow]:
    """The worth of each limit, of the text, and of the target loss."""
    question = solution.choices.question
    for name, limit in question.limits.items():
        yield _shadow(solution, name, limit, functools.partial(_raised, question, name))
    if question.text_bytes:
        yield _shadow(solution, "data", question.text_bytes, lambda share: replace(
            question, text_bytes=question.text_bytes * (1 + share)))
    if question.loss is not None:
        wanted = question.loss
        yield _shadow(solution, "loss", wanted, lambda share: replace(
            question, loss=wanted * (1 + share)))


def _raised(question: Question, name: str, share: float) -> Question:
    """The question with so much more of one limit."""
    return replace(question, limits={**question.limits, name: question.limits[name] * (1 + share)})


def _shadow(solution: Solution, name: str, limit: float,
            raised: Callable[[float], Question]) -> Shadow:
    before = float(solution.score.min())

    def gain(share: float) -> float:
        return max(0.0, before - _least(solution.choices.with_question(raised(share))))

    return Shadow(name, limit, gain(STEP) / (STEP * limit), gain(LARGE_STEP))


def least_needs(choices: Choices) -> tuple[int | None, Mapping[str, float]]:
    """The row that becomes possible with the least growth of limits, and what each limit must be
    for it; no row where none ever does.
    """
    question = choices.question
    limits = np.array([question.limits.get(name, np.inf) for name in COSTS])
    tokens = choices.needed(question.loss) if question.loss is not None else (
        choices.fewest())
    with np.errstate(invalid="ignore"):
        needs = choices.costs(tokens) / rules.LIMIT_MARGIN
        shares = np.where(np.isinf(limits), 1.0, np.maximum(needs / limits, 1e-3))
    tokens = np.where(tokens <= choices.law.most_tokens[choices.of_shape], tokens, np.inf)
    able = np.isfinite(tokens) & np.isfinite(choices.per_token) & np.isfinite(shares).all(1)
    growth = np.where(able, np.log(np.where(able[:, None], np.maximum(shares, 1.0), 1.0)).sum(1),
                      np.inf)
    if not able.any():
        return None, {}
    row = int(np.lexsort((needs[:, 0], growth))[0])
    return row, dict(zip(COSTS, map(float, needs[row]), strict=True))

