"""The rules by which a plan sets what nobody said. Numbers to tune live here and nowhere else.

Each rule is a named constant or a short function with its source beside it. Those marked *small*
steer runs of minutes on a CPU, far below the range of the published laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from curbcut.physics import goodput, memory
from curbcut.spec.nouns import Machine, ModelShape, Precision, Recipe

DEFAULT_NAME = "run"
DEFAULT_SECONDS = 285.0
"""Limit of training time where nothing at all was said: planned for four minutes of it."""
LIMIT_MARGIN = 0.85
"""Share of a limit that is planned for: forecasts err by a tenth, and a run that is cut off before
its learning rate has fallen is worth much less than a shorter one that is not."""
UNSURE_MEMORY = 1.02
"""Plans whose peak may not fit (the upper end of its interval does not) count as so much slower:
one that surely fits is taken where it costs less."""

TOKENS_PER_PARAMETER = 20
"""Training-optimal tokens a parameter (Hoffmann et al. 2022, arXiv:2203.15556)."""
MAX_EPOCHS = 4
"""Repeats up to here lose next to nothing (Muennighoff et al. 2023, arXiv:2305.16264)."""

LEAST_PARAMETERS = 4_000_000
LEAST_LAYERS = 4
"""*Small*: the search does not go below these; the laws would, and are not fitted there. A 4M
decoder of 4 layers reached 1.00 bits/byte of Python in 3.2M tokens."""
ASPECT_RATIOS = (32, 64, 96, 128)
"""Width over layers that the search tries; loss is flat over a wide range (arXiv:2001.08361)."""

VOCAB_BY_FLOPS = ((1e15, 4096), (1e17, 8192), (1e20, 32768))
"""*Small*: entries of the vocabulary by training FLOPs, up to each bound."""
LARGEST_VOCAB = 65536

SMALL_PARAMETERS = 100_000_000
SMALL_SEQUENCE = 256
"""*Small*: tokens a sequence below `SMALL_PARAMETERS` on a CPU."""
SEQUENCE = 2048

BF16_ADVANTAGE = 1.3
"""bf16 is chosen where its matmul rate beats fp32 by this factor: it costs casts and masters."""
MATH_ATTENTION_TOKENS = 1024
"""On a CPU, attention that holds its scores is faster up to this length (measured +13% at 512)."""

MICRO_BATCH_TOKENS = {"cpu": 2048, "gpu": 32768}
"""Tokens that a rank computes at once: on a CPU 4 x 512 was fastest of 1, 2, 4 and 8 x 512."""

LEAST_LEARNING_RATE, MOST_LEARNING_RATE = 1e-4, 6e-3
LEAST_STEPS = 200
"""*Small*: a step is made smaller rather than take fewer of them."""

MUON_BATCH = 1.5
"""*Small*: Muon's own matmuls cost 28% more time at 2,048 tokens a step (4M decoder) and 15% at
4,096."""

CHECKPOINT_SECONDS = 120.0
"""Seconds of training between checkpoints of short runs."""
LONG_CHECKPOINT_SECONDS = 1800.0
EVALUATIONS = 5
"""Evaluations spread over a run, the last one at its end."""
GLANCE_TOKENS = 16_384
"""Held-out tokens that an evaluation on the way looks at."""
HELD_OUT_TOKENS = 190_000
"""Held-out tokens while nothing is known about the text: a fiftieth of Python's library."""
LAST_PASSES = 2.0
"""Times that the last evaluation reads all held-out tokens: its windows overlap by half."""
FORWARD_SHARE = 0.28
"""Time of a forward pass beside a training step's, a token."""
DISK_BYTES_PER_SECOND = 500e6
"""Rate at which a checkpoint is written, hashed and synced: 840 MB/s measured on one virtual disk;
x3 either way."""
MASTER_BYTES = 4.0
"""The fp32 master of a parameter."""
COPY_BYTES_PER_SECOND = 5e9
"""Rate at which a background save copies what it will write: within one memory, or from an
accelerator to its host's; assumed, x3 either way."""
SAVE_SECONDS = 0.02
"""To begin and end a checkpoint, whatever its size."""
BATCH_SECONDS_PER_TOKEN = 8e-8
"""Drawing a batch from mapped tokens: 0.3 to 0.4 ms measured for 16 x 256 between real steps
(0.05 ms one after the other, with all of it in cache)."""
RUN_BYTES = 160 * 2**20
"""What a run's process holds on a CPU beside its steps (text, tokenizer, evaluation, checkpoint):
two runs of the whole circle peaked 140 and 180 MiB above what their steps alone take."""
COMPILE_SECONDS = 68.0
COMPILE_SPREAD = 1.5
"""What the first compiled steps take beyond others: 63 to 77 s measured on a CPU for a 30M decoder
with an empty cache, 18 s with a full one. On GPUs it is assumed to be alike."""
COMPILE_GAIN = 0.16
"""Speed that compiled blocks gain on GPUs (torchtitan's 8B on 8 H100: levers.csv). On CPUs with our
own attention, norm and loss nothing was gained (30M decoder, bf16: 1,320 to 1,509 tokens/s)."""
ROUGH_MFU = 0.4
"""Utilisation that tells long runs from short ones before a layout is priced."""
START_SECONDS = 0.1
"""Building the model and writing the export: 0.05 s measured for 4M parameters; x5 either way."""


