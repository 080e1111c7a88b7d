"""The few best of the coarse table, searched and resolved: complete runs within their limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.plan import rules, space
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.question import COSTS, NAMES
from curbcut.plan.calibration import Pair, correction, memory_spread
from curbcut.plan.forecast import forecast, sheet_of
from curbcut.plan.offers import offer
from curbcut.plan.resolve import resolve, table
from curbcut.plan.search_draft import base_of
from curbcut.plan.surely import fastest_surely
from curbcut.spec.account import Account
from curbcut.spec.draft import Draft, Resolved
from curbcut.spec.nouns import Machine, ModelShape, Recipe

HELD = frozenset({"precision", "cp", "context", "offload", "pipeline", "virtual_stages"})
"""Fields that the search of the second stage leaves at the rule's value: others decide."""
ROUNDS = 4
"""Times that tokens are brought into agreement with the forecast."""
CLOSE = 0.003
"""Relative distance from the tightest limit that is close enough."""
KINDS = {"usd": ("usd", "total"), "kwh": ("kwh", "facility"), "kgco2e": ("kgco2e", "total"),
         "seconds": ("seconds", "total")}
"""Where an account has each cost."""


class TooLittle(InputError):
    """The limits have room for no training at all, by the run's own forecast."""


@dataclass(frozen=True, eq=False)
class Exact:
    """A row as a complete run and its forecast."""

    row: int
    resolved: Resolved
    account: Account
    """Without the intervals of what follows from other figures, until the best is told."""
    priced: int
    """Recipes that were priced for it; 0 where the rules chose."""
    sheet: Sheet
    """What the account is of."""

    def told(self) -> Exact:
        """The same with all intervals."""
        return replace(self, account=self.sheet.account())

    @property
    def tokens(self) -> int:
        """To train on."""
        return self.resolved.run.train.tokens

    @property
    def bits(self) -> float:
        """Expected bits a byte."""
        found = self.account.loss["bits_per_byte"].value
        assert found is not None
        return found

    @property
    def sure(self) -> bool:
        """Whether its memory fits at the upper end of the peak's interval too."""
        peak = self.account.memory_bytes["peak"]
        return peak.high is not None and peak.high <= self.resolved.run.machine.memory_bytes


