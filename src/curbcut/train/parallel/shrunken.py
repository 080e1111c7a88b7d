"""Whether a recipe's layout gives the gradients of one process, before money is spent on it.

A method that loses a gradient often raises no error and lets the loss fall all the same. So the
recipe is tried on a small model of the same kind: few layers, narrow, each degree above 1 as 2, and
where that would be more than four ranks, each pair of degrees on its own. The gradient of every
parameter must be that of one process: in fp32 to rounding, and where the recipe's matmuls are
narrower, in bf16 to its coarser one.

The ranks are processes on this computer's CPU, whatever the run's machine. They are forked from a
fresh process that imports torch and uses nothing of it, so the caller may have threads and GPUs.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from curbcut.errors import CurbcutError
from curbcut.spec import Machine, ModelShape, Precision, Recipe, Run, TrainJob
from curbcut.train import gather, precision
from curbcut.train import world as worlds
from curbcut.train.parallel import build, compiled
from curbcut.train.world import World

MOST_RANKS = 4
SECONDS = 180.0
"""How long all layouts together may take before they count as hung."""
EXACT = 1e-4
"""Difference that fp32's roundings in another order may make, of a gradient's largest element."""
ROUNDED = 2.0 ** -4
"""The same in bf16 and below: 8 bits of mantissa, and room for sums of many terms."""
FLOOR = 1e-3
"""Share of the largest gradient of all parameters below which a gradient is roundings only."""
_KINDS = ("pp", "dp_replicate", "dp_shard", "cp", "tp")


@dataclass(frozen=True)
class Difference:
    """The first parameter, in the model's order, whose gradient is not that of one process."""

    parameter: str
    share: float
    """Largest difference of an element over the largest element that should be there."""


@dataclass(frozen=True)
class Checked:
    """What was tried and held."""

    layouts: tuple[str, ...]
    parameters: int
    """Gradients that were compared, over all layouts."""
    seconds: float


Answer = tuple[int, Difference | None]
"""Parameters compared, and the first that differs."""
Start = Callable[[Sequence[Run], float], list[Answer]]
"""Runs each on ranks of its own and says what came out; at most so many seconds."""


def check_gradients(run: Run, *, start: Start | None = None, seconds: float = SECONDS) -> Checked:
    """Tries the layout of `run` on shrunken models; returns what was tried.

    Raises CurbcutError naming the first parameter whose gradient is not that of one process, or
    what a rank failed with. Nothing is tried for a recipe of one rank. `start` brings the ranks up
    (default: from a fresh process).
    """
    begun, tried = time.monotonic(), shrunken(run)
    if not tried:
        return Checked((), 0, 0.0)
    answers = (start or from_fresh_process)(tried, seconds)
    for small, (_, difference) in zip(tried, answers, strict=True):
        if difference is not None:
            raise CurbcutError(
                f"the gradient of {difference.parameter} is not that of one process: it differs by "
                f"{difference.share:.0%} on a small model with {layout(small.recipe)}",
                where="recipe", mend="do not train with this layout; set one of these degrees to 1 "
                "(another one in its place), and report this recipe")
    return Checked(tuple(layout(small.recipe) for small in tried),
                   sum(count for count, _ in answers), time.monotonic() - begun)


def layout(recipe: Recipe) -> str:
    """Degrees above 1 and what changes how they are run, in words."""
    degrees = [f"{name} = {getattr(recipe, name)}" for name in (*_KINDS, "ep")
               if getattr(recipe, name) > 1]
    ways: list[str] = [recipe.precision]
    if recipe.pp > 1:
        ways.append(recipe.pipeline)
    return " x ".join(degrees) + f" ({', '.join(ways)})"


def shrunken(run: Run) -> list[Run]:
    """Small runs that try the layout of `run`; none for one rank."""
    kinds = [name for name in _KINDS if getattr(run.recipe, name) > 1]
    groups = list(itertools.combinations(kinds, 2)) if len(kinds) > 1 else [tuple(kinds)]
    precisions: list[Precision] = (
        ["fp32"] if run.recipe.precision in ("fp32", "tf32") else ["fp32", "bf16"])
    return [replace(run, name="shrunken", model=_shape(run, group),
                    recipe=_recipe(run.recipe, group, words))
            for group in groups if kinds for words in precisions]


def _shape(run: Run, group: Sequence[str]) -> ModelShape:
    """A small model of the same kind, whose parts divide as the large one's do."""
    shape, recipe = run.model, run.recipe
    folded = "pp" in group and recipe.pipeline in ("interleaved", "dualpipev")
    uneven = "pp" in group and shape.layers % recipe.pp and recipe.pipeline != "interleaved"
    layers = (4 if folded else 2) + bool(uneven)
    shared = shape.kv_heads == 1 or ("tp" in group and shape.kv_heads < recipe.tp)
    keys = 1 if shared else 4 if shape.kv_heads == shape.heads else 2
    experts: dict[str, Any] = {} if not shape.experts else {
        "experts": 4, "experts_per_token": min(2, shape.experts_per_token), "expert_ffn": 32,
        "shared_experts": min(1, shape.shared_experts), "dense_layers": min(1, shape.dense_layers)}
    odd = "tp" in group and bool(shape.vocab % recipe.tp)
    return replace(shape, preset="", layers=layers, width=64, heads=4, kv_heads=keys, head_size=16,
                   ffn=128, vocab=256 + odd, context_tokens=64, **experts)


