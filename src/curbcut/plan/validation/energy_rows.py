"""Rows of measured energy of inference as the nouns of serving: model, engine, chip, traffic.

A row says the model, its precision, the GPUs and how the model is cut over them, how many answers
are made together and how long they are. It does not say how long the prompts are: they are those
of its task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import presets
from curbcut.physics.constants import family
from curbcut.physics.serving_passes import ChipRates, Engine
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation import machines, serving_engines, shapes
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.score import Unexpressed
from curbcut.spec.nouns import Machine, ModelShape

COLUMNS = ("task", "model", "precision", "gpu", "n_gpus", "avg_batch", "avg_output_tokens",
           "j_per_output_token")
"""Columns by which the table is known."""
MEASURED = {"joules": "j_per_output_token", "watts": "avg_gpu_power_w"}
CHAT, REASONING, INFILL, IMAGE, VIDEO = TASKS = (
    "lm-arena-chat", "gpqa", "sourcegraph-fim", "image-chat", "video-chat")
ANSWER_TOKENS = {CHAT: 550.0, REASONING: 8000.0, INFILL: 250.0, IMAGE: 900.0, VIDEO: 500.0}
"""Tokens of a usual answer, where a row does not say: medians of rows that do, in round figures."""
_SEES = re.compile(r"\b(qwen3)-(?:vl|omni)-", re.I)
"""Models that see and hear: their language decoder is that of the plain one of the same size."""
_BLOCKED = re.compile(r"\bqwen3", re.I)
"""Published in fp8 by blocks of 128 x 128 with experts under grouped-query attention: their
experts' kernels work on whole tiles (see `energy_model`)."""
_FLEET = re.compile(r"(\d+)\s*x\s*(\S+)\s*(\S*)")
_BATCH = re.compile(r"batch\s*(\d+(?:\.\d+)?)", re.I)
_SIZED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z])(?:-a(\d+(?:\.\d+)?)b)?", re.I)
"""Billions of parameters in a model's name, and active ones: "Foo-30B-A3B"."""
_TWINS = {"DeepSeek-R1": "DeepSeek-V3", "DeepSeek-V3.1": "DeepSeek-V3",
          "Llama-3-8B": "Llama-3.1-8B", "Llama-3-70B": "Llama-3.1-70B",
          "Llama-3.3-70B": "Llama-3.1-70B", "Qwen3-Coder-30B-A3B": "Qwen3-30B-A3B"}
"""Presets of the same dimensions."""
USUAL_EXPERTS_PER_TOKEN, USUAL_HEADS = 8, 8
"""Of models that nobody knows: experts a token, and what their heads are a multiple of."""


@dataclass(frozen=True, kw_only=True)
class EnergyRow:
    """One measurement, ready to be predicted."""

    id: str
    name: str
    """The model as the row names it, without its owner."""
    task: str
    family: str
    """Of the accelerator, as constants know it."""
    shape: ModelShape
    engine: Engine
    chip: ChipRates
    accelerators: float
    tdp_watts: float
    """Rated power of one accelerator."""
    batch: float
    """Answers in the making, on average, over all ranks."""
    output_tokens: float
    blocked: bool
    """Whether experts are stored in fp8 by blocks, and run by kernels of whole tiles."""
    measured: Mapping[str, float]
    """`joules` an output token and `watts` of all accelerators, those that the row has."""
    precision: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """What is left out together: all rows of one shape, however tuned, stored or seeing."""
        return _TWINS.get(self.shape.preset, self.shape.preset) or self.name


def is_table(header: list[str]) -> bool:
    """Whether a table with such columns is one of measured energy of inference."""
    return set(COLUMNS) <= set(header)


def read(path: Path) -> tuple[list[EnergyRow], list[Unexpressed]]:
    """Rows, and those that cannot be expressed. Raises InputError for any other table."""
    header, lines = cells_of.read(path)
    if not is_table(header):
        missing = ", ".join(name for name in COLUMNS if name not in header)
        raise InputError(f"has no column {missing}", where=str(path),
                         mend="give the columns of a table of measured energy of inference")
    found: list[EnergyRow] = []
    left: list[Unexpressed] = []
    for number, line in enumerate(lines, 1):
        cells = Cells(line)
        try:
            found.append(row(cells, f"line {number}"))
        except CannotExpress as problem:
            left.append(Unexpressed(f"line {number}", _bare(cells.text("model")), str(problem)))
    return found, left


def row(cells: Cells, name: str) -> EnergyRow:
    """One line of the table. Raises CannotExpress."""
    count = cells.whole("n_gpus") or 1
    shape, machine = _shape(cells), _machine(cells)
    dense = experts = serving_engines.precision(cells, "precision")
    if shape.preset.startswith("gpt-oss"):
        dense, experts = "bf16", "fp4"
    elif dense == "fp4" and not shape.experts:
        experts = dense
    engine = _engine(cells, shape, count, dense, experts)
    task = cells.text("task").casefold()
    if task not in TASKS:
        cells.assume(f"task {task or 'not given'!r}: prompts as those of {CHAT}")
        task = CHAT
    output = cells.positive("avg_output_tokens")
    if output is None:
        output = ANSWER_TOKENS[task]
        cells.assume(f"answers of {output:g} tokens, usual of {task}")
    batch = cells.positive("avg_batch") or cells.positive("max_num_seqs")
    if batch is None:
        raise CannotExpress("neither avg_batch nor max_num_seqs is a number above 0")
    measured = {key: cells.positive(column) for key, column in MEASURED.items()}
    return EnergyRow(
        id=name, name=_bare(cells.text("model")), task=task, family=family(machine.accelerator),
        shape=shape, engine=engine, chip=serving_engines.chip(shape, machine, dense, experts),
        accelerators=float(count), tdp_watts=machine.watts["max"], batch=batch,
        output_tokens=output, precision=cells.text("precision"),
        blocked=bool(experts == "fp8" and shape.experts and shape.attention != "mla"
                     and _BLOCKED.search(cells.text("model"))),
        measured={key: value for key, value in measured.items() if value is not None},
        assumed=tuple(cells.assumed))


