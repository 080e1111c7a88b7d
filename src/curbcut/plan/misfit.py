"""What does not fit, and the three cheapest ways to make it fit, with their figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from curbcut import units
from curbcut.errors import InputError
from curbcut.facts import accelerators
from curbcut.physics import memory
from curbcut.plan import machines, space
from curbcut.plan.layout import Asked
from curbcut.plan.offers import Priced, offer
from curbcut.plan.recipes import NothingFits, search
from curbcut.plan.surely import fastest_surely
from curbcut.spec.nouns import Place, Recipe

WAYS = 3
MOST_DOUBLINGS = 10
"""Fleets of up to 1,024 times the accelerators are tried."""
LEAST_SEQUENCE = 128
LEANEST = {"recompute": "full", "offload": "parameters", "pipeline": "1f1b", "virtual_stages": 1,
           "shard": "parameters", "context": "ring"}
"""The names under which least is held: what does not fit with them is not searched further."""
PLAIN = frozenset({"offload", "cp", "context"})
"""Left at the rule's value as long as anything fits with it."""
KEPT = frozenset({"precision", "optimiser"})
"""What a way out leaves alone first: it changes what is learned."""


@dataclass(frozen=True)
class Way:
    """One way to make a model fit."""

    text: str
    """What to set, or to ask for."""
    priced: Priced

    @property
    def accelerator_seconds(self) -> float:
        """Accelerator-seconds a token: what it costs, on any number of them."""
        one = self.priced
        assert one.seconds.value is not None
        return one.seconds.value * one.offer.machine.accelerators / one.recipe.step_tokens

    def __str__(self) -> str:
        one = self.priced
        assert one.seconds.value is not None and one.peak_bytes.value is not None
        cost = units.sig(1e6 / 3600 * self.accelerator_seconds)
        return (f"{self.text} ({cost} accelerator hours a million tokens, "
                f"{units.show(one.peak_bytes.value, 'bytes')} a rank)")


def fitting(asked: Asked, spread: float) -> tuple[Mapping[str, Any], str] | None:
    """Fields of the fastest recipe of a machine that fits a model for which the plain rules found
    no room, with the reason; what is fixed stays. None where nothing fits. `spread` is the factor
    either way by which a peak may be off.

    What lies beyond the accelerators' own memory, or cuts sequences, is tried last.
    """
    for more in (PLAIN, frozenset[str]()):
        tried = _space(asked, asked.recipe, asked.fixed | more)
        try:
            best = fastest_surely(offer(tried, Place(tenure="academic"), asked.memory_factor),
                                  spread).recipe
        except InputError:
            continue
        names = (*space.FIELDS, "global_batch", "compile")
        return ({f"recipe.{name}": getattr(best, name) for name in names},
                f"least time of {tried.count:,} recipes: the plain rules find no room")
    return None


def does_not_fit(asked: Asked) -> InputError:
    """The error for a run that the plain rules cannot fit, with the three cheapest ways out.

    Cheapest is by accelerator-seconds a token over every recipe of this machine that keeps what is
    fixed, then over those that do not, over the smallest larger fleet, the smallest accelerator
    with more memory, and shorter sequences.
    """
    shape, machine = asked.shape, asked.machine
    room = memory.available(machine)
    needed = asked.memory_factor * memory.training(shape, asked.recipe, machine.kind)["peak"]
    ways, least = ways_out(asked)
    even = ", whatever the recipe" if least else ""
    smaller = (f"a model of about {units.show(int(0.9 * shape.parameters * room / least), 'count')}"
               " parameters" if least else "a smaller model")
    mends = [*map(str, ways), smaller, "an accelerator with more memory", "a shorter sequence"]
    whom, what, has = (units.show(shape.parameters, "count"), units.show(least or needed, "bytes"),
                       units.show(room, "bytes"))
    return InputError(f"{whom} parameters need {what} a rank{even}, and {machine.name} has {has} "
                      "to plan with", where="recipe", mend="; or ".join(mends[:WAYS]))


def ways_out(asked: Asked) -> tuple[list[Way], float]:
    """Up to `WAYS` ways, cheapest first; and the bytes a rank of the leanest recipe of the machine
    where none fits it, else 0. No way where no rate of the machine is known.
    """
    found: dict[str, Way] = {}
    least = 0.0
    for keep in dict.fromkeys((asked.fixed, asked.fixed & (KEPT | {"global_batch"}))):
        ways, least = _on(replace(asked, fixed=keep))
        found |= {way.text: way for way in ways}
        if found:
            break
    for way in (_larger(asked), _roomier(asked), _shorter(asked)):
        if way is not None:
            found[way.text] = way
    ways = sorted(found.values(), key=lambda way: way.accelerator_seconds)
    return _of_different_kinds(ways), least