def precision(machine: Machine) -> tuple[Precision, str]:
    """bf16 where it is clearly faster than fp32, else fp32; and why."""
    rates, kind = machine.measured_flops, "measured"
    if not rates:
        rates, kind = machine.peak_flops, "peak"
    if not rates.get("bf16"):
        return "fp32", "no bf16 rate is known"
    if not rates.get("fp32"):
        return "bf16", "no fp32 rate is known"
    ratio = rates["bf16"] / rates["fp32"]
    chosen: Precision = "bf16" if ratio > BF16_ADVANTAGE else "fp32"
    return chosen, f"{kind} bf16 matmuls run at {ratio:.1f} x fp32"


def optimiser(machine: Machine) -> tuple[Literal["adamw", "muon"], str]:
    """Muon where its matmuls are cheap: it learns more from each token (see docs/log.md)."""
    if precision(machine)[0] == "fp32" and machine.kind == "cpu":
        return "adamw", "Muon's matmuls are in bf16, which is slow here"
    return "muon", "learns more a token than AdamW (Liu et al. 2025, arXiv:2502.16982; docs/log.md)"


def compiles(kind: str, seconds: float) -> tuple[bool, str]:
    """Whether blocks are compiled in a run whose steps take so long without; and why."""
    if kind != "gpu":
        return False, "compiled blocks were not faster on CPUs (measured)"
    saved = seconds * COMPILE_GAIN / (1 + COMPILE_GAIN)
    if saved <= COMPILE_SECONDS:
        return False, f"compiling takes {COMPILE_SECONDS:.0f} s and would save {saved:.0f} s"
    return True, f"compiling takes {COMPILE_SECONDS:.0f} s and saves {saved:.0f} s at least"


def rough_seconds(shape: ModelShape, recipe: Recipe, machine: Machine, tokens: float) -> float:
    """Seconds of training before any layout is known: 6 N D at `ROUGH_MFU` of the peak."""
    rates = {**machine.peak_flops, **machine.measured_flops}
    peak = rates.get(recipe.precision) or max(rates.values(), default=1e12)
    return 6 * shape.active_parameters * tokens / (ROUGH_MFU * peak * machine.accelerators)


def vocab(training_flops: float) -> int:
    """Entries of the vocabulary for a run of so many FLOPs."""
    return next((size for bound, size in VOCAB_BY_FLOPS if training_flops <= bound), LARGEST_VOCAB)


def sequence_tokens(machine: Machine, shape: ModelShape) -> int:
    """Tokens a sequence: short for small models on a CPU, never beyond the model's context."""
    small = machine.kind == "cpu" and shape.parameters < SMALL_PARAMETERS
    return min(shape.context_tokens, SMALL_SEQUENCE if small else SEQUENCE)


