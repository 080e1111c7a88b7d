"""A short probe of the real step: which micro-batch is fastest here, and how fast it is.

The plan asks for it before the recipe is settled, so training itself never chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from curbcut.errors import InputError
from curbcut.meter.clock import Clock
from curbcut.model.decoder import Decoder
from curbcut.spec import Run
from curbcut.train import optimiser, precision, transfer
from curbcut.train.allocator import keep_large_blocks
from curbcut.train.parallel import build as parallel
from curbcut.train.session import device_of
from curbcut.train.world import World

SECONDS = 8.0
"""Time for all candidates together."""
MIN_REPEATS = 2


def candidates(run: Run) -> list[int]:
    """Micro-batches worth trying: the global batch and its halves, down to an eighth."""
    batch = run.recipe.global_batch // (run.recipe.dp_replicate * run.recipe.dp_shard)
    return [batch // part for part in (1, 2, 4, 8) if batch % part == 0 and batch // part >= 1]


def step_rates(run: Run, clock: Clock, seconds: float = SECONDS) -> dict[int, float]:
    """Measured tokens/s of a whole optimiser step on one rank, by micro-batch.

    Runs the real model, loss and optimiser on random tokens. A candidate that runs out of memory
    is left out; raises InputError when none is left.
    """
    device = device_of(run)
    keep_large_blocks()
    model, weights, _ = parallel.build(_alone(run),
                                       World(device=device))
    updater = optimiser.updater(weights.masters, run.recipe,
                                transfer.ratio(run.model, run.recipe))
    tried = candidates(run)
    rates: dict[int, float] = {}
    for micro in tried:
        recipe = replace(run.recipe, micro_batch=micro)
        attempt = replace(run, recipe=recipe)
        pass_seconds = _timed_if_it_fits(partial(_pass, model, weights, attempt, device), clock,
                                         0.8 * seconds / len(tried), device)
        if pass_seconds is not None:
            # Once: the sums are the masters' gradients from then on, and stay while it is timed.
            precision.reduce_gradients(weights)
            update_seconds = _timed(partial(_update, updater, weights, attempt), clock,
                                    0.2 * seconds / len(tried), device)
            step_seconds = recipe.accumulation * pass_seconds + update_seconds
            rates[micro] = recipe.step_tokens / recipe.dp_replicate / step_seconds
    if not rates:
        raise InputError("not even the smallest micro-batch fits in memory", where="recipe",
                         mend="choose a smaller model or recipe.sequence_tokens")
    return rates


def _alone(run: Run) -> Run:
    """The same run as one rank has it that shares nothing."""
    return replace(run, recipe=replace(
        run.recipe, dp_replicate=1, dp_shard=1, tp=1, pp=1, cp=1, ep=1, virtual_stages=1,
        sequence_parallel=False))


def _pass(model: Decoder, weights: precision.Weights, run: Run, device: torch.device) -> None:
    shape = (run.recipe.micro_batch, run.recipe.sequence_tokens)
    tokens = torch.randint(run.model.vocab, shape, device=device)
    torch.autograd.backward(model(tokens, targets=tokens))
    precision.collect_gradients(weights)


def _update(updater: optimiser.Updater, weights: precision.Weights, run: Run) -> None:
    torch.nn.utils.clip_grad_norm_(weights.masters.values(), 1.0)
    updater.step(run.recipe.learning_rate)
    precision.publish_masters(weights)


def _timed(work: Callable[[], None], clock: Clock, seconds: float, device: torch.device) -> float:
    """Median seconds of `work`, after one warm-up, repeated for about `seconds`.

    A lower quartile promised 13% more speed than minutes of training then had; the median 4%.
    """
    work()
    taken: list[float] = []
    begin = clock.seconds()
    while len(taken) < MIN_REPEATS or clock.seconds() - begin < seconds:
        _wait(device)
        start = clock.seconds()
        work()
        _wait(device)
        taken.append(clock.seconds() - start)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed_if_it_fits(work: Callable[[], None], clock: Clock, seconds: float,
                      device: torch.device) -> float | None:
    """Like `_timed`; None when memory runs out."""
    try:
        return _timed(work, clock, seconds, device)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        torch.cuda.empty_cache()
        return None
    except RuntimeError as error:
        # The CPU allocator reports exhaustion as a plain RuntimeError.
        if "can't allocate memory" in str(error):
            return None
        raise
