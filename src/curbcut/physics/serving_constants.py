"""Named constants of serving: what kernels, links and schedulers achieve.

They stand in the facts (`physics_serving.csv`): for any stack, for each known one, and without
each, for pricing a stack that the constants have not seen.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from curbcut.facts import physics
from curbcut.physics.numbers import Number


@dataclass(frozen=True, kw_only=True)
class ServingConstants:
    """All numbers, or columns of them. Shares are of what the vendor states."""

    bandwidth_share: Number
    """Memory bandwidth at which weights are read."""
    cache_share: Number
    """Memory bandwidth at which keys and values are read."""
    matmul_share: Number
    """Rate of dense matmuls before `feed_flops_per_byte`."""
    expert_share: Number
    """Rate of experts' matmuls before `feed_flops_per_byte`, imbalance included."""
    feed_flops_per_byte: Number
    """FLOPs that a matmul does for each byte of memory bandwidth, however fast it multiplies."""
    attention_share: Number
    """Rate of attention in prefill."""
    decode_attention_share: Number
    """Rate of attention in decoding."""
    elementwise_bytes: Number
    """Bytes moved for each element of elementwise work."""
    kernel_seconds: Number
    """Start of one kernel inside a graph."""
    launch_seconds: Number
    """Start of one kernel by the host."""
    compiled_launches: Number
    """Share of the launches that are left where prefill is compiled."""
    reduce_seconds: Number
    """Latency of an all-reduce, for each doubling of the ranks."""
    link_share: Number
    """Link bandwidth that an all-reduce reaches."""
    exchange_seconds: Number
    """Latency of sending tokens to experts, one way."""
    exchange_share: Number
    """Link bandwidth that sending tokens to experts reaches."""
    network_latency: Number
    """Latency beyond the fast link's domain, as a multiple of that inside."""
    step_seconds: Number
    """Host work of one pass."""
    first_seconds: Number
    """What a request takes before and after its passes: HTTP, tokens, scheduling."""
    waves: Number
    """Prompt readings that a request waits for, its own among them."""
    steps: Number
    """Decode steps that a request waits for."""
    burst: Number
    """Share of requests that come all at once, when the server is empty."""
    interference: Number
    """Prompt readings that an answer waits for, for each request beside it."""
    memory_share: Number
    """Memory that weights and cache may fill."""
    handover_seconds: Number
    """What a request takes beside its passes where prefill is apart."""
    apart_waves: Number
    """As `waves`, where prefill is apart."""
    apart_burst: Number
    """As `burst`, where prefill is apart."""
    queue_share: Number
    """Share of the queue before prefill that Little's law leaves and requests are seen to wait."""
    direct_ratio: Number = 1.0
    """Rate of matmuls that widen each weight as they meet it, over `matmul_share`'s; 1 where no
    weight is widened, or kernels do it on the way (accelerators)."""
    widened_bytes: Number = 0.0
    """Bytes moved for each weight that is widened before it is multiplied, which pays where rows
    are many."""
    row_seconds: Number = 0.0
    """Host work of each answer of a decode step: its draw, its text, handing both over."""


UNFITTED = {field.name: field.default for field in dataclasses.fields(ServingConstants)
           if field.default is not dataclasses.MISSING}
"""Constants of our own engine on a CPU, and what stands for them elsewhere."""
NAMES = tuple(field.name for field in dataclasses.fields(ServingConstants)
              if field.name not in UNFITTED)
"""All others, which are fitted to accelerators."""
KINDS = ("together", "apart", "open", "together_drafts", "apart_drafts", "open_drafts", "waves")
"""Prefill with decoding; apart; apart, with degrees or workers that nobody states. "drafts": the
model can predict several tokens at once, and nobody states whether it did. "waves": together,
where requests that came together are taken to stay together."""


@functools.cache
def serving_constants(stack: str = "", without: str = "", accelerator: str = "",
                      weights: str = "same") -> ServingConstants:
    """The constants of a known `stack`; with that stack left out where `without` names it; those
    for any stack otherwise. `accelerator` "cpu" gives what one thread of a CPU achieves; there
    `weights` are stored as that name of `ServeJob.weight_precision` says.
    """
    own = f"cpu-{weights}" if accelerator.startswith("cpu") and weights != "same" else ""
    stored = {name: _table()[name, key, "", ""].value
              for key, names in ((accelerator, UNFITTED), (own, (*NAMES, *UNFITTED)))
              for name in names if key and (name, key, "", "") in _table()}
    return ServingConstants(**{name: _value(name, stack, without, accelerator)
                               for name in NAMES} | stored)


@functools.cache
def measured(weights: str) -> bool:
    """Whether a CPU's constants of so stored weights stand on rows that were measured."""
    found = [one for key, one in _table().items() if key[1] == f"cpu-{weights}"]
    return bool(found) and all(one.rows > 0 for one in found)


@functools.cache
def spread(quantity: str, kind: str) -> tuple[float, float, float, float]:
    """Measured over predicted, for a stack never seen: ends of the 80% and of the 95% interval.

    `quantity` is "ttft", "tpot" or "throughput"; `kind` one of `KINDS`.
    """
    narrow = _constant(f"{quantity}_{kind}_spread80", "", "", "")
    wide = _constant(f"{quantity}_{kind}_spread95", "", "", "")
    return narrow.low, narrow.high, wide.low, wide.high


def _value(name: str, stack: str, without: str, accelerator: str) -> float:
    return _constant(name, stack, without, accelerator).value


def _constant(name: str, stack: str, without: str, accelerator: str) -> physics.PhysicsConstant:
    found = _table()
    for key in ((name, accelerator, "", ""), (name, "", "", without), (name, "", stack, ""),
                (name, "", "", "")):
        if any(key[1:]) and key in found:
            return found[key]
    return found[name, "", "", ""]


@functools.cache
def _table() -> dict[tuple[str, str, str, str], physics.PhysicsConstant]:
    return {(one.name, one.accelerator, one.stack, one.without): one
            for one in physics.constants("physics_serving")}