def _recipe(recipe: Recipe, group: Sequence[str], words: Precision) -> Recipe:
    """The recipe with the degrees of `group` as 2, the others as 1, and small batches."""
    degrees: dict[str, Any] = {name: 2 if name in group else 1 for name in _KINDS}
    sharing = degrees["dp_shard"] * degrees["cp"]
    data = degrees["dp_replicate"] * degrees["dp_shard"]
    folded = recipe.pipeline in ("interleaved", "dualpipev")
    return replace(
        recipe, **degrees, ep=min(2, recipe.ep, sharing), precision=words, offload="none",
        virtual_stages=2 if "pp" in group and recipe.pipeline == "interleaved" else 1,
        sequence_parallel=recipe.sequence_parallel and "tp" in group, sequence_tokens=32,
        micro_batch=1, global_batch=data * (4 if "pp" in group and folded else 2),
        mup_base_width=32 if recipe.mup_base_width else 0, outer_steps=1)


def alone(run: Run) -> Run:
    """The same passes on one process: what each data rank had as a micro-batch, one by one."""
    return replace(run, recipe=replace(
        run.recipe, dp_replicate=1, dp_shard=1, tp=1, pp=1, cp=1, ep=1, sequence_parallel=False,
        pipeline="1f1b", virtual_stages=1, recompute="none", compile=False))


def compared(world: World, run: Run) -> Answer:
    """Compares the whole gradients of one step with one process's. Collective; rank 0 says."""
    many = _gradients(run, world)
    if not world.main:
        return 0, None
    wanted = _gradients(alone(run), World())
    tolerance = EXACT if run.recipe.precision == "fp32" else ROUNDED
    floor = FLOOR * max(float(one.abs().max()) for one in wanted.values())
    for name, one in wanted.items():
        largest = max(float(one.abs().max()), floor)
        ours = many.get(name, torch.zeros_like(one))
        share = (float((ours - one).abs().max()) / largest if ours.shape == one.shape
                 else float("inf"))
        if not share <= tolerance:
            return len(wanted), Difference(name, share)
    return len(wanted), None


def _gradients(run: Run, world: World) -> dict[str, torch.Tensor]:
    """Whole gradients of the first step by name, in the model's order; on rank 0."""
    _, weights, passes = build.build(run, world)
    random = torch.Generator().manual_seed(run.seed)
    tokens = torch.randint(run.model.vocab, (run.recipe.global_batch,
                                             run.recipe.sequence_tokens + 1), generator=random)
    mine = tokens.chunk(world.data_ranks)[world.data_rank]
    passes.gradients(mine[:, :-1].contiguous(), mine[:, 1:].contiguous())
    precision.reduce_gradients(weights)
    made = {name: master.grad for name, master in weights.masters.items()
            if master.grad is not None}
    return {name: one.float().clone() for name, one in gather.whole(made, world)}


def from_fresh_process(runs: Sequence[Run], seconds: float) -> list[Answer]:
    """See `Start`: ranks forked from a process that has done nothing with torch."""
    with tempfile.TemporaryDirectory(prefix="curbcut-") as name:
        folder = Path(name)
        asked = [{"model": asdict(run.model), "recipe": asdict(run.recipe), "seed": run.seed}
                 for run in runs]
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "curbcut.train.parallel.shrunken", name]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True,
                                  timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise CurbcutError(f"the small model took more than {seconds:.0f} seconds: ranks wait "
                               "for each other", where="recipe") from None
        failed = sorted(folder.glob("failed-*"), key=lambda one: one.stat().st_mtime_ns)
        if failed or done.returncode:
            # Ranks that miss the first one fail after it.
            said = (failed[0].read_text(encoding="utf-8") if failed
                    else (done.stderr.strip() or "no word").splitlines()[-1])
            raise CurbcutError(f"the small model failed: {said}", where="recipe")
        told = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return [(count, Difference(*first) if first else None) for count, first in told]


def main(folder: Path) -> int:
    """The fresh process: forks the ranks, ends with the first that fails."""
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    runs = [Run(name="shrunken", seed=one["seed"], model=ModelShape(**one["model"]),
                machine=Machine(name="here", accelerator="CPU", kind="cpu", memory_bytes=2**30,
                                memory_bytes_per_second={}, peak_flops={}, measured_flops={},
                                watts={}),
                recipe=Recipe(**one["recipe"]), train=TrainJob(tokens=1)) for one in asked]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, runs, folder))
             for rank in range(max(run.recipe.ranks for run in runs))]
    for one in ranks:
        one.start()
    while any(one.is_alive() for one in ranks) and not any(one.exitcode for one in ranks):
        time.sleep(0.02)
    failed = any(one.exitcode for one in ranks)
    for one in ranks:
        one.kill()
    return int(failed)


def _rank(rank: int, runs: Sequence[Run], folder: Path) -> None:
    """One rank through all layouts that need it."""
    try:
        torch.set_num_threads(1)
        compiled.BACKEND = "aot_eager"  # the same graphs and gradients, without a compiler's time
        answers = []
        for place, run in enumerate(runs):
            size = run.recipe.ranks
            if rank < size:
                store = dist.FileStore(  # type: ignore[attr-defined]
                    str(folder / f"store-{place}"), size)
                world = worlds.join(run.recipe, torch.device("cpu"), rank, size, rank, store)
                count, first = compared(world, run)
                answers.append([count, [first.parameter, first.share] if first else None])
                world.barrier()
                worlds.leave(world)
        if rank == 0:
            (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    except BaseException as error:
        said = f"rank {rank}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        (folder / f"failed-{rank}").write_text(said, encoding="utf-8")
        raise


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