def published(line: Mapping[str, str]) -> Cells:
    """A line of published figures (name, hardware, quantity, energy) as a line of the table.
    Raises CannotExpress.
    """
    cells = Cells(line)
    if not cells.text("energy_unit").casefold().startswith("j/"):
        raise CannotExpress(f"energy in {cells.text('energy_unit') or 'no unit'}, not in J a token")
    model, _, task = cells.text("name").rpartition(" ")
    fleet = _FLEET.match(cells.text("hardware"))
    batch = _BATCH.search(cells.text("quantity"))
    if not fleet or not batch or not model:
        raise CannotExpress("name, hardware and quantity are not read: give them as in "
                            "'Llama-3.1-8B-Instruct lm-arena-chat', '1x H100 bfloat16' and "
                            "'avg batch 8'")
    watts = re.search(r"(\d+(?:\.\d+)?) W\b", cells.text("note"))
    return Cells({"task": task, "model": model, "n_gpus": fleet[1], "gpu": fleet[2],
                  "precision": fleet[3], "avg_batch": batch[1],
                  "j_per_output_token": cells.text("energy"),
                  "avg_gpu_power_w": watts[1] if watts else ""})


def _bare(name: str) -> str:
    return name.strip().rpartition("/")[2]


def _machine(cells: Cells) -> Machine:
    machine = machines.accelerator(cells, cells.text("gpu"))
    if not machine.watts.get("max"):
        raise CannotExpress(f"no rated power of {machine.accelerator} is known")
    return machine


def _shape(cells: Cells) -> ModelShape:
    """The preset that the name means, else a usual shape of its total and active parameters."""
    name = _bare(cells.text("model"))
    plain = _SEES.sub(r"\1-", name)
    preset = presets.find(plain)
    found: dict[str, Any] = presets.shape(preset) if preset else shapes.preset(plain)
    if found:
        if plain != name:
            cells.assume(f"the language decoder of {found['preset']}")
        return ModelShape(**found)
    total, active = (cells.positive(f"{kind}_params_b") for kind in ("total", "active"))
    sized = _SIZED.search(plain) if total is None else None
    if sized:
        total, active = float(sized[1]), float(sized[2]) if sized[2] else None
        cells.assume(f"parameters from the name {name!r}")
    if total is None:
        raise CannotExpress(f"no preset is called {name!r}, and no total_params_b is given")
    return _usual(cells, name, total * 1e9, (active or total) * 1e9)


def _usual(cells: Cells, name: str, total: float, active: float) -> ModelShape:
    """A usual decoder of such size; with experts where fewer parameters are active than in all."""
    layers, width = shapes.usual_sizes(active)
    heads = USUAL_HEADS * max(1, round(width / shapes.ASPECT / USUAL_HEADS))
    plain: dict[str, Any] = {
        "preset": "", "layers": layers, "width": width, "heads": heads, "kv_heads": USUAL_HEADS,
        "head_size": shapes.ASPECT, "ffn": 256 * round(8 * width / 3 / 256) or 256,
        "vocab": 128_256}
    if total > 1.2 * active:
        bare = ModelShape(**plain | {"ffn": 1})
        fixed = bare.parameters
        each = max(active - fixed, 0.1 * active) / (
            3.0 * width * layers * USUAL_EXPERTS_PER_TOKEN)
        plain |= {"experts": max(USUAL_EXPERTS_PER_TOKEN, round(
            USUAL_EXPERTS_PER_TOKEN * (total - fixed) / max(active - fixed, 0.1 * active))),
            "experts_per_token": USUAL_EXPERTS_PER_TOKEN, "expert_ffn": max(1, round(each))}
    cells.assume(f"a usual shape of its size: no preset is called {name!r}")
    return ModelShape(**plain)


def _engine(cells: Cells, shape: ModelShape, count: int, dense: str, experts: str) -> Engine:
    """Attention is cut over the GPUs of one replica, experts too unless they are spread: rows
    that state expert parallelism alone state what vLLM does with tensor parallelism of as many.
    The cache is 16 bits wide, vLLM's default.
    """
    dp = cells.positive("dp") or 1.0
    ep = (cells.positive("ep") or 1.0) if shape.experts else 1.0
    ranks = max(1.0, count / dp)
    if shape.heads % ranks:
        raise CannotExpress(f"{shape.heads} heads cannot be cut over {ranks:g} GPUs")
    if count % ep:
        raise CannotExpress(f"experts cannot be spread over {ep:g} of {count} GPUs")
    width = serving_engines.WEIGHT_BYTES
    return Engine(tp=ranks, dp=dp, ep=ep, moe_tp=count / ep, dense_bytes=width[dense],
                  expert_bytes=width[experts], cache_bytes=2.0, compiled=True)
