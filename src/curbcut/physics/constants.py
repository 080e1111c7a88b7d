"""Named constants of the time model: what kernels, links and hosts achieve, by machine and stack.

A value is the general one times factors: of the accelerator's family, of the stack, of the stack's
version. Read from `physics_training.csv`; what a stack is known to do (its attention kernel, which
collectives it hides) comes from `stacks.csv`. A stack that nobody measured has factors of 1.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import physics, table
from curbcut.physics.numbers import Number
from curbcut.spec.nouns import Machine, Recipe

FILE = "physics_training"
FAMILIES = ("v100", "a100", "h100", "h200", "gh200", "gb200", "gb300", "b200", "b300", "h800",
            "h20", "tpu")
_SAME = {"gb200": "b200", "gb300": "b300", "gh200": "h100", "h200": "h100", "h800": "h100"}
PORTED_FAMILIES = ("h100", "b200", "b300", "h20")
"""Families on which FlashAttention-2, written for the A100, leaves the newer units unused."""


@dataclass(frozen=True)
class TrainingConstants:
    """One value, or one column, of each constant. Shares are of a peak or a stated bandwidth."""

    matmul: Number
    """Share of the peak that wide matmuls reach."""
    matmul_traffic: Number
    """Times that a matmul moves its operands and its result, each counted once a pass."""
    feed_flops_per_byte: Number
    """FLOPs of a matmul for each byte of memory bandwidth, where feeding the units binds (CPUs)."""
    fp8: Number
    """Share of the fp8 peak, beside `matmul`."""
    mxfp8: Number
    """The same with block scales."""
    nvfp4: Number
    """The same of the fp4 peak."""
    cast_bytes: Number
    """Bytes moved for each element that is cast to a low precision, all three passes."""
    attention: Number
    """Share of the 16-bit peak that fused attention reaches on long sequences."""
    attention_early: Number
    """Factor of the first generation of fused kernels (FlashAttention, Triton)."""
    attention_ported: Number
    """Factor of a kernel written for an older family (FlashAttention-2 on H100)."""
    attention_head: Number
    """Head size at which fused attention reaches half."""
    attention_ramp: Number
    """Keys a query sees, on average, at which fused attention reaches half."""
    score_rate: Number
    """Rate of the matmuls of attention in memory ("math"), beside wide matmuls."""
    score_bytes: Number
    """Bytes moved for each score held in memory, three passes."""
    elementwise: Number
    """Factor on the bytes of norms, residuals, activations and rotary positions."""
    residual_bytes: Number
    """Bytes moved for each element of the residual stream in one pass of a layer."""
    moe_bytes: Number
    """Times that a routed copy of a token is read and written, twice each, in one pass."""
    logit_bytes: Number
    """Bytes moved for each score of the vocabulary, all passes."""
    bandwidth: Number
    """Share of the stated memory bandwidth that streaming reaches."""
    operations: Number
    """Operations of one layer of one micro-batch, forward and backward."""
    expert_operations: Number
    """Further ones where the layer has experts."""
    local_operations: Number
    """Launches, besides, for each expert that a rank holds: grouped matmuls start one by one."""
    cast_operations: Number
    """Factor on those where scales are by block: operands and scales are laid out for each."""
    launch_seconds: Number
    """Time of the host to start one operation."""
    kernel_seconds: Number
    """Time of the device between one operation and the next."""
    host_overlap: Number
    """Power of the mean that joins host and device time: 1 adds them, a large one takes the
    longer."""
    compiled_launches: Number
    """Share of the launches left after torch.compile."""
    compiled_elementwise: Number
    """Share of the element-wise bytes left after torch.compile, where kernels were fused."""
    eager_elementwise: Number
    """Factor on them where each operation is a kernel of its own, and nothing is compiled."""
    collective_host: Number
    """Time of the host for one collective inside a layer."""
    rank_host: Number
    """The same for each rank of its group."""
    pipeline_host: Number
    """The same for each rank, where a pipeline runs over several nodes."""
    send_host: Number
    """Time for one message between stages."""
    send_stall: Number
    """Further time of each on `STALL_NODES` nodes or more."""
    link_share: Number
    """Share of the fast link's bandwidth that collectives reach."""
    link_latency: Number
    """Time to start a collective inside a domain."""
    network_share: Number
    """Share of the network's bandwidth that collectives reach."""
    network_latency: Number
    """Time that each further node adds to a collective."""
    slow_fabric: Number
    """Factor on that, on a fabric of high latency (EFA)."""
    decline: Number
    """Power with which the network's bandwidth falls with the nodes of a group."""
    rails: Number
    """Power of the ranks in a node with which they share its network cards (1: all of each)."""
    all_to_all: Number
    """Bandwidth of an all-to-all, beside the other collectives."""
    reduce_scatter: Number
    """Time of a reduce-scatter beside a ring's (gloo makes it of an all-reduce: twice that)."""
    bucket_bytes: Number
    """Bytes of gradients in one message."""
    imbalance: Number
    """Tokens of the fullest expert rank over the mean."""
    gradient_bytes: Number
    """Bytes of a gradient, in its sum and on the wire."""
    tp_exposed: Number
    """Share of tensor-parallel collectives that is not hidden."""
    tp_overlapped: Number
    """Factor on that where the stack hides them behind matmuls."""
    ep_exposed: Number
    """Share of the all-to-alls of experts that is not hidden."""
    ep_overlapped: Number
    """Factor on that where the stack hides them."""
    cp_exposed: Number
    """Share of the context's messages that is not hidden."""
    send_exposed: Number
    """Share of the messages between stages that is not hidden."""
    bubble: Number
    """Factor on the schedule's bubble."""
    data_exposed: Number
    """Share of the data-parallel collectives that is never hidden."""
    data_window: Number
    """Share of the compute behind which the rest hides."""
    optimiser_bytes: Number
    """Bytes that AdamW moves a parameter that it owns."""
    gradient_touch: Number
    """Bytes a held parameter to clear, clip and accumulate gradients."""
    step_seconds: Number
    """Time of a step beside all that: data, logging, synchronisation."""
    straggler: Number
    """Share of the step that each doubling beyond eight accelerators adds."""
    host_link: Number
    """Bytes a second between an accelerator and its host's memory (offload)."""
    spread_matmul: Number
    """Spread of the time of dense models' matmuls under a stack that nobody measured: standard
    deviation of log(measured / predicted), as all of its kind below."""
    spread_grouped: Number
    """The same of the matmuls of models with experts."""
    spread_narrow: Number
    """Further, of matmuls below 16 bits."""
    spread_attention: Number
    """The same of attention."""
    spread_bytes: Number
    """The same of the rest of the layers, the head and the loss."""
    spread_tensor: Number
    """The same of exposed collectives of tensor and context parallelism."""
    spread_routing: Number
    """The same of those of experts."""
    spread_data: Number
    """The same of those of data parallelism."""
    spread_bubble: Number
    """The same of the pipeline's bubble."""
    spread_rest: Number
    """The same of launches, messages between stages, optimiser and the rest."""
    spread_floor: Number
    """The same of the step as a whole."""
    spread_known: Number
    """Share of all that which is left for a stack with measured rows."""
    spread_novel: Number
    """Further, in quadrature: no row of that precision or family stood behind the constants."""
    attention_kernel: Number = 3
    """1: first generation; 2: written for the A100; 3: for this family."""
    tp_overlap: Number = 0
    """1 where the stack hides tensor-parallel collectives behind matmuls."""
    ep_overlap: Number = 0
    """1 where it hides the all-to-alls of experts."""
    single_dispatch: Number = 0
    """1 where a token crosses to each rank or node once, however many of its experts are there."""
    balanced_pipeline: Number = 0
    """1 where stages are cut by their work, head counted."""
    fused_elementwise: Number = 1
    """1 where norms, activations and rotary positions are fused kernels."""
    regather: Number = 1
    """1 where sequence parallelism gathers inputs again in the backward pass."""
    stops_early: Number = 0
    """1 where full recompute ends with the last tensor that the backward pass needs."""
    gathered_loss: Number = 0
    """1 where a vocabulary in pieces gathers two numbers a token, not three reductions of one."""
    blocks_apart: Number = 0
    """1 where ranks that share gradients, not weights, meet block by block, not in buckets."""
    norms_apart: Number = 0
    """1 where each norm's gradient is summed over tensor-parallel ranks in each micro-batch."""
    high_latency: Number = 0
    """1 where the published runs of the stack stand on a fabric of high latency."""


