"""What requests took, by model, project and key, as metrics: tokens, money, joules, carbon.

A figure that is not known has no line. Ratios are over tokens of answers, their prompts' share of
joules and money included; they are of the time since the server began.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from curbcut.ledger.access import Caller
from curbcut.ledger.amounts import NAMES, usd
from curbcut.ledger.budgets import Budget
from curbcut.ledger.holds import Taken
from curbcut.ledger.plain import EACH
from curbcut.serve.exposition import Family
from curbcut.serve.metering.shares import Sum, Where

_MILLION = 1e6
Sample = tuple[str, Mapping[str, str], float]
Budgets = Callable[[], Sequence[Budget]]


@dataclass
class _Spent:
    """Sums over the requests of one key for one model; None as long as none is known."""

    prompt: int = 0
    cached: int = 0
    answer: int = 0
    charged_nanousd: int = 0
    cost_nanousd: int | None = None
    millijoules: int | None = None
    metered_answer: int = 0
    """Answer tokens of the requests whose joules are known; `costed_answer`: whose cost is."""
    costed_answer: int = 0

    def add(self, taken: Taken) -> None:
        """One request more."""
        self.prompt += taken.prompt_tokens
        self.cached += taken.cached_tokens
        self.answer += taken.output_tokens
        self.charged_nanousd += taken.nanousd
        if taken.cost_nanousd is not None:
            self.cost_nanousd = (self.cost_nanousd or 0) + taken.cost_nanousd
            self.costed_answer += taken.output_tokens
        if taken.millijoules is not None:
            self.millijoules = (self.millijoules or 0) + taken.millijoules
            self.metered_answer += taken.output_tokens


class Spending:
    """Adds up what was settled; threads may share it."""

    def __init__(self, where: Callable[[], Where] | None = None,
                 budgets: Budgets | None = None) -> None:
        self._where, self._budgets = where, budgets
        self._spent: dict[tuple[str, str, str, str], _Spent] = {}
        self._lock = threading.Lock()

    def settled(self, caller: Caller, model: str, taken: Taken) -> None:
        """One request was charged."""
        key = (model, caller.organisation, caller.project, caller.key)
        with self._lock:
            self._spent.setdefault(key, _Spent()).add(taken)

    def families(self) -> Iterator[Family]:
        """All figures that are known."""
        with self._lock:
            spent = {key: _Spent(**vars(one)) for key, one in sorted(self._spent.items())}
        yield from _by_key(spent)
        where = self._where() if self._where is not None else None
        yield from _ratios(spent, where)
        if where is not None:
            yield from _metered(where)
        if self._budgets is not None:
            yield from _left(self._budgets())


def _by_key(spent: Mapping[tuple[str, str, str, str], _Spent]) -> Iterator[Family]:
    labels = [(dict(zip(("model", "organisation", "project", "key"), key, strict=True)), one)
              for key, one in spent.items()]
    yield Family("curbcut_tokens", "counter", "Tokens of settled requests.", [
        ("_total", {**label, "kind": kind}, float(getattr(one, kind)))
        for label, one in labels for kind in ("prompt", "cached", "answer")])
    for name, field, what, scale in (
            ("charged_usd", "charged_nanousd", "Charged by the price list.", usd),
            ("cost_usd", "cost_nanousd", "Requests' share of the machine's money.", usd),
            ("request_joules", "millijoules", "Requests' share of the devices' energy.", _joules)):
        yield Family(f"curbcut_{name}", "counter", what, [
            ("_total", label, scale(value)) for label, one in labels
            if (value := getattr(one, field)) is not None])


def _ratios(spent: Mapping[tuple[str, str, str, str], _Spent],
            where: Where | None) -> Iterator[Family]:
    """J/token, $/Mtok, gCO2e/Mtok of each model."""
    joules: list[Sample] = []
    money: list[Sample] = []
    carbon: list[Sample] = []
    for model in dict.fromkeys(key[0] for key in spent):
        mine = [one for key, one in spent.items() if key[0] == model]
        answer = sum(one.answer for one in mine)
        for what, value, tokens in (
                ("charged", sum(one.charged_nanousd for one in mine), answer),
                ("cost", sum(one.cost_nanousd or 0 for one in mine),
                 sum(one.costed_answer for one in mine))):
            if tokens:
                money.append(("", {"model": model, "what": what}, usd(value) / tokens * _MILLION))
        metered = sum(one.metered_answer for one in mine)
        if metered:
            each = sum(one.millijoules or 0 for one in mine) / 1000 / metered
            joules.append(("", {"model": model}, each))
            base = where and where.sums.get((model.partition(":")[0], "requests"))
            if base and base.kgco2e is not None and base.millijoules:
                carbon.append(("", {"model": model}, each * _MILLION * base.kgco2e * 1000
                               / (base.millijoules / 1000)))
    yield Family("curbcut_joules_per_answer_token", "gauge",
                 "Devices' energy of requests over their answers' tokens.", joules)
    yield Family("curbcut_usd_per_million_answer_tokens", "gauge",
                 "Charged, and cost, over a million tokens of answers.", money)
    yield Family("curbcut_gco2e_per_million_answer_tokens", "gauge",
                 "Operational carbon at the facility over a million tokens of answers.", carbon)


def _metered(where: Where) -> Iterator[Family]:
    """Where the machine's joules, money and carbon went. The correction may fall, so it is none of
    the counters.
    """
    for name, read, what in (("joules", _of_joules, "Devices' energy"),
                             ("usd", _of_usd, "The machine's money"),
                             ("gco2e", _of_gco2e, "The facility's operational carbon")):
        counted: list[Sample] = []
        corrected: list[Sample] = []
        for (model, kind), one in sorted(where.sums.items()):
            value = read(one)
            if value is None:
                continue
            label = {"model": model, "kind": kind, "basis": where.basis}
            if kind == "correction":
                corrected.append(("", {"basis": where.basis}, value))
            else:
                counted.append(("_total", label, value))
        yield Family(f"curbcut_metered_{name}", "counter",
                     f"{what} by where it went: to requests, to nobody, to unsettled work.",
                     counted)
        yield Family(f"curbcut_metering_correction_{name}", "gauge",
                     f"{what}: what the counter said beyond that.",
                     corrected)


def _left(budgets: Sequence[Budget]) -> Iterator[Family]:
    for name, field, what in (("budget", "amount", "Budgets"), ("budget_spent", "spent", "Spent"),
                              ("budget_held", "held", "Held for requests under way"),
                              ("budget_left", "left", "Left of budgets")):
        yield Family(f"curbcut_{name}", "gauge", f"{what}, in the unit of its label.", [
            ("", {"scope": one.scope, "unit": NAMES[one.unit], "period": one.period},
             getattr(one, field) / EACH[one.unit]) for one in budgets])


def _joules(millijoules: int) -> float:
    return millijoules / 1000


def _of_joules(one: Sum) -> float | None:
    return None if one.millijoules is None else one.millijoules / 1000


def _of_usd(one: Sum) -> float | None:
    return usd(one.nanousd)


def _of_gco2e(one: Sum) -> float | None:
    return None if one.kgco2e is None else one.kgco2e * 1000
