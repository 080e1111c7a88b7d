"""How sure the answer is: draws of what nobody knows, common to all rows that share it.

A price, a speed and a power of one accelerator are drawn once for all rows on it, and apart for
different ones; the law, its text and what an optimiser or a precision teaches are common to all.
So what two rows share cancels where they are compared, and only what differs is left to doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curbcut.accounts.sheet import Sheet, draws
from curbcut.facts import loss_laws
from curbcut.physics import time
from curbcut.plan import loss
from curbcut.plan.backwards.choices import HALVINGS, LEAST_TOKENS, MOST_TOKENS, Choices
from curbcut.plan.backwards.points import Point, asked, recipe
from curbcut.plan.backwards.question import COSTS
from curbcut.plan.loss import law
from curbcut.spec.estimate import Estimate, modelled

Floats = NDArray[np.float64]
_Of = Callable[[str, Estimate], Floats]

SAMPLES = 4000
SEED = 0
LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws of one row, each [samples]."""

    choices: Choices
    row: int
    slower: Floats
    """Seconds over those that are planned."""
    rates: Floats
    """What a second costs [samples, costs], by `COSTS`."""
    worth: Floats
    text: Floats
    reducible: Floats
    """What a token teaches, the text's factor, and the law's reducible loss over its middle."""

    def bits(self, tokens: Floats | float) -> Floats:
        """Bits a byte after so many tokens."""
        found, place = self.choices.law, int(self.choices.of_shape[self.row])
        own = found.bytes[place]
        unique = None if found.unique is None else law.law_tokens(found.unique[place], own)
        capacity, data = law.terms(
            found.parameters[place], law.law_tokens(tokens, own), unique_tokens=unique,
            worth=self.worth, expanded=found.expanded[place])
        nats = loss_laws.law().E + law.bent(capacity + data) * self.reducible
        return np.asarray(self.text * law.bits_per_byte(nats), np.float64)

    def costs(self, tokens: Floats | float) -> Floats:
        """What training and serving cost [samples, costs]."""
        choices, row = self.choices, self.row
        seconds = self.slower * (tokens * choices.per_token[row] + choices.fixed[row])
        return np.asarray(choices.life[row] + self.rates * seconds[:, None], np.float64)

    def most(self) -> Floats:
        """Tokens that the limits turn out to pay for."""
        choices, row = self.choices, self.row
        seconds = np.full(len(self.slower), np.inf)
        for i, name in enumerate(COSTS):
            if name in choices.question.limits:
                left = choices.question.planned(name) - float(choices.life[row, i])
                seconds = np.minimum(seconds, left / self.rates[:, i])
        seconds = seconds / self.slower
        tokens = (seconds - choices.fixed[row]) / choices.per_token[row]
        most = float(choices.law.most_tokens[choices.of_shape[row]])
        return np.asarray(np.clip(tokens, 1.0, min(most, MOST_TOKENS)), np.float64)

    def needed(self, bits: float) -> Floats:
        """Tokens that turn out to be needed for a loss; the most there are where none reach it."""
        most = min(MOST_TOKENS, float(self.choices.law.most_tokens[
            self.choices.of_shape[self.row]]))
        low, high = np.full(len(self.text), math.log(LEAST_TOKENS)), np.full(
            len(self.text), math.log(max(most, LEAST_TOKENS)))
        for _ in range(HALVINGS // 2):
            middle = (low + high) / 2
            enough = self.bits(np.exp(middle)) <= bits
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.asarray(np.exp(high), np.float64)


def drawn(choices: Choices, row: int, tokens: float, samples: int = SAMPLES,
          seed: int = SEED) -> Drawn:
    """The draws of a row; the same of a seed, whatever else is drawn."""
    fleet = choices.fleets[int(choices.of_fleet[row])]
    machine, shape = choices.machine(row), choices.shape(row)

    def of(key: str, estimate: Estimate) -> Floats:
        return np.broadcast_to(np.asarray(draws(key, estimate, samples, seed), np.float64),
                               (samples,))

    wide = time.spread90(shape, recipe(choices, row), machine)
    sheet = Sheet()
    loss.write(sheet, shape, tokens, asked(choices, row))
    known = {key: sheet[f"law.{key}"].estimate for key in ("worth", "text", "spread")}
    worth = of("law.worth", known["worth"]) * of(
        f"worth.{fleet.precision}", fleet.worth.scaled(1 / (fleet.worth.value or 1.0)))
    return Drawn(choices, row, of(f"seconds.{machine.accelerator}", modelled(1.0, wide, "")),
                 _rates(choices, row, of), worth, of("law.text", known["text"]),
                 _reducible(known["spread"], bool(shape.experts), of))


def _rates(choices: Choices, row: int, of: _Of) -> Floats:
    """Money by accelerator and contract, energy by accelerator; carbon follows energy and zone."""
    place, machine = choices.place(row), choices.machine(row)
    found = choices.fleets[int(choices.of_fleet[row])].rates[int(choices.of_machine[row])]
    keys = {"usd": f"usd.{machine.accelerator}.{place.contract}",
            "kwh": f"kwh.{machine.accelerator}", "kgco2e": f"kgco2e.{place.zone}"}
    columns = []
    for i, name in enumerate(COSTS):
        one, value = found[name], float(choices.rates[row, i])
        columns.append(of(keys[name], one) * (value / one.value) if name in keys and one.value
                       else of(name, Estimate(value)))
    return np.column_stack(columns)


def _reducible(spread: Estimate, experts: bool, of: _Of) -> Floats:
    """The law's own doubt is common to all; what is added beyond its runs is apart for models of
    experts, whose law is another.
    """
    assert spread.value and spread.high
    whole = math.log(spread.high / spread.value)
    within = min(whole, math.log(loss.LAW_SPREAD))
    beyond = math.sqrt(max(0.0, whole ** 2 - within ** 2))
    return of("law.spread", modelled(1.0, math.exp(within), "")) * of(
        "law.experts" if experts else "law.beyond", modelled(1.0, math.exp(beyond), ""))


def with_intervals(choices: Choices, points: Sequence[Point]) -> list[Point]:
    """The points with the 5% and 95% quantiles of their draws."""
    found = []
    for one in points:
        sample = drawn(choices, one.row, one.tokens)
        costs = sample.costs(one.tokens)
        found.append(replace(
            one, bits=_between(one.bits, sample.bits(one.tokens)),
            costs={name: _between(one.costs[name], costs[:, i])
                   for i, name in enumerate(COSTS)}))
    return found


def _between(estimate: Estimate, sample: Floats) -> Estimate:
    if estimate.value is None or not np.isfinite(sample).all():
        return estimate
    low, high = np.quantile(sample, (LOW, HIGH))
    return replace(estimate, low=min(float(low), estimate.value),
                   high=max(float(high), estimate.value))


def with_chances(choices: Choices, best: Point, others: Sequence[Point]) -> list[Point]:
    """The others with the share of draws in which they are really better than the best: both with
    all that the limits then pay for, or where a loss is wanted both until they reach it.
    """
    score = _score(choices, best)
    return [replace(one, chance=float(np.mean(_score(choices, one) < score))) for one in others]


def _score(choices: Choices, one: Point) -> Floats:
    sample = drawn(choices, one.row, one.tokens)
    wanted = choices.question.loss
    if wanted is None:
        return sample.bits(sample.most())
    return np.asarray(sample.costs(sample.needed(wanted))[:, 0])