def exact(draft: Draft, choices: Choices, row: int, tokens: float, *,
          here: Machine | None = None, pairs: Iterable[Pair] = ()) -> Exact:
    """The run of a row: recipe searched, tokens as many as its own forecast finds within the
    limits (or as reach the loss that is wanted). Raises InputError where the exact physics finds
    no room for it.
    """
    pairs = list(pairs)
    draft, count = _chosen(draft, choices, row, tokens, pairs)
    for _ in range(ROUNDS):
        resolved = _resolved(_without_limits(draft), choices, row, tokens, here, pairs)
        sheet = sheet_of(resolved.run, pairs, ways=False)
        factor = _factor(choices, row, sheet.account(sheet.middles()), resolved)
        if 0 <= factor - 1 <= CLOSE:
            break
        step = resolved.run.recipe.step_tokens
        tokens = max(1.0, resolved.run.train.tokens * factor // step) * step
    resolved = _resolved(draft, choices, row, tokens, here, pairs)
    sheet = sheet_of(resolved.run, pairs)
    account = sheet.account(sheet.middles())
    if _factor(choices, row, account, resolved) < 1 - CLOSE and choices.question.loss is None:
        raise TooLittle(f"{choices.machine(row).name} has no room for one step of "
                        f"{resolved.run.recipe.step_tokens:,} tokens", where="limits",
                        mend="raise the limits")
    return Exact(row, resolved, account, count, sheet)


def least(draft: Draft, choices: Choices, row: int, tokens: float, *, here: Machine | None = None,
          pairs: Iterable[Pair] = ()) -> Mapping[str, float]:
    """What limits must be for a row to train on so many tokens, by the forecast of its run."""
    pairs = list(pairs)
    draft, _ = _chosen(draft, choices, row, tokens, pairs)
    resolved = _resolved(_without_limits(draft), choices, row, tokens, here, pairs)
    found = spent(forecast(resolved.run, pairs))
    return {name: ((found[name] or 0.0) + float(choices.life[row, i])) / rules.LIMIT_MARGIN
            for i, name in enumerate(COSTS)}


def _chosen(draft: Draft, choices: Choices, row: int, tokens: float,
            pairs: list[Pair]) -> tuple[Draft, int]:
    """The draft with a row's model and its fastest recipe, and how many recipes were priced."""
    shape = choices.shape(row)
    recipe, count = _searched(draft, choices, row, tokens, pairs)
    if recipe is not None:
        draft = _with_recipe(draft, recipe, count)
    return draft.with_values(
        {f"model.{f.name}": getattr(shape, f.name) for f in fields(ModelShape)},
        "plan: lowest expected loss within the limits"), count


def _without_limits(draft: Draft) -> Draft:
    """The draft with nothing that its tokens are held by: they are still being found."""
    kept = {key: value for key, value in draft.values.items() if not key.startswith("limits.")}
    return Draft(kept, draft.origins)


def _resolved(draft: Draft, choices: Choices, row: int, tokens: float, here: Machine | None,
              pairs: list[Pair]) -> Resolved:
    sized = draft.with_values({"train.tokens": max(1, int(tokens))}, _why(choices, row))
    return resolve(sized, here=here, pairs=pairs)


def _searched(draft: Draft, choices: Choices, row: int, tokens: float,
              pairs: list[Pair]) -> tuple[Recipe | None, int]:
    """The fastest recipe of the row's model on its machine; none on a CPU, where rules choose."""
    machine, shape = choices.machine(row), choices.shape(row)
    if machine.kind == "cpu":
        return None, 0
    said = table(draft, "recipe")
    base = base_of(shape, machine, int(tokens), said)
    wanted = rules.batch_tokens(int(tokens), base.optimiser) / base.sequence_tokens
    if "global_batch" not in said:
        base = replace(base, global_batch=space.whole_batch(wanted, machine.accelerators))
    fixed = frozenset(name for name in said if name in space.FIELDS)
    learned = correction(machine, base.precision, pairs)
    whole = space.Space(shape, machine, base, fixed | HELD)
    one = offer(whole, choices.place(row), learned.memory_factor)
    best = fastest_surely(one, memory_spread(machine, learned), 1)
    return best.recipe, whole.count


def _with_recipe(draft: Draft, recipe: Recipe, count: int) -> Draft:
    names = {f"recipe.{name}": getattr(recipe, name) for name in space.FIELDS}
    kept = {f"recipe.{name}": getattr(recipe, name) for name in (
        "sequence_tokens", "global_batch", "attention", "optimiser", "learning_rate")}
    draft = draft.with_values(names, f"plan: least time of {count:,} recipes")
    return draft.with_values(kept, "plan: rule, held by the search")


def _why(choices: Choices, row: int) -> str:
    if choices.question.loss is not None:
        return f"plan: as few as reach {choices.question.loss:g} bits a byte"
    bounds = choices.bounds_at(row)
    name = (*COSTS, "data")[int(bounds.argmin())]
    if name == "data":
        return "plan: as many passes over the text as teach something"
    return f"plan: as many as the {NAMES[name]} limit allows"


def _factor(choices: Choices, row: int, account: Account, resolved: Resolved) -> float:
    """By how much tokens may grow (or must shrink) to meet what is asked."""
    question, tokens = choices.question, resolved.run.train.tokens
    if question.loss is not None:
        return _to_the_loss(choices, row, account, tokens)
    most = float(choices.law.most_tokens[choices.of_shape[row]]) / tokens
    for i, name in enumerate(COSTS):
        if name not in question.limits:
            continue
        value = spent(account)[name]
        left = question.planned(name) - float(choices.life[row, i])
        if value is None or value <= 0:
            raise InputError(f"the {NAMES[name]} of {resolved.run.machine.name} is not known",
                             where="limits", mend="limit something else, or name its rate in "
                             "[place] or [machine]")
        most = min(most, left / value)
    return most


def _to_the_loss(choices: Choices, row: int, account: Account, tokens: int) -> float:
    """Tokens follow the law's slope to the loss that is wanted."""
    wanted, found = choices.question.loss, account.loss["bits_per_byte"].value
    assert wanted is not None and found is not None
    shape = choices.of_shape[row:row + 1]
    import numpy as np

    here, more = choices.law.bits(np.array([float(tokens), 1.01 * tokens]),
                                  np.repeat(shape, 2), float(choices.worth[row]))
    slope = (here - more) / math.log(1.01)
    if slope <= 0:
        return 1.0
    step = (found - wanted * (1 - CLOSE / 10)) / float(slope)
    return math.exp(min(1.0, max(-1.0, step)))


def spent(account: Account) -> Mapping[str, float | None]:
    """What a forecast says of each cost, training alone."""
    found: dict[str, Any] = {}
    for name, (section, kind) in KINDS.items():
        estimate = account.get(section, kind)
        found[name] = None if estimate is None else estimate.value
    return found
