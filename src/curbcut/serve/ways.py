"""Ways of serving that an engine does not run: refused by name, before a model is read.

Everything else of `ServeJob` runs: pages, the prefix cache and chunked prompts always; 8-bit and
4-bit weights, an 8-bit cache and drafted tokens where the job asks for them.
"""

from __future__ import annotations

from dataclasses import fields

from curbcut.errors import InputError
from curbcut.plan.serving_ways import ENGINES, NAMES, RUN, Engine, not_run
from curbcut.spec.nouns import ServeJob


def refuse_unknown_ways(job: ServeJob, engine: Engine = "own") -> None:
    """Raises InputError, naming the field, for a job that asks for what the engine does not do."""
    name = not_run(job, engine)
    if not name:
        return
    value = getattr(job, name)
    usual = next(field.default for field in fields(ServeJob) if field.name == name)
    elsewhere = [NAMES[other] for other in ENGINES if value in RUN[other].get(name, (value,))]
    known = " or ".join(str(one) for one in RUN[engine][name])
    raise InputError(
        f"serve.{name} = {value} can be planned, not run by "
        f"{'this engine' if engine == 'own' else 'vLLM here'}, which knows {known}",
        where="serve", mend=f"set serve.{name} = {usual}" + (
            f", or serve it with {elsewhere[0]}" if elsewhere else ""))