def batch_tokens(tokens: int, optimiser: str = "adamw") -> float:
    """Tokens an optimiser step: 0.58 D^0.571 (Step Law, Li et al. 2025, arXiv:2503.04715), and no
    more than leaves `LEAST_STEPS` steps; `MUON_BATCH` times that with Muon.
    """
    wanted = 0.58 * tokens ** 0.571 * (MUON_BATCH if optimiser == "muon" else 1)
    return min(float(wanted), tokens / LEAST_STEPS)


def learning_rate(shape: ModelShape, tokens: int) -> float:
    """Peak learning rate: 1.79 N^-0.713 D^0.307 with N without embeddings (Step Law, as above),
    held within bounds and rounded to two digits.
    """
    inner = max(1, shape.parameters - shape.embedding_parameters)
    rate = 1.79 * inner ** -0.713 * tokens ** 0.307
    return float(f"{min(MOST_LEARNING_RATE, max(LEAST_LEARNING_RATE, rate)):.1e}")


def held_bytes(shape: ModelShape, recipe: Recipe, kind: str) -> Mapping[str, float]:
    """Bytes by kind of a whole run on its fullest rank: those of a step, and on a CPU, where all
    shares one memory, `RUN_BYTES` of overhead and the copies that a background save writes from.
    """
    parts = dict(memory.training(shape, recipe, kind))
    if kind == "cpu":
        copies = saved_bytes(shape, recipe) if recipe.checkpoint_async else 0.0
        parts["overhead"] += RUN_BYTES + copies
        parts["peak"] += RUN_BYTES + copies
    return parts


def sure_bytes(machine: Machine, spread: float) -> float:
    """The largest peak, in the middle of an interval of `spread` either way, that surely fits."""
    return min(float(memory.available(machine)), machine.memory_bytes / spread)


def saved_bytes(shape: ModelShape, recipe: Recipe) -> float:
    """Bytes of a checkpoint that a rank writes: fp32 masters, the optimiser's moments, and the mean
    of the weights where one is kept. What several ranks hold is dealt out among them.
    """
    mean = memory.MEAN_BYTES if recipe.ema_decay else 0.0
    each = MASTER_BYTES + memory.moment_bytes(shape, recipe) + mean
    return float(each * shape.parameters / recipe.ranks)


def save_seconds(shape: ModelShape, recipe: Recipe) -> float:
    """Seconds of one checkpoint, all ranks writing at the same time."""
    return SAVE_SECONDS + saved_bytes(shape, recipe) / DISK_BYTES_PER_SECOND


def stall_seconds(shape: ModelShape, recipe: Recipe) -> float:
    """Seconds that training waits for a checkpoint on its way: for all of it, or for a copy."""
    if not recipe.checkpoint_async:
        return save_seconds(shape, recipe)
    return SAVE_SECONDS + saved_bytes(shape, recipe) / COPY_BYTES_PER_SECOND


def steps_apart(shape: ModelShape, recipe: Recipe, step_seconds: float,
                accelerators: int) -> int:
    """Steps between checkpoints as training makes them: as many as were said, or fewer by Young's
    interval, which is never shorter than what a save keeps waiting.
    """
    if recipe.checkpoint_interval != "young" or not step_seconds:
        return recipe.checkpoint_every_steps
    stall = stall_seconds(shape, recipe)
    best: float = max(stall, goodput.young(stall, goodput.interruption_seconds(accelerators)))
    return max(1, min(recipe.checkpoint_every_steps, round(best / step_seconds)))


def checkpoint_steps(steps: int, step_seconds: float, saving: float, accelerators: int) -> int:
    """Steps between checkpoints that take `saving` seconds: by the clock, rarer in runs of more
    than five hours, and as often as Daly's interval says where so many accelerators fail.
    """
    apart = CHECKPOINT_SECONDS if steps * step_seconds < 18_000 else LONG_CHECKPOINT_SECONDS
    best: float = goodput.daly(saving, goodput.interruption_seconds(accelerators))
    return max(1, min(steps, round(min(apart, best) / step_seconds)))
