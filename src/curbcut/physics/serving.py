"""Serving on a machine: seconds of a prompt and of a decode step, bytes held, and what users meet.

The passes are those of `serving_passes`, the same for a CPU and for accelerators; what differs is
constants. Rates are probed where the machine was, else the vendor's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from curbcut.physics import memory, power, rates, serving_passes, serving_traffic, serving_work
from curbcut.physics.numbers import Number
from curbcut.physics.serving_constants import ServingConstants, measured, serving_constants
from curbcut.physics.serving_passes import ChipRates, Engine
from curbcut.physics.serving_traffic import Latency, Traffic
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Machine, ModelShape, Precision

PROCESS_BYTES: Mapping[int, int] = {4: 290 * 2**20, 2: 490 * 2**20}
"""A Python process with torch and the server, on a CPU, by bytes an element: four servers of 4M
and 35M parameters peaked at 289 to 296 MiB (fp32) and 491 to 501 (bf16) beyond their tensors."""
SPREAD: Mapping[str, float] = {"cpu": 2.0, "gpu": 1.6}
"""Factor either way at probed rates; a CPU's passes fell within 1.7 of this model, four fifths of
measured accelerators' tokens within 1.5 (`physics_serving.csv`, tpot_together_spread80)."""
UNPROBED_SPREAD = 1.5
"""Further factor either way where the rates are a vendor's and no fit has met the accelerator."""
UNMEASURED_WEIGHTS = 1.6
"""Further factor either way where weights are stored in a way that nobody measured there: on a CPU
the kernels of a kind differ by more than that between machines, on a GPU the formats that no fit
has met."""
FITTED_WEIGHTS = ("same", "fp8", "nvfp4", "int4")
"""Formats that the accelerators' constants were fitted with."""
MOST_REQUESTS = 2.0**16
"""Requests in flight beyond which no server is asked about."""
FITTED = ("h100", "h200", "b200", "b300", "gb200", "gb300")
"""Accelerators whose stated rates the constants were fitted with."""


def element_bytes(precision: Precision) -> int:
    """Bytes a weight as it is served: models are stored in the dtype that they compute in."""
    return 2 if precision in ("bf16", "fp16", "fp8", "mxfp8", "nvfp4") else 4


def held_bytes(shape: ModelShape, machine: Machine, precision: Precision, batch: int,
               context_tokens: int, engine: Engine | None = None) -> Mapping[str, float]:
    """Bytes by kind (parameters, cache, overhead, peak) of a server whose cache has `batch` rows
    of `context_tokens`; on one rank of `engine` where that is given.
    """
    wide = element_bytes(precision)
    parts = dict(memory.serving(shape, batch, context_tokens, machine.kind, wide))
    if engine is not None:
        rows = batch / engine.dp
        parts["parameters"] = float(serving_passes.weight_bytes(shape, engine))
        parts["cache"] = float(rows * serving_passes.sequence_bytes(shape, engine,
                                                                    context_tokens))
    if machine.kind == "cpu":
        parts["overhead"] = float(PROCESS_BYTES[wide])
    return parts | {"peak": parts["parameters"] + parts["cache"] + parts["overhead"]}


def prefill_seconds(shape: ModelShape, machine: Machine, precision: Precision,
                    prompt_tokens: int, engine: Engine | None = None,
                    cached_tokens: float = 0) -> Estimate:
    """Seconds to read one prompt, but for tokens that are cached, and to score its next token; no
    value without a matmul rate.
    """
    found = server(shape, machine, precision, engine)
    if found is None:
        return _unpriced(machine, precision)
    return estimate(machine, precision, serving_passes.prefill_seconds(
        shape, found.engine, found.chip, found.constants, prompt_tokens, 1, cached_tokens),
        found.engine.weights)


def decode_seconds(shape: ModelShape, machine: Machine, precision: Precision, batch: int,
                   context_tokens: int, engine: Engine | None = None,
                   drafted: int = 0, drafter: float = 0.0) -> Estimate:
    """Seconds of one step that gives each of `batch` answers a token, behind so long a context, and
    checks `drafted` more for each, guessed by a model of `drafter` times the parameters.
    """
    found = server(shape, machine, precision, engine)
    if found is None:
        return _unpriced(machine, precision)
    each = max(1.0, batch / found.engine.dp)
    return estimate(machine, precision, serving_passes.decode_seconds(
        shape, found.engine, found.chip, found.constants, each, context_tokens, drafted,
        drafter),
        found.engine.weights)


@dataclass(frozen=True)
class Server:
    """Everything that the formulas of serving take beside the model."""

    engine: Engine
    chip: ChipRates
    constants: ServingConstants


