"""A draft becomes a search over recipes and machines, and the best of it a complete run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from curbcut.errors import InputError
from curbcut.plan import machines, rules, space
from curbcut.plan.calibration import Pair, correction
from curbcut.plan.layout import base_recipe
from curbcut.plan.offers import Found, Objective, Offer, Priced, offer
from curbcut.plan.recipes import search
from curbcut.plan.resolve import DIMENSIONS, machine_of, place_of, resolve, table
from curbcut.spec import checks, codec
from curbcut.spec.draft import Draft, Resolved
from curbcut.spec.nouns import Machine, ModelShape, Place, Recipe


@dataclass(frozen=True)
class Searched:
    """What a search found, and its best as a run."""

    found: Found
    resolved: Resolved
    kept: tuple[str, ...]
    """Fields of the recipe that were given, and so not searched."""
    running: Priced | None = None
    """The best under the values that were asked for (`only`), where the best of all is not."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.resolved.run.steps


def search_draft(draft: Draft, names: Sequence[str] = (), *, here: Machine | None = None,
                 pairs: Iterable[Pair] = (), objective: Objective = "time", top: int = 6,
                 also: frozenset[str] = frozenset(), threads: int | None = None,
                 only: Mapping[str, tuple[object, ...]] | None = None) -> Searched:
    """Searches the recipes of the draft's model on its machine, or on each of `names`.

    Fields of the recipe that the draft has are kept. `only` names values of fields to which, on one
    accelerator, the best is searched once more where the best of all has others. Raises InputError
    where the draft has no whole model, for what cannot be met, and NothingFits.
    """
    draft, pairs = draft.with_preset(), list(pairs)
    checks.magnitudes(draft.values)
    shape = _shape(draft)
    drafts = [place_of(machine_of(on_machine(draft, name), here)) for name in names or [""]]
    built = [machines.build(table(one, "machine")) for one in drafts]
    for machine in built:
        checks.machine(machine)
    tokens = draft.get("train.tokens") or rules.TOKENS_PER_PARAMETER * shape.parameters
    given = table(draft, "recipe")
    batch = _batch(shape, built, tokens, given)
    offers = []
    for one, machine in zip(drafts, built, strict=True):
        checks.asked(given, shape, machine)
        base = base_of(shape, machine, tokens, given | {"global_batch": batch})
        learned = correction(machine, base.precision, pairs)
        whole = space.Space(shape, machine, base,
                            frozenset(name for name in given if name in space.FIELDS), also)
        place: Place = codec.build(Place, table(one, "place"), "place")
        offers.append(offer(whole, place, learned.memory_factor))
    found = search(offers, objective, top, threads)
    winner = drafts[[one.machine is found.best.offer.machine for one in offers].index(True)]
    resolved = resolve(_with_best(winner, found, tokens), here=here, pairs=pairs)
    return Searched(found, resolved, tuple(name for name in given if name in space.FIELDS),
                    _held_to(only, offers, found, threads) if only else None)


def _held_to(only: Mapping[str, tuple[object, ...]], offers: Sequence[Offer], found: Found,
             threads: int | None) -> Priced | None:
    """The best of one accelerator with only these values; None where nothing fits."""
    recipe = found.best.recipe
    alone = [one for one in offers if one.machine.accelerators == 1]
    if not alone or (recipe.ranks == 1 and all(getattr(recipe, name) in values
                                               for name, values in only.items())):
        return None
    held = [replace(one, space=replace(one.space, only=only)) for one in alone]
    try:
        return search(held, found.objective, 1, threads).best
    except InputError:
        return None


def on_machine(draft: Draft, name: str, origin: str = "command line") -> Draft:
    """The draft on another machine, nothing of its own one left; as it is without a name."""
    if not name:
        return draft
    kept = {key: value for key, value in draft.values.items() if not key.startswith("machine.")}
    return Draft(kept, draft.origins).with_values({"machine.name": name}, origin)


def _shape(draft: Draft) -> ModelShape:
    model = table(draft, "model")
    missing = [name for name in DIMENSIONS if name not in model]
    if missing:
        raise InputError("a search of recipes needs a whole model "
                         f"({', '.join(missing[:3])} not given)", where="model",
                         mend='name one, like --model llama-3-8b, or give all of [model]')
    shape: ModelShape = codec.build(ModelShape, model, "model")
    checks.shape(shape)
    return shape


def _batch(shape: ModelShape, built: Sequence[Machine], tokens: int,
           given: dict[str, Any]) -> int:
    """One global batch for all machines, so that they do the same work."""
    if "global_batch" in given:
        return int(given["global_batch"])
    base, _ = base_recipe(shape, built[0], given)
    wanted = rules.batch_tokens(tokens, base.optimiser) / base.sequence_tokens
    return space.whole_batch(wanted, max(machine.accelerators for machine in built))


def base_of(shape: ModelShape, machine: Machine, tokens: int, given: dict[str, Any]) -> Recipe:
    """The recipe around which a search is made: what was given, and rules."""
    base, _ = base_recipe(shape, machine, given)
    if "learning_rate" not in given:
        base = replace(base, learning_rate=rules.learning_rate(shape, tokens))
    return base


def _with_best(draft: Draft, found: Found, tokens: int) -> Draft:
    """The draft with the best recipe in it, and who chose it."""
    recipe = found.best.recipe
    why = f"plan: least {found.objective} of {found.priced:,} recipes, {found.fit:,} of which fit"
    names = {f"recipe.{name}": getattr(recipe, name) for name in space.FIELDS}
    kept = {f"recipe.{f.name}": getattr(recipe, f.name) for f in fields(recipe)
            if f.name in ("sequence_tokens", "global_batch", "attention", "optimiser",
                          "learning_rate")}
    draft = draft.with_values(names, why).with_values(kept, "plan: rule, held by the search")
    return draft.with_values({"train.tokens": tokens},
                             f"plan: {rules.TOKENS_PER_PARAMETER} a parameter (arXiv:2203.15556)")