NAMES = tuple(field.name for field in dataclasses.fields(TrainingConstants)
              if field.default is dataclasses.MISSING)
FEATURES = tuple(field.name for field in dataclasses.fields(TrainingConstants)
                 if field.default is not dataclasses.MISSING)


def family(accelerator: str) -> str:
    """The family that constants know an accelerator by ("h100-sxm-80gb": "h100"); "cpu" and ""
    for others.
    """
    folded = accelerator.casefold()
    for name in FAMILIES:
        if folded.startswith(name):
            return _SAME.get(name, name)
    return "cpu" if "cpu" in folded else ""


def machine_family(machine: Machine) -> str:
    """The family of a machine: any CPU is "cpu"."""
    return "cpu" if machine.kind == "cpu" else family(machine.accelerator)


def training_constants(accelerator: str = "", stack: str = "", version: str = "",
                       without: str = "") -> TrainingConstants:
    """The constants of an accelerator's family under a version of a stack.

    With `without` naming a stack, those fitted with all its rows left out, and no factor of any
    stack; where no row stands under that name, nothing of it was ever fitted, and the general
    values hold.
    """
    return _training(accelerator, stack, version, without, table.overlay_folder())


@functools.lru_cache(maxsize=4096)
def _training(accelerator: str, stack: str, version: str, without: str,
              overlay: Path) -> TrainingConstants:
    found = _values(overlay)
    left_out = without if any(key[4] == without for key in found) else ""
    keys = [("", "", "", left_out), (accelerator, "", "", left_out)]
    if not without:
        keys += [("", stack, "", ""), (accelerator, stack, "", ""), ("", stack, version, "")]
    values = {}
    for name in NAMES:
        value = 1.0
        for key in dict.fromkeys(keys):
            value *= found.get((name, *key), 1.0)
        values[name] = value
    return TrainingConstants(**values, **features(stack, version, accelerator))


