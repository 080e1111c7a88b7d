"""A run's server as others start it: Kubernetes, Ray Serve or docker compose, on vLLM.

What is written follows `run.serve` (replicas, degrees, precisions, lengths, adapters); what the
plan promises for it stands in comments. Nothing secret is inside: the API key comes from a Secret
or an environment file, the model from a volume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curbcut import units
from curbcut.errors import InputError
from curbcut.files import write_whole
from curbcut.launch import yaml_text
from curbcut.plan.served import under_load
from curbcut.plan.serving import engine
from curbcut.serve.engine.vllm import Options, arguments
from curbcut.serve.ways import refuse_unknown_ways
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Run

Kind = Literal["kubernetes", "ray", "compose"]
KINDS: tuple[Kind, ...] = ("kubernetes", "ray", "compose")
IMAGE = "vllm/vllm-openai:v0.32.0"
"""The release whose options were read (its engine/arg_utils.py)."""
ROUTER_IMAGE = "vllm/vllm-router:v0.1.15"
"""Any image with vLLM's router (github.com/vllm-project/router), where prompts are read apart."""
PORT, MODEL_PATH, ADAPTERS_PATH = 8000, "/model", "/adapters"
SIDE_PORT = 5600
"""On which servers that share keys and values meet (VLLM_NIXL_SIDE_CHANNEL_PORT)."""
LOOKUP = {"method": "ngram", "prompt_lookup_max": 4}
GIB = 2**30
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?")
Role = Literal["", "prefill", "decode"]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What all three kinds of manifest say of one run."""

    run: Run
    name: str
    """Of everything that is started; a DNS label."""
    image: str = IMAGE
    adapters: Sequence[str] = ()
    """Names of LoRA adapters, each a folder of ADAPTERS_PATH."""
    promised: Account = field(default_factory=Account)

    @property
    def accelerators(self) -> int:
        """Of one server; 0 on CPUs."""
        job = self.run.serve
        ranks = job.tensor_parallel * job.attention_parallel
        return 0 if self.run.machine.kind == "cpu" else ranks

    @property
    def roles(self) -> Mapping[Role, int]:
        """Servers by what they do: one kind, or those that read prompts and those that decode."""
        job = self.run.serve
        if job.prefill_replicas:
            return {"prefill": job.prefill_replicas, "decode": job.replicas}
        return {"": job.replicas}

    @property
    def host_bytes(self) -> int:
        """Host memory of one server: its weights once as they are read, and 8 GiB."""
        weights = 2 * self.run.model.parameters
        return -(-weights * 5 // 4 // GIB + 8) // 1 * GIB if self.accelerators else int(
            1.3 * (self.promised.memory_bytes["server"].value or weights)) + 2 * GIB

    def words(self, role: Role = "") -> list[str]:
        """vLLM's own options for one server."""
        job, recipe = self.run.serve, self.run.recipe
        more: list[str] = []
        if job.cache_precision != "same":
            more += ["--kv-cache-dtype", job.cache_precision]
        if job.chunk_tokens:
            more += ["--max-num-batched-tokens", str(job.chunk_tokens)]
        if job.drafted_tokens:
            more += ["--speculative-config",
                     json.dumps(LOOKUP | {"num_speculative_tokens": job.drafted_tokens})]
        if job.expert_parallel > 1:
            more.append("--enable-expert-parallel")
        said = arguments(Path(MODEL_PATH), PORT, self.name, Options(
            tensor_parallel=job.tensor_parallel, data_parallel=job.attention_parallel,
            max_batch=job.max_batch, context_tokens=job.max_tokens,
            dtype={"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(
                recipe.precision, ""),
            quantisation="" if job.weight_precision == "same" else job.weight_precision,
            adapters={name: Path(ADAPTERS_PATH) / name for name in self.adapters},
            kv_transfer=json.dumps(transfer(role)) if role else "", more=tuple(more)))
        said[said.index("--host") + 1] = "0.0.0.0"
        return said

    def comment(self) -> str:
        """What the plan promises, in lines."""
        run, job = self.run, self.run.serve
        seconds, speeds = self.promised.seconds, self.promised.tokens_per_second
        lines = [f"{self.name}: {units.show(run.model.parameters, 'count')} parameters on "
                 f"{run.machine.name}, made by curbcut {'; '.join(_layout(run))}",
                 f"Planned for {job.requests_per_second:g} requests a second of "
                 f"{job.prompt_tokens} + {job.output_tokens} tokens; promised (90% interval):"]
        for what, estimate, unit in (
                ("time to first token", seconds.get("ttft"), "seconds"),
                ("time a token", seconds.get("tpot"), "seconds"),
                ("tokens a second at most within the objectives", speeds.get("most"), "count"),
                ("joules an answer token at that", self.promised.joules_per_token.get("most"), ""),
                ("memory of an accelerator", self.promised.memory_bytes.get("server"), "bytes")):
            lines.append(f"  {what}: {_shown(estimate, unit)}")
        rate = run.place.usd_per_accelerator_hour
        if rate:
            used = self.accelerators * sum(self.roles.values())
            lines.append(f"  {used * rate:.2f} USD an hour at {rate:g} an accelerator hour")
        return "\n".join(lines)


