"""What can be planned but not trained by this version, by name: the one table of it.

Training refuses by these rules, a search on the machine at hand tries nothing that they refuse, and
a plan says which of its fields they name. Each is polymorphic (see `physics.numbers`): it tells of
one recipe or of a block of them. Imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from curbcut.errors import InputError
from curbcut.model.config import check_runnable
from curbcut.physics.numbers import Flag, Number, is_not, larger
from curbcut.spec import checks
from curbcut.spec.nouns import Machine, ModelShape, Recipe

TRAINED: Mapping[str, tuple[object, ...]] = {
    "outer_steps": (1,), "precision": ("bf16", "fp32", "tf32", "fp8"), "power_limit": (1.0,),
}
"""Values of recipe fields that training knows; the other values are priced only."""
PLANNED = "can be planned but not run by this version"
SPLIT = ("zero-bubble", "dualpipev")
"""Schedules that split the backward pass in two."""


@dataclass(frozen=True)
class Rule:
    """One combination that training does not run."""

    field: str
    """Of the recipe: the one that is named."""
    broken: Callable[[ModelShape, Number, Machine], Flag]
    """Which recipes (the second argument) break it."""
    what: Callable[[ModelShape, Recipe, Machine], str]
    mend: Callable[[ModelShape, Recipe, Machine], str]


def check(shape: ModelShape, recipe: Recipe, machine: Machine) -> None:
    """Raises InputError naming the first field which plan prices and training does not run."""
    for rule in RULES[:len(TRAINED)]:
        _hold(rule, shape, recipe, machine)
    if machine.kind not in ("cpu", "gpu"):
        raise InputError(f"machines of kind {machine.kind!r} can be planned but not run",
                         where="machine.kind", mend="plan with machine.name = \"here\"")
    for rule in RULES[len(TRAINED):]:
        _hold(rule, shape, recipe, machine)
    check_runnable(shape)


def _hold(rule: Rule, shape: ModelShape, recipe: Recipe, machine: Machine) -> None:
    if rule.broken(shape, recipe, machine):
        raise InputError(rule.what(shape, recipe, machine), where=f"recipe.{rule.field}",
                         mend=rule.mend(shape, recipe, machine))


def reason(shape: ModelShape, recipe: Recipe, machine: Machine) -> str:
    """Why this recipe is priced only; "" for one that training runs."""
    try:
        check(shape, recipe, machine)
    except InputError as error:
        return error.what.replace(f" {PLANNED}", "")
    return ""


def trained(shape: ModelShape, recipes: Number, machine: Machine) -> Flag:
    """Which recipes of a block break no rule; shape and machine are not asked."""
    broken: Flag = False
    for rule in RULES:
        broken = broken | rule.broken(shape, recipes, machine)
    return is_not(broken)


def _known(name: str) -> Rule:
    known = TRAINED[name]

    def broken(_: ModelShape, recipe: Number, __: Machine) -> Flag:
        found: Flag = False
        for one in known:
            found = found | (getattr(recipe, name) == one)
        return is_not(found)

    return Rule(name, broken,
                lambda shape, recipe, machine: f"{name} = {_quoted(getattr(recipe, name))} "
                                               f"{PLANNED}",
                lambda *_: f"choose {' or '.join(_quoted(one) for one in known)}")


def _cut(recipe: Number) -> Flag:
    """Whether ranks hold shards of the weights (FSDP)."""
    return (recipe.shard != "optimiser") & (recipe.dp_shard * recipe.cp > 1)


def _rounds(recipe: Number) -> Number:
    return larger(1, recipe.accumulation // recipe.pp)


def _near_batch(recipe: Recipe) -> int:
    return int(recipe.pp * _rounds(recipe) * recipe.global_batch // recipe.accumulation)


def _near_length(recipe: Recipe) -> str:
    tokens, cut = recipe.sequence_tokens, 2 * recipe.cp
    both = (tokens // cut * cut, -(-tokens // cut) * cut)
    return f"set it to {' or '.join(str(one) for one in both if one)}"


def _fp8(lacks: Callable[[Number, Machine], Flag], what: Callable[[Recipe, Machine], str],
         mend: str) -> Rule:
    return Rule("precision",
                lambda shape, recipe, machine: (recipe.precision == "fp8")
                & lacks(recipe, machine),
                lambda shape, recipe, machine: what(recipe, machine),
                lambda *_: mend)


_BF16 = 'set recipe.precision = "bf16"'

_PRECISIONS = (
    _fp8(lambda recipe, machine: "fp8" not in checks.precisions(machine),
         lambda recipe, machine: f"no fp8 rate of {machine.accelerator} is known, and fp8 "
                                 f"{PLANNED} on it", _BF16),
    _fp8(lambda recipe, machine: importlib.util.find_spec("torchao") is None,
         lambda recipe, machine: f"fp8 needs torchao, which is not installed, and {PLANNED} "
                                 "without it", f"pip install 'curbcut[fp8]', or {_BF16}"),
    _fp8(lambda recipe, machine: recipe.tp > 1,
         lambda recipe, machine: f"fp8 with tp = {recipe.tp} {PLANNED}",
         f"{_BF16}, or recipe.tp = 1"),
)

_RESTING = (
    Rule("offload", lambda shape, recipe, machine: (recipe.offload != "none")
         & (machine.kind == "cpu"),
         lambda shape, recipe, machine: f"offload = {_quoted(recipe.offload)} on a CPU moves "
         f"nothing, for its memory is the host's: it {PLANNED}",
         lambda *_: 'set recipe.offload = "none"'),
    Rule("offload", lambda shape, recipe, machine: (recipe.offload == "parameters")
         & is_not(_cut(recipe)),
         lambda *_: f"offload = \"parameters\" of weights that each rank holds whole {PLANNED}",
         lambda *_: 'set recipe.shard = "parameters" and recipe.dp_shard = 2 or more, or '
         'recipe.offload = "optimiser"'),
    Rule("offload", lambda shape, recipe, machine: (recipe.offload == "optimiser") & _cut(recipe),
         lambda shape, recipe, machine: "offload = \"optimiser\" with shard = "
         f"{_quoted(recipe.shard)} {PLANNED}",
         lambda *_: 'set recipe.offload = "parameters", with which the optimiser rests too, or '
         'recipe.shard = "optimiser"'),
    Rule("offload", lambda shape, recipe, machine: (recipe.offload == "optimiser")
         & (recipe.tp > 1),
         lambda shape, recipe, machine: f"offload = \"optimiser\" with tp = {recipe.tp} {PLANNED}",
         lambda *_: 'set recipe.offload = "none" or recipe.tp = 1'),
    Rule("offload", lambda shape, recipe, machine: (recipe.offload == "activations")
         & recipe.compile,
         lambda *_: f"offload = \"activations\" with compile = true {PLANNED}",
         lambda *_: 'set recipe.compile = false, or recipe.offload = "none"'),
)

_LAYOUTS = (
    Rule("shard", lambda shape, recipe, machine: (recipe.shard == "optimiser") & (recipe.ep > 1),
         lambda shape, recipe, machine: f"shard = \"optimiser\" with ep = {recipe.ep} {PLANNED}",
         lambda *_: 'set recipe.shard = "parameters" or recipe.ep = 1'),
    Rule("sequence_tokens", lambda shape, recipe, machine: (recipe.cp > 1)
         & (recipe.sequence_tokens % (2 * recipe.cp) != 0),
         lambda shape, recipe, machine: f"a sequence of {recipe.sequence_tokens} tokens in "
         f"{2 * recipe.cp} pieces of unequal length {PLANNED}",
         lambda shape, recipe, machine: _near_length(recipe)),
    Rule("ep", lambda shape, recipe, machine: (recipe.ep > 1)
         & (recipe.dp_shard * recipe.cp % recipe.ep != 0),
         lambda shape, recipe, machine: f"ep = {recipe.ep} over {recipe.dp_shard * recipe.cp} "
         f"ranks that share states (dp_shard x cp) {PLANNED}",
         lambda shape, recipe, machine: f"set recipe.dp_shard = {recipe.ep} in the place of "
         "replicas, or recipe.ep = 1"),
    Rule("tp", lambda shape, recipe, machine: (recipe.ep > 1) & (recipe.tp > 1),
         lambda shape, recipe, machine: f"tp = {recipe.tp} with ep = {recipe.ep} {PLANNED}",
         lambda shape, recipe, machine: "set recipe.tp = 1 and recipe.dp_shard = "
         f"{recipe.dp_shard * recipe.tp}, or recipe.ep = 1"),
)

_PIPELINES = (
    Rule("global_batch", lambda shape, recipe, machine: (recipe.pp > 1)
         & (recipe.pipeline == "zero-bubble") & (recipe.accumulation % _rounds(recipe) != 0),
         lambda shape, recipe, machine: f"zero-bubble with {recipe.accumulation} micro-batches in "
         f"{_rounds(recipe)} equal rounds {PLANNED}",
         lambda shape, recipe, machine: f"set it to {_near_batch(recipe)}, or "
         'recipe.pipeline = "1f1b"'),
    Rule("pipeline", lambda shape, recipe, machine: (recipe.pp > 1)
         & ((recipe.pipeline == SPLIT[0]) | (recipe.pipeline == SPLIT[1])) & recipe.compile,
         lambda shape, recipe, machine: f"pipeline = {_quoted(recipe.pipeline)} splits the "
         f"backward pass, which with compile = true {PLANNED}",
         lambda *_: 'set recipe.compile = false, or recipe.pipeline = "1f1b"'),
    Rule("pipeline", lambda shape, recipe, machine: (recipe.pp > 1)
         & (recipe.pipeline == "dualpipev") & shape.tied_embeddings & _cut(recipe),
         lambda shape, recipe, machine: "pipeline = \"dualpipev\" with tied embeddings and shard = "
         f"{_quoted(recipe.shard)} {PLANNED}",
         lambda *_: 'set recipe.shard = "optimiser", or recipe.pipeline = "zero-bubble"'),
)

RULES: tuple[Rule, ...] = (*(_known(name) for name in TRAINED), *_PRECISIONS, *_RESTING, *_LAYOUTS,
                           *_PIPELINES)
"""All rules, in the order that they are asked."""


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
