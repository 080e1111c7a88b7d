"""One row of the choices as a draft: what the plan chose, and that it was the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curbcut import units
from curbcut.facts.currency import usd_per
from curbcut.plan.backwards import fleets
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.question import Question, Traffic
from curbcut.plan.search_draft import on_machine
from curbcut.spec.draft import Draft
from curbcut.spec.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked beside the draft."""

    names: Sequence[str] = (fleets.ANY,)
    """Machines to choose from: fleets ("8xH100"), "here", or "any" for all with a price."""
    any_zone: bool = False
    """Whether the place may be chosen too; else it stays."""
    contracts: Sequence[str] = ()
    """Ways to rent to choose from; empty for the draft's own."""
    traffic: Traffic | None = None
    multiplier: Estimate | None = None
    """Of the project over this run, where the budget is the project's."""
    experts: bool = True
    """Whether shapes with experts are among the choices."""


def drafted(draft: Draft, choices: Choices, row: int, wish: Wish) -> Draft:
    """The draft of one row: its machine, place, limits and traffic; who chose them is said."""
    machine, place, question = choices.machine(row), choices.place(row), choices.question
    many = len(wish.names) > 1 or fleets.ANY in wish.names
    if many:
        draft = on_machine(draft, machine.name,
                           f"plan: lowest expected loss of {len(choices.fleets)} kinds of machine")
    elif wish.names[0]:
        draft = on_machine(draft, wish.names[0], draft.origins.get("machine.name", "command line"))
    if wish.any_zone:
        draft = draft.with_values({"place.zone": place.zone}, "plan: least carbon a kWh",
                                  override=True)
    if wish.contracts:
        draft = draft.with_values({"place.contract": place.contract}, "plan: cheapest asked",
                                  override=True)
    if "seconds" in question.assumed:
        draft = draft.with_values({"limits.seconds": question.limits["seconds"]},
                                  "plan: nobody said how long; a month is assumed")
    if (money := draft.get("limits.money")) is not None:
        draft = draft.with_values({"place.currency": money.currency}, "plan: the budget's")
    fleet = choices.fleets[int(choices.of_fleet[row])]
    if fleet.precision and fleet.worth.value is not None:
        worth = question.token_worth * fleet.worth.value
        draft = draft.with_values({"recipe.precision": fleet.precision},
                                  f"plan: lowest expected loss, though {fleet.worth.source}")
        draft = draft.with_values({"train.token_worth": worth}, f"plan: {fleet.worth.source}",
                                  override=True)
    draft = _with_shares(draft, choices, row)
    return _with_traffic(draft, question, choices, row)


def _with_shares(draft: Draft, choices: Choices, row: int) -> Draft:
    """The run's own limits: what the rest of the project and serving leave of what was said."""
    question, life = choices.question, choices.life[row]
    multiplier = question.multiplier.value or 1.0
    for i, (name, key) in enumerate((("usd", "money"), ("kwh", "kwh"), ("kgco2e", "kgco2e"))):
        said = draft.get(f"limits.{key}")
        if said is None or (multiplier == 1.0 and life[i] == 0):
            continue
        left = question.limits[name] - float(life[i])
        value: Any = left
        if name == "usd":
            value = units.Money(left / usd_per(said.currency).value, said.currency)
        why = [f"over {multiplier:.2f} for the project"] if multiplier != 1.0 else []
        why += ["without serving"] if life[i] else []
        draft = draft.with_values({f"limits.{key}": value},
                                  f"plan: this run's share of {said}: {', '.join(why)}",
                                  override=True)
    return draft


def _with_traffic(draft: Draft, question: Question, choices: Choices, row: int) -> Draft:
    traffic = question.traffic
    if traffic is None:
        return draft
    rate = traffic.tokens_per_second / traffic.job.output_tokens
    draft = draft.with_values({"serve.requests_per_second": rate, "serve.months":
                               traffic.job.months}, "command line", override=True)
    ranks, replicas = (int(one) for one in choices.servers[row])
    here = max(1, choices.machine(row).accelerators // ranks)
    return draft.with_values({
        "serve.tensor_parallel": min(ranks, choices.machine(row).accelerators),
        "serve.replicas": min(replicas, here)},
        f"plan: {replicas} of {ranks} accelerators are needed")