def write(run: Run, kind: Kind, folder: Path, *, image: str = "",
          adapters: Sequence[str] = ()) -> list[Path]:
    """Writes the manifest of `kind` into `folder`, which is made; returns the files.

    Raises InputError for a way that vLLM does not serve, a name that Kubernetes cannot have, and
    for CPUs without an image of vLLM's CPU build.
    """
    for name in adapters:
        if not _NAME.fullmatch(name):
            raise InputError(f"adapter {name!r} is no name of a-z, 0-9 and -", where="--adapter",
                             mend="name its folder so")
    deployment = deployed(run, image=image, adapters=adapters)
    from curbcut.launch import compose, kubernetes, ray_serve

    files = {"kubernetes": kubernetes.files, "ray": ray_serve.files, "compose": compose.files}[
        kind](deployment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(folder / name, text)
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(folder),
                         mend="give a folder that you may write to") from None
    return [folder / name for name in files]


def deployed(run: Run, *, image: str = "", adapters: Sequence[str] = ()) -> Deployment:
    """What is to be started for `run`, with what the plan promises of it. Raises as `write`."""
    refuse_unknown_ways(run.serve, "vllm")
    engine(run)
    if run.machine.kind not in ("gpu", "cpu"):
        raise InputError(f"vLLM's images are for GPUs, not for {run.machine.accelerator}",
                         where="machine.name", mend='name GPUs, like machine.name = "8xH100"')
    if run.machine.kind == "cpu" and not image:
        raise InputError("the usual image is for GPUs, and this machine is a CPU",
                         where="machine.name", mend="name GPUs with --on 8xH100, give an image "
                         "of vLLM's CPU build with --image, or serve it with `curbcut serve`")
    name = re.sub(r"[^a-z0-9]+", "-", run.name.casefold()).strip("-")
    if not _NAME.fullmatch(name):
        raise InputError(f"{run.name!r} makes no name of a-z, 0-9 and -, 46 characters at most",
                         where="name", mend="give the run another with --name")
    if run.serve.max_tokens < run.serve.prompt_tokens + run.serve.output_tokens:
        raise InputError(f"max_tokens = {run.serve.max_tokens} is less than prompt_tokens + "
                         "output_tokens", where="serve",
                         mend=f"nearest: {run.serve.prompt_tokens + run.serve.output_tokens}")
    return Deployment(run=run, name=name, image=image or IMAGE, adapters=tuple(adapters),
                      promised=under_load(run))


def transfer(role: Role) -> dict[str, Any]:
    """vLLM's KVTransferConfig of a server that only reads prompts, or only decodes."""
    return {"kv_connector": "NixlConnector",
            "kv_role": "kv_producer" if role == "prefill" else "kv_consumer"}


def engine_arguments(words: Sequence[str]) -> dict[str, Any]:
    """vLLM's options as keyword arguments, as Ray Serve hands them over; the folder, the address
    and the name are said elsewhere there.
    """
    found: dict[str, Any] = {}
    at = 1
    while at < len(words):
        key = words[at].removeprefix("--").replace("-", "_")
        given: list[str] = []
        while at + 1 < len(words) and not words[at + 1].startswith("--"):
            at += 1
            given.append(words[at])
        found[key] = True if not given else _value(given[0])
        at += 1
    for key in ("host", "port", "served_model_name", "lora_modules"):
        found.pop(key, None)
    return found


def _value(text: str) -> Any:
    return json.loads(text) if text[:1] in "{[" or text.isdigit() else text


def _layout(run: Run) -> list[str]:
    job = run.serve
    said = [f"{job.replicas} server{'s' if job.replicas > 1 else ''} of {job.tensor_parallel} x "
            f"{job.attention_parallel} accelerators"]
    if job.prefill_replicas:
        said.append(f"{job.prefill_replicas} more that only read prompts")
    return said


def _shown(estimate: Estimate | None, unit: str) -> str:
    """A promise in words; why where there is none."""
    if estimate is None or estimate.value is None:
        return f"not known ({estimate.source})" if estimate else "not known"
    low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
    middle, first, last = (units.show(one, unit) if unit else f"{one:.3g}"
                           for one in (estimate.value, low, high))
    return f"{middle} ({first} to {last})"


def document(value: Any, comment: str = "") -> str:
    """`value` as one YAML document."""
    return yaml_text.dumps(value, comment)
