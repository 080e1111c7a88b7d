"""What to say of a budget that buys nothing: the smallest one that would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from curbcut import units
from curbcut.errors import InputError
from curbcut.plan import rules
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.question import NAMES, Question
from curbcut.plan.backwards.solve import Solution, least_needs, solve

KEYS: Mapping[str, str] = {"usd": "money", "kwh": "kwh", "kgco2e": "kgco2e", "seconds": "seconds"}
Exactly = Callable[[Choices, int, float], Mapping[str, float]]
UP = 1.005
"""Smallest budgets are named a little larger, so that rounding leaves them possible."""


def error(choices: Choices, said: Mapping[str, Any],
          build: Callable[[Question], Choices], exactly: Exactly) -> InputError:
    """The error for a question that no row answers; `said` are the limits as people wrote them,
    `build` makes the choices of another question on the same machines, and `exactly` says what
    limits a row needs for so many tokens.
    """
    if choices.question.loss is not None:
        free = solve(build(replace(choices.question, loss=None)))
        return _unreachable(choices, said, free)
    row, needs = least_needs(choices)
    what = (f"{_limits(said)} buys no model of at least "
            f"{units.show(rules.LEAST_PARAMETERS, 'count')} parameters with "
            f"{units.show(choices.least_tokens, 'count')} tokens on any machine that was asked for")
    if row is None:
        return InputError(what, where="limits", mend=_why_never(choices))
    exact = exactly(choices, row, choices.least_tokens)
    needs = {name: max(value, exact[name]) for name, value in needs.items()}
    return InputError(what, where="limits", mend=(
        f"the smallest feasible budget is {_enough(choices, needs, said)} on "
        f"{choices.machine(row).name}"))


def _unreachable(choices: Choices, said: Mapping[str, Any], free: Solution) -> InputError:
    question = choices.question
    lowest = (f"; the lowest within the limits is {free.bits[free.row]:.3f} on "
              f"{free.choices.machine(free.row).name}" if free.found else "")
    what = f"{question.loss:g} bits a byte is not reached within {_limits(said) or 'a month'}"
    row, needs = least_needs(choices)
    if row is not None:
        return InputError(what + lowest, where="limits.loss", mend=(
            f"it takes at least {_enough(choices, needs, said)} on {choices.machine(row).name}"))
    floor = float(choices.law.bits(np.full(len(choices.shapes), 1e30),
                                   np.arange(len(choices.shapes))).min())
    return InputError(what + lowest, where="limits.loss", mend=(
        f"no budget reaches it: the law's best on this text is {floor:.3f}; "
        f"ask for more than {1.01 * floor:.3f}"))


def _limits(said: Mapping[str, Any]) -> str:
    """The limits as people wrote them."""
    return " and ".join(_amount(name, said[key], 1.0) for name, key in KEYS.items()
                        if said.get(key) is not None)


def _enough(choices: Choices, needs: Mapping[str, float], said: Mapping[str, Any]) -> str:
    """What is needed of the limits that are too small, in the units that people wrote."""
    found = []
    for name, key in KEYS.items():
        limit = choices.question.limits.get(name)
        if limit is None or needs[name] <= limit:
            continue
        value = said.get(key, limit)
        found.append(_amount(name, value, UP * needs[name] / limit))
    return " and ".join(found)


def _amount(name: str, value: Any, scale: float) -> str:
    if name == "usd":
        return f"{units.small(value.amount * scale, 3)} {value.currency}"
    return units.show(value * scale, name)


def _why_never(choices: Choices) -> str:
    if choices.question.text_bytes and choices.law.most_tokens.max() < choices.least_tokens:
        needed = choices.least_tokens / choices.law.most_tokens.max() * choices.question.text_bytes
        return f"the text is too short: at least {units.show(needed, 'bytes')}"
    unknown = [name for i, name in enumerate(KEYS)
               if name in choices.question.limits and not np.isfinite(choices.rates[:, i]).any()]
    if unknown:
        return (f"the {NAMES[unknown[0]]} of these machines is not known; limit something else, "
                "or set its rate in [machine] or [place]")
    return "no layout fits the memory of these machines: name larger ones"
