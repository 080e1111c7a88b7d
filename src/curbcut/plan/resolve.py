"""A draft becomes a complete run: the plan sets what nobody said, and says why.

Each value that the plan sets has the origin "plan: reason"; what a person, a file or a preset set
stays as it is (tokens are rounded up to whole steps, and the origin says so).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import electricity, grid
from curbcut.physics import time
from curbcut.plan import loss, machines, rules, running, search
from curbcut.plan.calibration import Pair, correction, memory_spread
from curbcut.plan.forecast import CorpusFacts
from curbcut.plan.layout import DoesNotFit, lay_out
from curbcut.spec import checks, codec
from curbcut.spec.draft import Draft, Resolved
from curbcut.spec.nouns import Limits, Machine, ModelShape, Place

DIMENSIONS = ("layers", "width", "heads", "kv_heads", "head_size", "ffn", "vocab")
"""Without all of these a shape is not whole, and the plan searches one."""
_RULED = ("precision", "sequence_tokens", "attention", "optimiser", "dp_replicate", "dp_shard",
          "recompute", "micro_batch", "global_batch", "learning_rate")


def resolve(draft: Draft, *, here: Machine | None = None, corpus: CorpusFacts | None = None,
            step_rates: Mapping[int, float] | None = None, pairs: Iterable[Pair] = ()) -> Resolved:
    """Completes `draft`.

    `here` is the machine at hand (needed when the run is on it), `corpus` the prepared text,
    `step_rates` tokens/s measured just now by micro-batch (of the shape that the same draft
    resolves to without them), `pairs` measured runs of the ledger. Raises InputError for what
    cannot be met, with the mend; UnknownName for an unknown machine, preset or zone.
    """
    draft = machine_of(draft.with_preset(), here)
    draft = place_of(draft)
    draft = _with_default_limit(draft)
    machine = machines.build(table(draft, "machine"))
    checks.magnitudes(draft.values)
    checks.machine(machine)
    question = _question(draft, machine, corpus, list(pairs))
    draft, question = _with_room(draft, question, corpus, list(pairs))
    if step_rates and question.shape is None:
        shape = _answer(question).shape
        question = _with(question, shape=shape)
        draft = _with_model(draft, shape)
    if step_rates:
        question = _with(question, step_rates=step_rates)
    found = _answer(question)
    checks.recipe(found.shape, found.layout.recipe, machine)
    return _filled(draft, question, found).complete()


def _with_room(draft: Draft, question: search.Question, corpus: CorpusFacts | None,
               pairs: list[Pair]) -> tuple[Draft, search.Question]:
    """Both as they are where the plain rules find room for the model on its many accelerators;
    else with the fastest recipe of all that fit.
    """
    if question.shape is None or question.machine.accelerators == 1:
        return draft, question
    tokens = question.tokens or rules.TOKENS_PER_PARAMETER * question.shape.parameters
    try:
        lay_out(question.shape, question.machine, tokens, question.recipe_fields,
                       question.step_rates, question.learned.memory_factor)
    except DoesNotFit as nothing:
        from curbcut.plan.misfit import fitting  # it searches all recipes: that needs NumPy

        spread = memory_spread(question.machine, question.learned)
        if (found := fitting(nothing.asked, spread)) is None:
            return draft, question
        values, reason = found
        draft = _plan(draft, values, reason)
        return draft, _question(draft, question.machine, corpus, pairs)
    return draft, question


def _answer(question: search.Question) -> search.Answer:
    """The search's answer; where nothing fits, the error with the three cheapest ways out."""
    try:
        return search.answer(question)
    except DoesNotFit as nothing:
        from curbcut.plan.misfit import does_not_fit  # it searches all recipes: that needs NumPy

        raise does_not_fit(nothing.asked) from None


def _with(question: search.Question, **changes: Any) -> search.Question:
    values = {f.name: getattr(question, f.name) for f in fields(question)}
    return search.Question(**(values | changes))


def _plan(draft: Draft, values: Mapping[str, Any], reason: str, *, override: bool = False) -> Draft:
    return draft.with_values(values, f"plan: {reason}", override=override)


def table(draft: Draft, name: str) -> dict[str, Any]:
    """Values set so far under one table."""
    return {key.partition(".")[2]: value for key, value in draft.values.items()
            if key.startswith(f"{name}.")}


def machine_of(draft: Draft, here: Machine | None) -> Draft:
    """The draft with all fields of its machine: the one at hand, a named fleet, or as given."""
    name = draft.get("machine.name", machines.HERE)
    if machines.is_here(name):
        if here is None:
            raise InputError("this machine is not described", where="machine.name",
                             mend='name one, like machine.name = "8xH100"')
        values = machines.from_here(here, name, draft.get("machine.nodes"))
        reason = "this machine, detected and probed"
    elif draft.has("machine.accelerator") and draft.has("machine.memory_bytes_per_second"):
        return draft
    else:
        values = machines.from_facts(name, draft.get("machine.accelerators_per_node"),
                                     draft.get("machine.nodes"))
        reason = f"facts, {values['source']}"
        draft = draft.with_values({"machine.name": values["name"]},
                                  draft.origins.get("machine.name", "plan"), override=True)
    return _plan(draft, {f"machine.{key}": value for key, value in values.items()}, reason)


