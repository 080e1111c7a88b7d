"""Objectives of serving as people write them: "ttft=0.2,tpot=50ms,loss=2%"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.errors import InputError, UnknownName

if TYPE_CHECKING:
    from curbcut.plan.serving_choice import Objective
    from curbcut.spec import ServeJob

NAMES = ("ttft", "tpot")
LOSS = "loss"


def read(text: str, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Values by name: of times seconds, where a bare number is seconds; of the loss a share of bits
    a byte, where "any" takes all. Raises InputError, UnknownName.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in names:
            raise UnknownName("objective", name, names, where="--objective")
        found[name] = _share(value, part) if name == LOSS else _seconds(value, part)
    return found


def within(text: str, job: ServeJob) -> Objective:
    """What the plan is to choose within: the job's own objectives ("auto"), some of them others.
    Raises InputError, UnknownName.
    """
    from dataclasses import replace

    from curbcut.plan.serving_choice import Objective

    said = read(text, (*NAMES, LOSS)) if text != "auto" else {}
    own = Objective.of(job)
    return replace(own, ttft_seconds=said.get("ttft", own.ttft_seconds),
                   tpot_seconds=said.get("tpot", own.tpot_seconds),
                   most_loss=said.get(LOSS, own.most_loss))


def _seconds(value: str, part: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = units.parse(value, "seconds", "--objective")
    if not 0 < found < 1e6:
        raise InputError(f"{part!r} is no time", where="--objective",
                         mend="like ttft=0.2,tpot=50ms")
    return found


def _share(value: str, part: str) -> float:
    if value == "any":
        return math.inf
    try:
        found = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise InputError(f"{part!r} is no share of quality", where="--objective",
                         mend="like loss=2%, or loss=any")
    return found
