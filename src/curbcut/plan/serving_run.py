"""A run to be served only: a model and a machine that need no room for training it."""

from __future__ import annotations

from curbcut.errors import InputError
from curbcut.plan import machines, rules
from curbcut.plan.resolve import DIMENSIONS, machine_of, place_of, table
from curbcut.spec import checks, codec
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import Machine, ModelShape, Place, Recipe, Run, ServeJob, TrainJob


def to_serve(draft: Draft, here: Machine | None = None) -> Run:
    """The run of a draft that says its model, its machine (else `here`) and what is asked of its
    server; nothing of its training is planned. Raises InputError and UnknownName as `resolve`.
    """
    draft = place_of(machine_of(draft.with_preset(), here))
    machine = machines.build(table(draft, "machine"))
    checks.magnitudes(draft.values)
    checks.machine(machine)
    model = table(draft, "model")
    if missing := [name for name in DIMENSIONS if name not in model]:
        raise InputError(f"which model is served? {missing[0]} is not known", where="model",
                         mend='name one with --model, or the run with its file')
    shape = codec.build(ModelShape, model, "model")
    checks.shape(shape)
    known = table(draft, "recipe")
    recipe = Recipe(sequence_tokens=known.get("sequence_tokens", shape.context_tokens),
                    micro_batch=1, global_batch=1, learning_rate=1e-3,
                    precision=known.get("precision") or rules.precision(machine)[0])
    return Run(name=draft.get("name", rules.DEFAULT_NAME), model=shape, machine=machine,
               recipe=recipe, train=TrainJob(tokens=draft.get("train.tokens") or 1),
               serve=codec.build(ServeJob, table(draft, "serve"), "serve"),
               place=codec.build(Place, table(draft, "place"), "place"))