def place_of(draft: Draft) -> Draft:
    """The draft with a place: what is not here is rented in a data centre, and electricity costs
    what it does in the zone.
    """
    zone = draft.get("place.zone", Place().zone)
    grid.intensity(zone, where="place.zone")
    if (price := electricity.price(zone)) is not None:
        draft = _plan(draft, {"place.usd_per_kwh": round(price.usd, 4)},
                      f"{price.zone} {price.year}, no household ({price.source})")
    if machines.is_here(draft.get("machine.name", machines.HERE)):
        return draft
    draft = _plan(draft, {"place.tenure": "rent"}, "a machine that is not here is rented")
    return _plan(draft, {"place.pue": 1.25}, "a data centre (pue_data_centre)")


def _with_default_limit(draft: Draft) -> Draft:
    if draft.has("limits") or draft.has("train.tokens") or _said(draft, "model"):
        return draft
    return _plan(draft, {"limits.seconds": rules.DEFAULT_SECONDS},
                 "nothing was asked for, so a first result within minutes")


def _said(draft: Draft, table: str) -> bool:
    """Whether anybody but an earlier plan set something in `table`."""
    return any(key.startswith(f"{table}.") and not _from_plan(draft.origins.get(key, ""))
               for key in draft.values)


def _from_plan(origin: str) -> bool:
    return origin.startswith("plan") or origin == "default"


def _question(draft: Draft, machine: Machine, corpus: CorpusFacts | None,
              pairs: list[Pair]) -> search.Question:
    model = table(draft, "model")
    if corpus is not None and "vocab" not in model:
        model["vocab"] = corpus.vocab
    whole = all(dimension in model for dimension in DIMENSIONS)
    shape = codec.build(ModelShape, model, "model") if whole else None
    if shape is not None:
        checks.shape(shape)
    recipe = table(draft, "recipe")
    checks.asked(recipe, shape, machine)
    precision = recipe.get("precision") or rules.precision(machine)[0]
    return search.Question(
        machine=machine, place=codec.build(Place, table(draft, "place"), "place"),
        limits=codec.build(Limits, table(draft, "limits"), "limits"),
        tokens=draft.get("train.tokens"), shape=shape, model_fields=model, recipe_fields=recipe,
        shape_was_planned=not _said(draft, "model"), corpus=corpus,
        learned=correction(machine, precision, pairs),
        text_bytes=float(draft.get("train.text_bytes", 0)), text=text_of(
            draft, machines.is_here(draft.get("machine.name", machines.HERE))))


def text_of(draft: Draft, here: bool) -> str:
    """What tokens are of, as `loss.meant` says of the whole run."""
    said: str = draft.get("train.text", loss.PYTHON)
    return loss.GENERAL if said == loss.PYTHON and not here else said


def _with_model(draft: Draft, shape: ModelShape) -> Draft:
    values = {f"model.{f.name}": getattr(shape, f.name) for f in fields(shape)}
    return _plan(draft, values, "lowest expected loss within the limits")


def _filled(draft: Draft, question: search.Question, found: search.Answer) -> Draft:
    draft = _plan(draft, {"name": rules.DEFAULT_NAME}, "no name was given")
    draft = _with_model(draft, found.shape)
    recipe, reasons = found.layout.recipe, found.layout.reasons
    for name in _RULED:
        draft = _plan(draft, {f"recipe.{name}": getattr(recipe, name)}, reasons.get(name, "rule"))
    if question.tokens is None:
        draft = _plan(draft, {"train.tokens": found.tokens}, found.reason or "the search's best")
    elif found.tokens != question.tokens:
        origin = draft.origins.get("train.tokens", "given")
        draft = draft.with_values({"train.tokens": found.tokens},
                                  f"{origin}, rounded up to whole steps", override=True)
    steps = found.tokens // recipe.step_tokens
    step = time.step_seconds(found.shape, recipe, question.machine).value or 1.0
    if question.step_rates and recipe.micro_batch in question.step_rates:
        step = recipe.step_tokens / question.step_rates[recipe.micro_batch]
    split = recipe.pp > 1 and recipe.pipeline in running.SPLIT
    if recipe.stack == "torch" and recipe.offload != "activations" and not split:
        compiled, why = rules.compiles(question.machine.kind, steps * step)
        draft = _plan(draft, {"recipe.compile": compiled}, why)
    draft = _plan(draft, {"recipe.evaluate_every_steps": max(1, -(-steps // rules.EVALUATIONS))},
                  f"{rules.EVALUATIONS} evaluations a run")
    every = rules.checkpoint_steps(steps, step, rules.stall_seconds(found.shape, recipe),
                                   question.machine.accelerators)
    return _plan(draft, {"recipe.checkpoint_every_steps": every},
                 "by the clock: little is lost, little is spent")