@functools.cache
def _values(overlay: Path) -> Mapping[tuple[str, str, str, str, str], float]:
    return {(one.name, one.accelerator, one.stack, one.version, one.without): one.value
            for one in physics.constants(FILE)}


def seen(accelerator: str, stack: str, without: str = "") -> bool:
    """Whether a measured row of this family under this stack stands behind the constants."""
    return not without and ("seen", accelerator, stack, "", "") in _values(table.overlay_folder())


def known_stack(stack: str) -> bool:
    """Whether constants of this stack were fitted."""
    return stack in _stacks(table.overlay_folder())


@functools.cache
def _stacks(overlay: Path) -> frozenset[str]:
    return frozenset(key[2] for key in _values(overlay))


def features(stack: str, version: str = "", accelerator: str = "") -> Mapping[str, float]:
    """What a version of a stack is known to do on a family, by feature; what nobody documents is
    left out. A kernel written for the A100 is at home there and on what came before.
    """
    return _features(stack, version, accelerator, table.overlay_folder())


@functools.lru_cache(maxsize=1024)
def _features(stack: str, version: str, accelerator: str, overlay: Path) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for row in table.rows("stacks", ("software", "feature", "since")):
        if row.text("software") == stack and _parts(row.maybe_text("since")) <= _parts(version):
            found[row.text("feature")] = row.number("value")
    if found.get("attention_kernel") == 2 and accelerator not in PORTED_FAMILIES:
        found["attention_kernel"] = 3
    return found


def _parts(version: str) -> tuple[int, ...]:
    """Numbers of a version, to compare; no version is the newest."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version))
    return numbers if version else (0,)


def columns(machines: Sequence[Machine], recipes: Sequence[Recipe], *,
            unseen: bool = False) -> TrainingConstants:
    """The constants of many recipes on their machines, as columns; with `unseen`, each as if
    nobody had measured its stack.
    """
    import numpy as np

    rows = [of(machine, recipe, unseen=unseen)
            for machine, recipe in zip(machines, recipes, strict=True)]
    return TrainingConstants(**{name: np.array([getattr(row, name) for row in rows], float)
                                for name in (*NAMES, *FEATURES)})


def of(machine: Machine, recipe: Recipe, *, unseen: bool = False) -> TrainingConstants:
    """The constants of one recipe on its machine."""
    return training_constants(machine_family(machine), recipe.stack, _given(recipe),
                              recipe.stack if unseen else "")


def _given(recipe: Recipe) -> str:
    return recipe.stack_version or "9999"


def scaled(constants: TrainingConstants, factors: Mapping[str, Number]) -> TrainingConstants:
    """The same with some values multiplied."""
    return dataclasses.replace(constants, **{
        name: getattr(constants, name) * factor for name, factor in factors.items()})
