"""The whole way back: a draft with limits in, the best complete run out, with what it beat."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curbcut.errors import InputError
from curbcut.plan import machines, rules
from curbcut.plan.backwards import chances, family, fleets, impossible
from curbcut.plan.backwards.build import build
from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.drafts import Wish, drafted
from curbcut.plan.backwards.exact import Exact, TooLittle, exact, least, spent
from curbcut.plan.backwards.fleets import Fleet
from curbcut.plan.backwards.front import front, runners_up
from curbcut.plan.backwards.kept import Kept
from curbcut.plan.backwards.points import Point, point
from curbcut.plan.backwards.question import COSTS, Question, of_limits
from curbcut.plan.backwards.solve import Shadow, Solution, binds, shadows, solve
from curbcut.plan.calibration import MOST_RUNS, Pair, correction
from curbcut.plan.resolve import DIMENSIONS, machine_of, place_of, table, text_of
from curbcut.plan.search_draft import on_machine
from curbcut.spec import checks, codec
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import Limits, Machine, ModelShape, Place

FINALISTS = 3
"""Rows of the coarse table that are searched and resolved exactly."""
WITHIN = 0.01
"""Relative distance from the best row within which rows are finalists."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a budget buys."""

    question: Question
    best: Exact
    chosen: Point
    """The best as the coarse table has it: with what serving costs."""
    binds: tuple[str, ...]
    shadows: tuple[Shadow, ...]
    front: tuple[Point, ...]
    runners_up: tuple[Point, ...]
    solution: Solution
    machines: int
    """Machines that were compared: accelerators in so many counts."""
    priced: int
    """Rows that the physics priced."""

    @property
    def spent(self) -> Mapping[str, float | None]:
        """What the run and its serving take, by `question.COSTS`, as the run's forecast has it."""
        life = self.serving
        return {name: None if value is None else value + life.get(name, 0.0)
                for name, value in spent(self.best.account).items()}

    @property
    def serving(self) -> Mapping[str, float]:
        """What serving costs, by `question.COSTS`; empty without traffic."""
        if self.question.traffic is None:
            return {}
        return dict(zip(COSTS, map(float, self.solution.choices.life[self.best.row]), strict=True))


def backwards(draft: Draft, wish: Wish, *, here: Machine | None = None,
              pairs: Iterable[Pair] = (), kept: Kept | None = None) -> Answer:
    """The model, tokens, machine, recipe and place of the lowest expected loss in the draft's
    limits; or, with `limits.loss`, of the least life-cycle money. Who asks often hands in what is
    `kept` from one question to the next: the answer is the same.

    Raises InputError for what cannot be, with the smallest budget that can; UnknownName for a
    machine or zone that is not known.
    """
    pairs, draft = list(itertools.islice(pairs, MOST_RUNS)), draft.with_preset()
    checks.magnitudes(draft.values)
    found = _fleets(draft, wish, here) if kept is None else kept.fleets(
        _where(draft, wish, here), lambda: _fleets(draft, wish, here))
    question = _question(draft, wish, found, here, pairs)
    shapes = _shapes(draft, found, wish)
    learned = {} if here is None else {here.name: correction(
        here, rules.precision(here)[0], pairs)}
    built = functools.partial(build, fleets=found, shapes=shapes,
                              recipe_fields=table(draft, "recipe"), learned=learned, kept=kept)
    choices = built(question)
    solution = solve(choices)
    if not solution.found:  # serving may leave too little for any but the smallest
        choices = built(question, smallest=True)
        solution = solve(choices)

    def exactly(found: Choices, row: int, tokens: float) -> Mapping[str, float]:
        return least(drafted(draft, found, row, wish), found, row, tokens, here=here,
                     pairs=pairs)

    best = _finals(draft, solution, wish, here, pairs) if solution.found else None
    if best is None:
        raise impossible.error(choices, table(draft, "limits"), built, exactly)
    solution = replace(solution, row=best.row)
    chosen = point(choices, best.row, best.tokens)
    chosen = chances.with_intervals(choices, [chosen])[0]
    others = chances.with_chances(choices, chosen, runners_up(solution))
    return Answer(question, best, chosen, tuple(binds(solution)), tuple(shadows(solution)),
                  tuple(chances.with_intervals(choices, front(solution, chosen))),
                  tuple(chances.with_intervals(choices, others)), solution,
                  len({machine.name for one in choices.fleets for machine in one.machines}),
                  sum(one.priced for one in {id(one): one for one in choices.tables}.values()))


def _where(draft: Draft, wish: Wish, here: Machine | None) -> Hashable:
    """All that the fleets depend on, in words: of the limits, only whether money is asked for."""
    said = {key: value for key, value in draft.values.items()
            if key.startswith(("machine.", "place.", "recipe."))}
    money = draft.has("limits.money") or draft.has("limits.loss")
    return repr((sorted(said.items()), list(wish.names), wish.any_zone, list(wish.contracts), money,
                 here))


