"""A row of a serving table as the nouns of serving: model, chip, engine and traffic.

Two tables are known by their columns: measured latencies (`silicon_ttft_ms`; InferenceX and others,
collected by aiconfigurator) and published throughputs (`metric`, `value`, `unit`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.physics.serving_passes import ChipRates, Engine
from curbcut.physics.serving_traffic import Traffic
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation import machines, serving_engines, shapes
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.score import Unexpressed
from curbcut.plan.validation.serving_engines import RACK, SMALL_RANKS
from curbcut.spec.nouns import Machine, ModelShape

STACKS = {"trtllm": "TensorRT-LLM", "sglang": "SGLang", "vllm": "vLLM"}
MANY_TOKENS_A_RANK = 110_000
"""Tokens of context in flight, a rank, from which attention is taken to have ranks of its own,
where a row does not say: of rows that do, three quarters (SGLang) to nine tenths are so."""
DECODE_WORKERS = 4
"""Decode workers of a disaggregated server of few requests, where a row does not say: the median
of those that say is 2 (SGLang) or 4."""
GIANT = 1e11
"""Parameters of experts beyond which no accelerator holds a model alone."""
WIDE_RANKS = 32
"""Ranks of a decode worker on racks of one fast domain for many requests, where the row's degrees
cannot be meant; for few, `SMALL_RANKS`: as rows that do say."""
LARGEST_BATCH = 2048
"""Answers decoded together on one rank at most, where all are queued: an assumption."""
DRAFTING = ("DeepSeek-V3", "DeepSeek-R1")
"""Models with a layer that predicts a second token (DeepSeek-V3, arXiv:2412.19437, section 2.2):
among rows alike in every column, those that use it take about half the time a token."""
DRAFTERS = ("TensorRT-LLM", "R1")
DRAFTED, ACCEPTED = 1, 0.87
"""About half of what InferenceX publishes of DeepSeek-R1 under TensorRT-LLM predicts one to three
further tokens, and rows do not say which (spec-decoding "mtp"; SemiAnalysisAI/InferenceX,
.github/configs/nvidia-master.yaml, where SGLang's on GB200 say "none"). Taken as a middle way: one
further token, accepted as DeepSeek found (85 to 90%; arXiv:2412.19437, section 5.4.3)."""
SCENARIOS = ((1024, 1024), (1024, 8192), (8192, 1024))
MEAN_LENGTH = 0.9
"""InferenceX's prompts and answers, and their mean length as a share of what rows state: each draws
its own between 0.8 of it and all (--random-range-ratio; SemiAnalysisAI/InferenceX, its issue 356).
Others are taken to be equally long."""
BORN_FP4 = "gpt-oss"
"""Published with experts in mxfp4, all else in bf16 (openai/gpt-oss-120b, quantization_config)."""
POLLED = ("SGLang", ("b200", "b300"))
"""InferenceX runs DeepSeek under SGLang on B200 with --scheduler-recv-interval 10, and 30 from 16
requests (SemiAnalysisAI/InferenceX, SGLang's dsr1 scripts for b200)."""


@dataclass(frozen=True, kw_only=True)
class ServingRow:
    """One measurement, ready to be predicted."""

    id: str
    source: str
    stack: str
    accelerator: str
    shape: ModelShape
    chip: ChipRates
    engine: Engine
    """Of the server, or of a decode worker where prefill is apart."""
    traffic: Traffic
    measured: Mapping[str, float]
    """`ttft` and `tpot` in seconds, `throughput` as the row states it."""
    prefill: Engine | None = None
    """Of a prefill worker, where prefill is apart."""
    prefill_workers: float = 0.0
    """0 for as many as keep up with the decoders."""
    decode_workers: float = 1.0
    open: bool = False
    """Whether degrees or workers were filled in."""
    per: float = 1.0
    """What the server's tokens a second are divided by to give `throughput`."""
    assumed: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """One of `serving_constants.KINDS`."""
        if self.prefill is None and self.engine.prefill_first and self.traffic.alike:
            return "waves"
        way = "together" if self.prefill is None else "open" if self.open else "apart"
        return way + ("_drafts" if self.shape.preset.startswith(DRAFTING) else "")


def read(path: Path) -> tuple[list[ServingRow], list[Unexpressed]]:
    """Rows of either table, and those that cannot be expressed. Raises InputError for others."""
    header, lines = cells_of.read(path)
    if "silicon_ttft_ms" in header:
        one, source = latency_row, "backend"
    elif {"metric", "value", "unit"} <= set(header):
        one, source = throughput_row, "source"
    else:
        raise InputError("is no serving table that we know", where=str(path),
                         mend="give columns silicon_ttft_ms and silicon_tpot_ms, or metric, value "
                              "and unit")
    found: list[ServingRow] = []
    left: list[Unexpressed] = []
    for number, line in enumerate(lines, 1):
        row = Cells(line)
        name = row.text("id") or f"line {number}"
        try:
            found.append(replace(one(row), id=name, assumed=tuple(row.assumed)))
        except CannotExpress as problem:
            left.append(Unexpressed(name, row.text(source), str(problem)))
    return found, left


def latency_row(cells: Cells) -> ServingRow:
    """A row of measured TTFT and TPOT. Raises CannotExpress."""
    model = _model(cells, "model_path")
    machine = machines.accelerator(cells, cells.text("system").replace("_", "-"))
    dense = serving_engines.precision(cells, "gemm_quant_mode")
    experts = serving_engines.precision(cells, "moe_quant_mode")
    serving_engines.assume_rate(cells, machine, dense, experts)
    backend = cells.text("backend")
    stack = STACKS.get(backend.casefold(), backend)
    if not stack:
        raise CannotExpress("no backend")
    apart = cells.text("mode") == "disagg"
    requests = _requests(cells, apart)
    base = serving_engines.quantised(model, dense, experts, stack)
    row = ServingRow(
        id="", source=backend, stack=stack, accelerator=machine.accelerator, shape=model,
        measured=_milliseconds(cells),
        chip=serving_engines.chip(model, machine, dense, experts), engine=serving_engines.cut(
            cells, "decode_" if apart else "", model, base, machine),
        traffic=_traffic(cells, requests, stack))
    if apart:
        reader = serving_engines.cut(cells, "prefill_", model, base, machine)
        return _apart(cells, replace(row, prefill=reader))
    if _polled(stack, machine, model):
        steps = 30 if requests >= 16 else 10
        cells.assume(f"looks for new requests each {steps} steps")
        row = replace(row, engine=replace(row.engine, poll_steps=steps))
    return row


def _traffic(cells: Cells, requests: float, stack: str) -> Traffic:
    """What the row asks: lengths as they are on average, and drafts where they are likely."""
    lengths = _needed(cells, "isl"), _needed(cells, "osl")
    varied = lengths in SCENARIOS
    prompt, answer = (each * (MEAN_LENGTH if varied else 1.0) for each in lengths)
    if varied:
        cells.assume(f"lengths of {MEAN_LENGTH:g} of those stated, on average")
    found = Traffic(concurrency=requests, prompt_tokens=prompt, output_tokens=answer,
                    alike=not varied)
    if stack == DRAFTERS[0] and DRAFTERS[1] in cells.text("model_path"):
        cells.assume("one token drafted a step: half of such rows draft, none says so")
        return replace(found, drafted=DRAFTED, acceptance=ACCEPTED)
    return found


def _apart(cells: Cells, row: ServingRow) -> ServingRow:
    """The row with its workers; where it does not say how many, as others have them."""
    stated = cells.positive("decode_num_workers")
    if stated:
        return replace(row, decode_workers=stated,
                       prefill_workers=cells.positive("prefill_num_workers") or 0.0)
    reader = row.prefill
    assert reader is not None, "the caller gave it"
    if row.shape.experts and reader.ep == reader.tp > 1:
        # Rows that say more give attention ranks of its own where experts have theirs.
        reader = replace(reader, tp=1.0, dp=reader.tp)
    row = replace(row, open=True, prefill=reader)
    requests, rack = row.traffic.concurrency, row.chip.domain > SMALL_RANKS
    total = _useless(cells, row.shape)
    ranks = row.engine.ranks
    if total:
        small = 4.0 if rack and row.engine.expert_bytes < 1 else float(SMALL_RANKS)
        wide = max(4.0, min(WIDE_RANKS, total - small))
        ranks = wide if requests / total >= SMALL_RANKS else float(SMALL_RANKS)
        row = replace(row, prefill=replace(reader, tp=small, dp=1.0,
                                           **_spread(row.shape, small)))
        cells.assume("degrees cannot be meant: taken as other rows have them")
    held = requests * row.traffic.context_tokens
    many = held / ranks >= MANY_TOKENS_A_RANK or (rack and ranks >= 2 * SMALL_RANKS)
    if many or total:
        row = replace(row, engine=replace(
            row.engine, tp=1.0 if many else ranks, dp=ranks if many else 1.0,
            **_spread(row.shape, ranks)))
    workers = 1.0 if many else min(max(requests, 1.0), float(DECODE_WORKERS))
    cells.assume(f"{workers:g} decode workers, or as many as hold all requests; "
                 + ("as many for prefill as keep up" if many else "1 for prefill"))
    return replace(row, decode_workers=workers, prefill_workers=0.0 if many else 1.0)


def _useless(cells: Cells, model: ModelShape) -> float:
    """Accelerators of the whole system where the row's degrees cannot be meant, else 0: heads that
    do not divide, both kinds of worker as large as all, or one accelerator for a giant.
    """
    meant = cells.positive("decode_tp_size") or 1.0
    if meant == 1 and model.routed_parameters > GIANT:
        return float(RACK)
    both = meant > 2 * SMALL_RANKS and meant == cells.positive("prefill_tp_size")
    return meant if both or model.heads % meant else 0.0


def _spread(model: ModelShape, ranks: float) -> dict[str, Any]:
    return {"ep": ranks, "moe_tp": 1.0} if model.experts else {"ep": 1.0, "moe_tp": ranks}


def _polled(stack: str, machine: Machine, model: ModelShape) -> bool:
    name, chips = POLLED
    return (stack == name and machine.accelerator.startswith(chips)
            and model.attention == "mla")


def _model(cells: Cells, column: str) -> ModelShape:
    name = cells.text(column)
    found = shapes.preset(name) or shapes.preset(re.sub(r"/R1\b|-(NVFP4|FP4|FP8)$", "", name))
    if not found:
        raise CannotExpress(f"no preset is called {name!r}")
    return ModelShape(**found)


def _needed(cells: Cells, column: str) -> float:
    value = cells.positive(column)
    if value is None:
        raise CannotExpress(f"{column} is {cells.text(column)!r}, no number above 0")
    return value


def _requests(cells: Cells, apart: bool) -> float:
    """Requests in flight: stated, or the batch of each rank and worker."""
    stated = cells.positive("concurrency")
    if stated:
        return stated
    before = "decode_" if apart else ""
    cells.assume("as many requests as the batches hold")
    return (_needed(cells, before + "batch_size")
            * (cells.positive(before + "attention_dp_size") or 1)
            * (cells.positive("decode_num_workers") or 1 if apart else 1))


def _milliseconds(cells: Cells) -> dict[str, float]:
    found = {name: cells.positive(f"silicon_{name}_ms") for name in ("ttft", "tpot")}
    return {name: value / 1e3 for name, value in found.items() if value is not None}


def throughput_row(cells: Cells) -> ServingRow:
    """A row of published throughput. Raises CannotExpress."""
    model = _model(cells, "model")
    machine = machines.accelerator(cells, cells.text("gpu").removesuffix("-BSE"))
    dense = experts = serving_engines.precision(cells, "precision")
    if model.preset.startswith(BORN_FP4):
        dense, experts = "bf16", "fp4"
        cells.assume("experts as published, in mxfp4; the rest in bf16")
    serving_engines.assume_rate(cells, machine, dense, experts)
    prompt, answer = cells.positive("isl"), cells.positive("osl")
    if cells.text("scenario").startswith("offline"):
        if prompt is None or answer is None:
            raise CannotExpress("no prompt or answer length")
        cells.assume("all requests queued: as many decoded as the cache holds")
    else:
        raise CannotExpress(f"{cells.text('scenario') or 'scenario'}: its load is not stated "
                            "(prompts, answers, batch)")
    stack = cells.text("engine").partition("(")[0].strip()
    base = serving_engines.quantised(model, dense, experts, stack)
    engine = serving_engines.parallel(cells, model, base)
    requests = float(LARGEST_BATCH * engine.dp)
    return ServingRow(
        id="", source=cells.text("source"), stack=stack, accelerator=machine.accelerator,
        shape=model,
        chip=serving_engines.chip(model, machine, dense, experts), engine=engine,
        traffic=Traffic(concurrency=requests, prompt_tokens=prompt, output_tokens=answer),
        measured={"throughput": _needed(cells, "value")}, per=float(engine.ranks))
