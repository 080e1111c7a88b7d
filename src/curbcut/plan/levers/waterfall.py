"""Levers alone, and in the best order: a waterfall whose steps add up to the whole saving.

The order is greedy: of all levers not taken yet, each priced on top of those that are, the one that
saves most is next, until none saves. A lever's saving rarely grows by others, so the last known
saving ranks them, and only the best is priced again at each step; before the end all are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from curbcut import units
from curbcut.errors import InputError
from curbcut.facts import levers as facts
from curbcut.plan.levers.case import Aim, Case, Lever, Refusal, Taught
from curbcut.plan.levers.price import (
    Priced,
    end_of,
    of_whole,
    priced,
    saved,
    saved_share,
    start,
)
from curbcut.plan.levers.result import LeverResult, Scope, Status, Unit, Waterfall
from curbcut.spec.estimate import Estimate
from curbcut.spec.methods import CATALOGUE
from curbcut.spec.nouns import Limits, Run

LEAST_SHARE = 1e-3
"""Savings below this share of the whole are none: steps are whole, and leave remainders."""
MOST_SLOWER = 2.0
"""A lever may make the run this much longer where it has no limit of time: energy and money can
always be saved by waiting."""
_ORDER: tuple[Status, ...] = ("left", "on", "instead", "what-if", "costs", "no change",
                              "does not fit", "not here")
"""In which levers that were not taken are shown."""
_WHAT = {method.name: method.what for method in CATALOGUE}


@dataclass
class _Standing:
    """How a lever did so far."""

    lever: Lever
    alone: Priced | None = None
    refusal: Refusal | None = None
    ratio: float = math.inf
    """After over before, when it was last priced."""


def waterfall(run: Run, levers: Sequence[Lever], unit: Unit, *, what_if: bool = False,
              taught: Taught | None = None, before: Callable[[], None] | None = None) -> Waterfall:
    """All `levers` on `run`, in one unit. With `what_if` those on open assumptions join the order.
    What measured runs `taught` is in all of it. `before` is called before each of some hundred
    prices: what it raises ends it.

    Raises InputError where the unit is not known of the run.
    """
    case = Case(run, taught=taught or Taught())
    first = start(case, unit)
    most = run.limits.seconds or MOST_SLOWER * first.seconds
    def price(case: Case) -> Priced:
        if before is not None:
            before()
        return priced(case, unit)

    return descend(first, levers, price, most,
                   blank(run, "training", _what(first, run.limits), first), what_if=what_if)


def blank(run: Run, scope: Scope, what: str, first: Priced) -> Waterfall:
    """A waterfall of no levers yet."""
    model = run.model.preset or f"{units.show(run.model.parameters, 'count')} parameters"
    many = "" if scope == "serving" else f", {units.show(run.train.tokens, 'count')} tokens"
    how = run.place.contract if run.place.tenure == "rent" else ""
    bought = {"rent": f"rented {how}", "own": "owned", "academic": "granted"}[run.place.tenure]
    text = f"{model}{many}, on {run.machine.name}, {bought}, grid {run.place.zone}"
    return Waterfall(run.name, scope, text, what, first.unit, first.estimate, first.estimate,
                     saved_share(first, first), ())


def _what(first: Priced, limits: Limits) -> str:
    whole = "the project: this run, its experiments and failures" \
        if first.key.endswith(".project") else "this run"
    longest = "within its time limit" if limits.seconds else f"at most {MOST_SLOWER:g} x as long"
    return f"{whole}, at equal expected loss, {longest}"


def descend(first: Priced, levers: Sequence[Lever], price: Callable[[Case], Priced],
            most_seconds: float, empty: Waterfall, *, what_if: bool = False) -> Waterfall:
    """The waterfall from `first` down; `price` prices a case, `empty` says what it is of."""
    price = _once(price)

    def value(case: Case) -> float:
        found = price(case)
        return math.inf if found.seconds > most_seconds else found.value

    aim = Aim(empty.unit, value, most_seconds / first.seconds)
    stands = [_alone(one, first, aim, price, most_seconds) for one in levers]
    able = [one for one in stands if one.alone is not None
            and (one.lever.kind == "run" or (what_if and one.lever.kind == "what-if"))]
    now, steps = first, []
    while True:
        found = _next(able, now, aim, price, most_seconds)
        if found is None:
            break
        one, after = found
        steps.append((one, now, after))
        able = [other for other in able if other is not one and not (
            one.lever.excludes and other.lever.excludes == one.lever.excludes)]
        now = replace(after, case=replace(after.case, changed=(),
                                          taken=after.case.taken | {one.lever.name}))
    results = [_taken(i, *step, first) for i, step in enumerate(steps, 1)]
    rest = [_rest(one, first, {step[0].lever.name: step[0].lever for step in steps}, price)
            for one in stands if one not in [step[0] for step in steps]]
    rest.sort(key=lambda one: (_ORDER.index(one.status),
                               -(one.alone.value or 0.0) if one.alone else math.inf))
    if steps:
        empty = replace(empty, end=end_of(first, now), share=saved_share(first, now))
    return replace(empty, results=(*results, *rest))


def _once(price: Callable[[Case], Priced]) -> Callable[[Case], Priced]:
    """`price`, but the same object is priced once: levers that choose price what they return."""
    known: dict[int, tuple[Case, Priced]] = {}

    def found(case: Case) -> Priced:
        if id(case) not in known:
            known[id(case)] = (case, price(case))  # kept alive, so that its id stays its own
        return known[id(case)][1]
    return found


def _applied(lever: Lever, before: Priced, aim: Aim, price: Callable[[Case], Priced],
             most_seconds: float) -> Priced | Refusal:
    """The lever on a case, priced; or why not."""
    try:
        case = lever.apply(replace(before.case, changed=()), aim)
    except InputError as error:
        return Refusal(error.what)
    if isinstance(case, Refusal):
        return case
    found = price(case)
    if math.isinf(found.value):
        return Refusal(f"its {aim.unit.name} is not known")
    if found.seconds > max(most_seconds, before.seconds):
        return Refusal("takes too long", fits=False)
    return found


def _alone(lever: Lever, first: Priced, aim: Aim, price: Callable[[Case], Priced],
           most_seconds: float) -> _Standing:
    found = _applied(lever, first, aim, price, most_seconds)
    if isinstance(found, Refusal):
        return _Standing(lever, refusal=found)
    return _Standing(lever, found, ratio=found.value / first.value)


def _next(able: list[_Standing], now: Priced, aim: Aim, price: Callable[[Case], Priced],
          most_seconds: float) -> tuple[_Standing, Priced] | None:
    """The lever that saves most on top of `now`; None where none does."""
    fresh: dict[int, Priced] = {}
    least = 1 - LEAST_SHARE
    while True:
        ranked = sorted(able, key=lambda one: one.ratio)
        one = next((one for one in ranked if id(one) not in fresh or one.ratio < least), None)
        if one is None:
            return None
        if id(one) in fresh:
            return one, fresh[id(one)]
        found = _applied(one.lever, now, aim, price, most_seconds)
        one.ratio = math.inf if isinstance(found, Refusal) else found.value / now.value
        fresh[id(one)] = now if isinstance(found, Refusal) else found


def _taken(order: int, one: _Standing, before: Priced, after: Priced,
           first: Priced) -> LeverResult:
    assert one.alone is not None
    marginal = saved(before, after)
    return replace(
        _result(one, first, "taken"), order=order, marginal=marginal, before=before.value,
        after=after.value, changed=after.case.changed, uncertain=_uncertain(marginal))


def _on(lever: Lever, refusal: Refusal, first: Priced,
        price: Callable[[Case], Priced]) -> LeverResult | None:
    """What a lever saves that the run has; None where the run without it is not priced."""
    if lever.without is None or not refusal.why.startswith("already"):
        return None
    before = price(lever.without(replace(first.case, changed=())))
    if math.isinf(before.value) or not before.case.changed:
        return None
    share = saved_share(before, first)
    alone = of_whole(share, before)
    room = "" if before.case.fits() else "; without it, it would not fit"
    if (share.value or 0.0) < -LEAST_SHARE:
        surely = share.high is not None and share.high < 0
        room += "; cheaper without it" if surely else "; perhaps cheaper without it"
    return LeverResult(
        lever.name, lever.group, _WHAT[lever.name], "on", refusal.why + room, alone=alone,
        alone_share=share, uncertain=_uncertain(alone), evidence=facts.evidence(lever.name))


def _rest(one: _Standing, first: Priced, taken: dict[str, Lever],
          price: Callable[[Case], Priced]) -> LeverResult:
    """A lever that was not taken, and why."""
    if one.refusal is not None:
        have = _on(one.lever, one.refusal, first, price)
        if have is not None:
            return have
        status: Status = "not here" if one.refusal.fits else "does not fit"
        return LeverResult(one.lever.name, one.lever.group, _WHAT[one.lever.name], status,
                           one.refusal.why, evidence=facts.evidence(one.lever.name))
    assert one.alone is not None
    ratio = one.alone.value / first.value
    if one.lever.kind == "instead":
        return _result(one, first, "instead", "another question: needs an open model; its loss is "
                       "not that of this run")
    if one.lever.kind == "what-if":
        assumed = [row.quote for row in facts.evidence(one.lever.name) if row.prices]
        return _result(one, first, "what-if", f"assumed: {assumed[-1]}" if assumed else
                       "an assumption that only the traffic can tell")
    if abs(ratio - 1) < LEAST_SHARE:
        return _result(one, first, "no change", "changes nothing that this unit counts")
    if ratio > 1:
        return _result(one, first, "costs")
    sibling = next((other.name for other in taken.values()
                    if one.lever.excludes and other.excludes == one.lever.excludes), "")
    return _result(one, first, "left", f"instead of it: {sibling}" if sibling
                   else "saves nothing after the others")


def _result(one: _Standing, first: Priced, status: Status, reason: str = "") -> LeverResult:
    assert one.alone is not None
    share = saved_share(first, one.alone)
    alone = of_whole(share, first)
    return LeverResult(
        one.lever.name, one.lever.group, _WHAT[one.lever.name], status, reason, alone=alone,
        alone_share=share, changed=one.alone.case.changed,
        uncertain=_uncertain(alone), evidence=facts.evidence(one.lever.name))


def _uncertain(saving: Estimate) -> bool:
    return saving.contains(0.0)