def _fleets(draft: Draft, wish: Wish, here: Machine | None) -> list[Fleet]:
    """The machines to choose from, at their places."""
    groups: list[tuple[list[Machine], Place]] = []
    for name in wish.names:
        if name.casefold() == fleets.ANY:
            place = _place(draft, "1xH100", here, wish)
            groups += [(one, place) for one in fleets.any_machines()]
        else:
            one = machine_of(on_machine(draft, name) if name else draft, here)
            machine = machines.build(table(one, "machine"))
            checks.machine(machine)
            groups.append(([machine], _place(draft, machine.name, here, wish)))
    limit = draft.get("recipe.power_limit", 1.0)
    found = [fleets.fleet(group, place, limit) for group, home in groups for place in _contracts(
        home, wish)]
    priced = fleets.priced(found)
    asked_money = draft.has("limits.money") or draft.has("limits.loss")
    kept = priced if asked_money or len(found) > 1 else found
    if not kept:
        raise InputError(f"no price of {found[0].machines[0].name} is known: "
                         f"{found[0].rates[0]['usd'].source}", where="place",
                         mend="set place.usd_per_accelerator_hour, or name another machine")
    if not draft.has("recipe.precision"):
        # A plan for the machine at hand is one to run: training knows no narrow precision.
        kept += [finer for one in kept if one.machines[0] != here for finer in fleets.narrow(one)]
    return kept


def _place(draft: Draft, name: str, here: Machine | None, wish: Wish) -> Place:
    named = on_machine(draft, name) if not machines.is_here(name) else draft
    kept = {key: value for key, value in named.values.items()
            if not (wish.any_zone and key == "place.zone")}
    placed = place_of(Draft(kept, named.origins))
    place: Place = codec.build(Place, table(placed, "place"), "place")
    if not wish.any_zone:
        return place
    kept["place.zone"] = fleets.cleanest_zone(place)
    moved: Place = codec.build(Place, table(place_of(Draft(kept, named.origins)), "place"), "place")
    return moved


def _contracts(place: Place, wish: Wish) -> list[Place]:
    if not wish.contracts or place.tenure != "rent":
        return [place]
    return [replace(place, contract=one) for one in wish.contracts]  # type: ignore[arg-type]


def _question(draft: Draft, wish: Wish, found: Sequence[Fleet], here: Machine | None,
              pairs: list[Pair]) -> Question:
    limits: Limits = codec.build(Limits, table(draft, "limits"), "limits")
    at_hand = here is not None and found[0].machines[0] == here
    text = text_of(draft, at_hand)
    return of_limits(limits, loss=limits.loss, text_bytes=draft.get("train.text_bytes", 0),
                     token_worth=draft.get("train.token_worth", 1.0), text=text,
                     traffic=wish.traffic, multiplier=wish.multiplier, pairs=tuple(pairs))


def _shapes(draft: Draft, found: Sequence[Fleet], wish: Wish) -> list[ModelShape]:
    """The model that was given, or the family with the dimensions that were."""
    model = {k: v for k, v in table(draft, "model").items() if k != "preset"}
    if all(name in model for name in DIMENSIONS):
        whole: ModelShape = codec.build(ModelShape, table(draft, "model"), "model")
        checks.shape(whole)
        return [whole]
    context = model.get("context_tokens", 0)
    if not context and all(one.machines[0].kind == "cpu" for one in found):
        context = 1024
    shapes = list(family.family(context, experts=wish.experts))
    if not model:
        return shapes
    from curbcut.plan.search import valid

    changed = [replace(one, **model) for one in shapes]
    return valid([one for one in dict.fromkeys(changed)
                  if one.parameters >= rules.LEAST_PARAMETERS])


def _finals(draft: Draft, solution: Solution, wish: Wish, here: Machine | None,
            pairs: list[Pair]) -> Exact | None:
    """The best of a few rows, each searched and resolved exactly; none where the limits turn out
    to have room for none. Raises InputError where something else ends all of them.
    """
    choices, ended = solution.choices, []
    failure: InputError | None = None
    for row in _finalists(solution):
        try:
            ended.append(exact(drafted(draft, choices, row, wish), choices, row,
                               float(solution.tokens[row]), here=here, pairs=pairs))
        except TooLittle:
            continue
        except InputError as error:
            failure = error
    if not ended and failure is not None:
        raise failure
    if not ended:
        return None
    wanted = choices.question.loss

    def order(one: Exact) -> float:
        unsure = 1.0 if one.sure else rules.UNSURE_MEMORY
        if wanted is None:
            return one.bits if one.sure else _at(choices, one, one.tokens / unsure)
        usd = one.account.usd["total"].value
        return unsure * (float(choices.life[one.row, 0])
                         + (usd if usd is not None else float("inf")))

    return min(ended, key=order).told()


def _at(choices: Choices, one: Exact, tokens: float) -> float:
    """The bits a byte of a run after other tokens than its own, by the law's slope."""
    here, there = choices.law.bits(np.array([float(one.tokens), tokens]), np.repeat(
        choices.of_shape[one.row], 2), float(choices.worth[one.row]))
    return one.bits * float(there / here)


def _finalists(solution: Solution) -> list[int]:
    """The best rows, no machine with its shape's neighbour twice."""
    choices, score = solution.choices, solution.score
    near = np.flatnonzero(score <= score[solution.row] * (1 + WITHIN))
    order = near[np.lexsort((solution.costs[near, 3], solution.costs[near, 0], score[near]))]
    found: list[int] = []
    seen: set[tuple[str, str, str]] = set()
    for row in map(int, order[:200]):
        if len(found) == FINALISTS:
            break
        fleet = choices.fleets[int(choices.of_fleet[row])]
        key = (fleet.accelerator, fleet.place.contract, fleet.precision)
        if key not in seen:
            found.append(row)
        seen.add(key)
    return found