def server(shape: ModelShape, machine: Machine, precision: Precision,
           engine: Engine | None = None, stack: str = "") -> Server | None:
    """A server of `shape` on `machine`, on one accelerator unless `engine` says otherwise; None
    where no matmul rate is known.
    """
    rate, streaming = _matmul_rate(shape, machine, precision), rates.bandwidth(machine).value
    if rate is None:
        return None
    assert streaming is not None, "a bandwidth always has at least a default"
    wide = float(element_bytes(precision))
    on_cpu = machine.kind == "cpu"
    stored = engine.weights if engine is not None else "same"
    dense = _stored_rate(shape, machine, stored) or rate
    if not on_cpu:
        # The constants are shares of what vendors state, of bandwidth as of rates.
        streaming = machine.memory_bytes_per_second.get("peak", streaming)
    chip = ChipRates(
        dense_flops=dense, expert_flops=dense, attention_flops=rate, bytes_per_second=streaming,
        memory_bytes=machine.memory_bytes,
        link_bytes_per_second=machine.link_bytes_per_second or rates.DEFAULT_LINK,
        network_bytes_per_second=(machine.network_bytes_per_second / machine.accelerators_per_node
                                  or rates.DEFAULT_NETWORK),
        domain=machine.domain_accelerators or machine.accelerators_per_node)
    constants = serving_constants(
        stack, accelerator=("cpu" if wide == 4 else "cpu-16bit") if on_cpu else "",
        weights=stored)
    plain = Engine(dense_bytes=wide, expert_bytes=wide, cache_bytes=wide)
    if on_cpu and engine is None:
        plain = replace(plain, head_bytes=wide, chunk_tokens=math.inf)
    return Server(engine or plain, chip, constants)


def estimate(machine: Machine, precision: Precision, value: float,
             weights: str = "same") -> Estimate:
    """Seconds, or tokens a second, of a server with the interval that its passes have, its weights
    stored as that name of `ServeJob.weight_precision` says.
    """
    on_cpu = machine.kind == "cpu"
    spread = SPREAD["cpu" if on_cpu else "gpu"]
    if weights != "same" and not (measured(weights) if on_cpu else weights in FITTED_WEIGHTS):
        spread *= UNMEASURED_WEIGHTS
    probed = rates.matmul_peak(machine, precision).basis == "measured"
    if not probed and not any(name in machine.accelerator.casefold() for name in FITTED):
        spread *= UNPROBED_SPREAD
    return Estimate(value, value / spread, value * spread, "modelled",
                    "bytes and FLOPs of each matmul, attention, links and the start of kernels, at "
                    f"{'probed' if probed else 'stated'} rates")


def _unpriced(machine: Machine, precision: Precision) -> Estimate:
    return Estimate(None, basis="modelled",
                    source=f"no {precision} matmul rate of {machine.accelerator}")


def weights_read(shape: ModelShape, new_tokens: int) -> float:
    """Weights that a pass over so many tokens reads, expected: not an untied embedding, of which
    it reads rows, and of experts those that its tokens are sent to.
    """
    looked_up = 0 if shape.tied_embeddings else shape.vocab * shape.width
    missed = 1 - serving_passes.experts_touched(shape, new_tokens) if shape.experts else 0.0
    return float(shape.parameters - looked_up - missed * shape.routed_parameters)


def _matmul_rate(shape: ModelShape, machine: Machine, precision: Precision) -> float | None:
    """FLOP/s that the constants take shares of: on a CPU what matmuls of this width reach, else
    what was probed or stated.
    """
    peak = rates.matmul_peak(machine, precision)
    if peak.value is None or machine.kind != "cpu":
        return peak.value
    probed = peak.basis == "measured"
    wide = rates.probed_matmul(machine, precision) if probed else peak.value
    assert math.isfinite(wide)
    return wide * rates.width_share(machine, shape.width)


def _stored_rate(shape: ModelShape, machine: Machine, weights: str) -> float | None:
    """FLOP/s of matmuls by weights so stored, where it is not that of the run's precision; None
    else, and where nobody states a rate (then that of 16 bits is a bound from below).
    """
    if machine.kind == "cpu":
        # All kernels compute in bf16 or in 8 bits, whatever the run's precision: a share of what
        # bf16 reaches there (`matmul_share` of the kind).
        return None if weights == "same" else _matmul_rate(shape, machine, "bf16")
    if weights != "int8-dynamic":
        return None
    return machine.peak_flops.get("int8")


def batch_within(shape: ModelShape, found: Server, traffic: Traffic, ttft_seconds: float,
                 tpot_seconds: float) -> int:
    """Most requests in flight, of those whose cache fits, that meet both objectives; 0 for none.
    All loads are priced at once.
    """
    import numpy as np

    tokens = traffic.prompt_tokens + traffic.output_tokens
    fits = serving_traffic.batch_that_fits(shape, found.engine, found.chip, found.constants,
                                           tokens)
    loads = np.arange(1.0, min(int(fits), MOST_REQUESTS) + 1)
    met = latency(shape, found, replace(traffic, concurrency=loads))
    good = loads[serving_traffic.within(met, ttft_seconds, tpot_seconds)]
    return int(good[-1]) if len(good) else 0


def latency(shape: ModelShape, found: Server, traffic: Traffic) -> Latency:
    """What users of such a server meet. Polymorphic in `traffic`: columns of many loads too."""
    return serving_traffic.together(shape, found.engine, found.chip, found.constants, traffic)


def busy(shape: ModelShape, found: Server, traffic: Traffic, batch: Number,
         tokens_per_second: Number) -> power.Busy:
    """What each rank of a server is kept busy with that decodes `batch` answers together on each
    attention rank and gives so many output tokens a second, prompts read meanwhile.
    """
    yielded = serving_passes.accepted_tokens(traffic.drafted, traffic.acceptance)
    work = serving_work.step_work(
        shape, found.engine, found.chip, found.constants.elementwise_bytes, batch=batch,
        prompt_tokens=traffic.prompt_tokens, output_tokens=traffic.output_tokens,
        cached_tokens=traffic.cached_tokens, drafted=traffic.drafted, yielded=yielded)
    return power.of_work(work, found.chip, batch * found.engine.dp * yielded / tokens_per_second)
