"""Ways of serving that an engine does not run: refused by name, before a model is read.

Everything else of `ServeJob` runs: pages, the prefix cache and chunked prompts always; 8-bit and
4-bit weights, an 8-bit cache and drafted tokens where the job asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from curbcut.errors import InputError
from curbcut.spec.nouns import ServeJob

Engine = Literal["own", "vllm"]
RUN: Mapping[Engine, Mapping[str, tuple[Any, ...]]] = {
    "own": {"weight_precision": ("same", "int8", "int8-dynamic", "int4"),
            "cache_precision": ("same", "int8"), "tensor_parallel": (1,),
            "attention_parallel": (1,), "expert_parallel": (1,), "prefill_replicas": (0,)},
    "vllm": {"weight_precision": ("same", "fp8"), "cache_precision": ("same", "fp8")},
}
"""By engine: fields of which only some values run, and those."""


def refuse_unknown_ways(job: ServeJob, engine: Engine = "own") -> None:
    """Raises InputError, naming the field, for a job that asks for what the engine does not do."""
    usual = {field.name: field.default for field in fields(ServeJob)}
    for name, values in RUN[engine].items():
        value = getattr(job, name)
        if value in values:
            continue
        other = "vllm" if engine == "own" else "own"
        elsewhere = value in RUN[other].get(name, (value,))  # type: ignore[index]
        known = " or ".join(str(one) for one in values)
        raise InputError(
            f"serve.{name} = {value} can be planned, not run by "
            f"{'this engine' if engine == 'own' else 'vLLM here'}, which knows {known}",
            where="serve", mend=f"set serve.{name} = {usual[name]}" + (
                ", or serve it with " + ("vLLM" if engine == "own" else "Curbcut's own engine")
                if elsewhere else ""))