def _of_different_kinds(ways: list[Way]) -> list[Way]:
    """Without those that set all that a cheaper one sets, and more."""
    kept: list[Way] = []
    for way in ways:
        parts = set(way.text.split(", "))
        if not any(parts >= set(other.text.split(", ")) for other in kept):
            kept.append(way)
    return kept[:WAYS]


def _space(asked: Asked, recipe: Recipe, fixed: frozenset[str]) -> space.Space:
    batch = (asked.recipe.global_batch if "global_batch" in asked.fixed
             else space.whole_batch(asked.batch, asked.machine.accelerators))
    return space.Space(asked.shape, asked.machine, replace(recipe, global_batch=batch),
                       (fixed | KEPT) & frozenset(space.FIELDS))


def _on(asked: Asked) -> tuple[list[Way], float]:
    """The best recipe that fits a machine and the best of each other kind; where nothing does, the
    bytes of the leanest.
    """
    tried = _space(asked, asked.recipe, asked.fixed)
    try:
        found = search([offer(tried, Place(tenure="academic"), asked.memory_factor)], top=12)
    except NothingFits as nothing:
        return [], nothing.nearest.peak_bytes.value or 0.0
    except InputError:
        return [], 0.0
    ones = [found.best, *(up.priced for up in found.runners_up if not up.priced.over_bytes)]
    return [Way(said(one.recipe, asked.recipe, asked.fixed), one) for one in ones], 0.0


def _may_fit(asked: Asked) -> bool:
    """Whether it fits with everything that saves memory: quickly seen, before a whole search."""
    lean = {name: value for name, value in LEANEST.items() if name not in asked.fixed}
    recipe = replace(asked.recipe, **lean)  # type: ignore[arg-type]
    tried = _space(asked, recipe, asked.fixed | frozenset(LEANEST))
    try:
        search([offer(tried, Place(tenure="academic"), asked.memory_factor)], top=1)
    except InputError:
        return False
    return True


def _first(asked: Asked) -> Way | None:
    """The best that fits, if anything does."""
    if not _may_fit(asked):
        return None
    ways, _ = _on(asked)
    return ways[0] if ways else None


def _larger(asked: Asked) -> Way | None:
    """The smallest fleet of more of the same accelerators that fits with nothing on the host."""
    machine = asked.machine
    if machine.kind == "cpu":
        return None
    for doubling in range(1, MOST_DOUBLINGS + 1):
        many = machine.accelerators << doubling
        per_node = min(max(8, machine.accelerators_per_node), many)
        fleet = replace(machine, accelerators_per_node=per_node, nodes=many // per_node,
                        name=f"{many}x{machine.accelerator}")
        way = _first(replace(asked, machine=fleet, batch=max(asked.batch, many),
                             fixed=(asked.fixed & KEPT) | {"offload"}))
        if way is not None:
            return replace(way, text=f"{many} accelerators with {way.text}")
    return None


def _roomier(asked: Asked) -> Way | None:
    """As many of the known accelerator of least memory with which it fits."""
    machine = asked.machine
    if machine.kind == "cpu":
        return None
    more = [one for one in accelerators.accelerators() if one.kind == machine.kind
            and one.memory_bytes > machine.memory_bytes and one.peak_flops.get("bf16")]
    for one in sorted(more, key=lambda one: one.memory_bytes):
        other = machines.build(machines.from_facts(f"{machine.accelerators}x{one.id}",
                                                   machine.accelerators_per_node))
        way = _first(replace(asked, machine=other, fixed=asked.fixed & KEPT))
        if way is not None:
            return replace(way, text=f"{other.name} with {way.text}")
    return None


def _shorter(asked: Asked) -> Way | None:
    """The longest shorter sequence with which it fits, halving."""
    tokens = asked.recipe.sequence_tokens // 2
    while tokens >= LEAST_SEQUENCE:
        short = replace(asked.recipe, sequence_tokens=tokens)
        way = _first(replace(asked, recipe=short, batch=2 * asked.batch, fixed=asked.fixed & KEPT))
        if way is not None:
            return replace(way, text=f"sequence_tokens = {tokens} with {way.text}")
        tokens //= 2
    return None


def said(recipe: Recipe, asked: Recipe, fixed: frozenset[str] = frozenset()) -> str:
    """The fields in which a recipe differs from the plainest one, and from what was asked."""
    plain = Recipe(sequence_tokens=1, micro_batch=1, global_batch=1, precision=asked.precision,
                   learning_rate=1.0)
    shown = []
    for name in ("tp", "pp", "cp", "ep", "dp_shard", "shard", "micro_batch", "recompute",
                 "offload", "precision", "pipeline", "virtual_stages", "sequence_parallel"):
        value = getattr(recipe, name)
        other = getattr(asked, name) if name in fixed else getattr(plain, name)
        if value != other:
            shown.append(f"{name} = {_toml(value)}")
    return ", ".join(shown) or f"micro_batch = {recipe.micro_batch}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
