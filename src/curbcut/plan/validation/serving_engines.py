"""How a served model is cut and stored, and how fast its chips are, as serving tables say it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from curbcut.physics.serving_passes import ChipRates, Engine
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.spec.nouns import Machine, ModelShape

FP4_BYTES = 0.5 + 1 / 16
"""Bytes a weight of nvfp4 or mxfp4, and of int4 with a scale for each 32: scales included."""
PRECISIONS = {"": "bf16", "bf16": "bf16", "bfloat16": "bf16", "fp16": "bf16", "float16": "bf16",
              "fp8": "fp8", "fp8_block": "fp8", "nvfp4": "fp4", "mxfp4": "fp4", "fp4": "fp4",
              "w4a16_mxfp4": "fp4", "int4_wo": "int4", "int4": "int4", "w4afp8": "int4",
              "int8_wo": "int8", "int8": "int8"}
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": FP4_BYTES, "int4": FP4_BYTES}
NETWORK_BYTES_PER_SECOND = 50e9
"""One 400 Gb/s adapter an accelerator, where a row does not name the network."""
RACKS, RACK = ("gb200", "gb300"), 72
"""Accelerators of which so many share the fast link (NVL72); others, 8."""
SMALL_RANKS = 8
"""Accelerators of one node, that others' fast links join."""


def precision(cells: Cells, column: str) -> str:
    """What the row's weights are stored in, a key of `WEIGHT_BYTES`. Raises CannotExpress."""
    stated = (cells.text(column) or cells.text("precision")).casefold()
    if stated not in PRECISIONS:
        raise CannotExpress(f"precision {stated!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[stated]


def cut(cells: Cells, before: str, model: ModelShape, base: Engine, machine: Machine) -> Engine:
    """Degrees of one worker. Some rows state attention's and experts' degrees multiplied."""
    tp, dp = (cells.positive(before + name) for name in ("tp_size", "attention_dp_size"))
    moe_tp, ep = (cells.positive(before + name) or 1.0 for name in ("moe_tp_size", "moe_ep_size"))
    tp, pp = tp or 1.0, cells.positive(before + "pp_size") or 1.0
    beyond = tp * (dp or 1) > (RACK if machine.accelerator in RACKS else SMALL_RANKS)
    if beyond and moe_tp == ep > 1 and tp * (dp or 1) == moe_tp * ep:
        tp, dp, moe_tp = (1.0, ep, 1.0) if (dp or 1) > 1 else (ep, 1.0, 1.0)
        cells.assume("degrees multiplied twice")
    elif beyond and tp == dp and moe_tp * ep == tp * dp:
        dp, moe_tp, ep = 1.0, (1.0 if ep > 1 else tp), (tp if ep > 1 else 1.0)
        cells.assume("degrees multiplied twice")
    if dp is None:
        dp = max(1.0, moe_tp * ep / tp) if model.experts else 1.0
    if before == "decode_" and tp == ep == 1 and 1 < dp == moe_tp <= SMALL_RANKS:
        # The same measurements stand in other rows as tensor-parallel.
        tp, dp = dp, 1.0
        cells.assume("attention cut as the experts are")
    if model.heads % tp:
        cells.assume(f"{tp:g} accelerators, each with requests of its own")
        tp, dp, moe_tp, ep = 1.0, tp * dp, 1.0, tp * dp
    ranks = tp * dp
    if not model.experts:
        moe_tp, ep = ranks, 1.0
    elif moe_tp * ep != ranks:
        ep = ranks / moe_tp if moe_tp <= ranks else 1.0
        moe_tp = ranks / ep
    return replace(base, tp=tp, dp=dp, moe_tp=moe_tp, ep=ep, pp=pp)


def quantised(model: ModelShape, dense: str, experts: str, stack: str) -> Engine:
    """Bytes of weights and cache. fp4 checkpoints leave MLA at 16 bits (nvidia/DeepSeek-R1-FP4;
    its second version quantises the output projection too, by that one's README), int4 ones all
    but routed experts (moonshotai/Kimi-K2.5, quantization_config). The cache is taken as fp8 under
    fp8 and fp4 weights, as InferenceX's scripts run it, else as 16 bits.
    """
    each = WEIGHT_BYTES[dense]
    if dense == "int4":
        each = 2.0
    elif dense == "fp4" and model.attention == "mla":
        attention = model.layers * model.attention_parameters
        others = (model.parameters - model.embedding_parameters - model.routed_parameters
                  - attention)
        each = (2.0 * attention + FP4_BYTES * others) / (attention + others)
    return Engine(dense_bytes=each, expert_bytes=WEIGHT_BYTES[experts],
                  cache_bytes=1.0 if dense in ("fp8", "fp4") else 2.0, compiled=stack == "vLLM",
                  prefill_first=stack == "SGLang")


def chip(model: ModelShape, machine: Machine, dense: str, experts: str) -> ChipRates:
    """Rates of one accelerator for such weights. Raises CannotExpress without a bf16 rate."""
    peaks = machine.peak_flops
    wide = peaks.get("bf16") or peaks.get("fp16")
    if not wide:
        raise CannotExpress(f"no bf16 rate of {machine.accelerator} is known")
    blackwell = re.search(r"b[23]00|blackwell|5090", machine.accelerator)
    fp8 = peaks.get("fp8", 2 * wide if blackwell else wide)
    rates = {"bf16": wide, "int8": wide, "int4": wide, "fp8": fp8,
             "fp4": peaks.get("fp4", 2 * fp8 if blackwell else wide)}
    latent = model.attention == "mla" and dense == "fp4"
    return ChipRates(dense_flops=wide if latent else rates[dense], expert_flops=rates[experts],
                attention_flops=wide,
                bytes_per_second=machine.memory_bytes_per_second["peak"],
                memory_bytes=machine.memory_bytes,
                link_bytes_per_second=machine.link_bytes_per_second or 32e9,
                network_bytes_per_second=NETWORK_BYTES_PER_SECOND,
                domain=RACK if machine.accelerator in RACKS else SMALL_RANKS)


def assume_rate(cells: Cells, machine: Machine, *stored: str) -> None:
    """Says where 4-bit weights meet a chip whose facts have no rate for them (see `chip`)."""
    if "fp4" in stored and not machine.peak_flops.get("fp4"):
        cells.assume(f"no fp4 rate of {machine.accelerator}: its matmuls priced by a wider one's")


def parallel(cells: Cells, model: ModelShape, base: Engine) -> Engine:
    """Degrees as TensorRT-LLM's tables write them: TP4, DEP4 (attention and experts), PP2."""
    found = {kind: float(count) for kind, count in
             re.findall(r"\b(DEP|TEP|TP|PP|EP|DP)(\d+)", cells.text("parallel"))}
    if not found:
        raise CannotExpress(f"parallel {cells.text('parallel')!r} is not understood")
    dp = found.get("DEP", found.get("DP", 1.0))
    tp = found.get("TP", found.get("TEP", 1.0))
    ranks = tp * dp
    spread = "DEP" in found or "TEP" in found or "EP" in found
    split: dict[str, Any] = {"ep": ranks if spread else 1.0, "moe_tp": 1.0 if spread else ranks}
    return replace(base, tp=tp, dp=dp, pp=found.get("PP", 1.0), **split)
