"""Which engine is meant for a run, and which ways of serving it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from curbcut.spec.nouns import Run, ServeJob

Engine = Literal["own", "vllm"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
RUN: Mapping[Engine, Mapping[str, tuple[Any, ...]]] = {
    "own": {"weight_precision": ("same", "int8", "int8-dynamic", "int4"),
            "cache_precision": ("same", "int8"), "tensor_parallel": (1,),
            "attention_parallel": (1,), "expert_parallel": (1,), "prefill_replicas": (0,)},
    "vllm": {"weight_precision": ("same", "fp8"), "cache_precision": ("same", "fp8")},
}
"""By engine: fields of `ServeJob` of which only some values run, and those."""
NAMES: Mapping[Engine, str] = {"own": "Curbcut's own engine", "vllm": "vLLM"}


def not_run(job: ServeJob, engine: Engine) -> str:
    """The first field of the job that the engine does not run as it says; empty for none."""
    return next((name for name, values in RUN[engine].items()
                 if getattr(job, name) not in values), "")


def meant(run: Run) -> tuple[Engine, str]:
    """The engine that serves such a run, and why: our own on a CPU and on one GPU, vLLM where a
    server is cut over several accelerators or several servers share the requests.
    """
    job, kind = run.serve, run.machine.kind
    if kind == "cpu":
        return "own", "a CPU"
    if kind != "gpu":
        return "vllm", f"our own engine has no kernels for {run.machine.accelerator}"
    many = {"tensor_parallel": "cuts a server", "attention_parallel": "cuts a server",
            "expert_parallel": "spreads experts", "prefill_replicas": "reads prompts apart",
            "replicas": "has several servers"}
    for name, does in many.items():
        if getattr(job, name) > (0 if name == "prefill_replicas" else 1):
            return "vllm", f"serve.{name} = {getattr(job, name)} {does}"
    return "own", "one GPU"
