"""Several ranks in one test: forked from this process, so torch is imported once.

A rank is a process with one thread that meets the others over gloo through a file. No tensor work
is done in the parent before it forks: threads of the parent's pools do not live on in a child.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo
import torch._inductor.compile_fx
import torch.distributed as dist

from curbcut.spec import Run
from curbcut.train import gather, world
from curbcut.train.loop import take_step
from curbcut.train.session import Session, open_session


def _child(work, recipe, rank, size, store, told, args):
    os.environ.update(OMP_NUM_THREADS="1")
    try:
        torch.set_num_threads(1)
        place = world.join(recipe, torch.device("cpu"), rank, size, rank,
                           dist.FileStore(store, size), timeout_seconds=30.0)
        told.put((rank, True, work(place, *args)))
        place.barrier()
        world.leave(place)
    except BaseException:
        told.put((rank, False, traceback.format_exc()))
    finally:
        told.close()
        told.join_thread()
        os._exit(0)


STUCK_SECONDS = 60.0
"""By then one rank has answered, unless all were stuck from their fork on."""


def spawn(work: Callable[..., Any], recipe, *args: Any, timeout: float = 120.0) -> list[Any]:
    """Runs `work(world, *args)` on `recipe.ranks` forked ranks; what each returned, by rank.

    Fails with the traceback of the first rank that failed, or when `timeout` seconds passed. A
    test's process has threads of servers that were tested before; once in thousands of forks one of
    them holds a lock that no rank can ever get: then the ranks are started once more.
    """
    results = _spawned(work, recipe, args, min(timeout, STUCK_SECONDS))
    if results is None:
        results = _spawned(work, recipe, args, timeout)
    assert results is not None and len(results) == recipe.ranks, \
        f"only ranks {sorted(results or ())} of {recipe.ranks} answered"
    return [results[rank] for rank in range(recipe.ranks)]


def _spawned(work: Callable[..., Any], recipe, args: tuple[Any, ...],
             timeout: float) -> dict[int, Any] | None:
    """What ranks returned; None where all of them live and none has said a word."""
    size = recipe.ranks
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    store = str(Path(tempfile.mkdtemp()) / "store")
    children = [context.Process(target=_child, args=(work, recipe, rank, size, store, told, args))
                for rank in range(size)]
    for child in children:
        child.start()
    results, failed, begin = {}, "", time.monotonic()
    while len(results) < size and not failed and time.monotonic() - begin < timeout:
        try:
            rank, good, value = told.get(timeout=0.5)
        except queue.Empty:
            if not any(child.is_alive() for child in children):
                break
            continue
        if good:
            results[rank] = value
        else:
            failed = f"rank {rank}:\n{value}"
    stuck = not results and not failed and all(child.is_alive() for child in children)
    for child in children:
        child.join(0.2 if failed or stuck else 2.0)
        if child.is_alive():
            child.kill()
    if failed:
        raise AssertionError(failed)
    return None if stuck else results


@dataclass(frozen=True)
class Trace:
    """What one layout of a run did: loss and whole gradient (clipped) of each step."""

    losses: list[float]
    gradients: list[dict[str, np.ndarray]]
    weights: dict[str, np.ndarray]


def _trace(place: world.World, run: Run, corpus, steps: int,
           change: Callable[[Session], None] | None) -> Trace:
    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account

    session = open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                           world=place)
    if change is not None:
        change(session)
    seen: list[dict[str, np.ndarray]] = []
    step = session.updater.step

    def watched(rate: float) -> None:
        grads = {n: m.grad for n, m in session.weights.masters.items() if m.grad is not None}
        seen.append(_arrays(grads, place))
        step(rate)

    object.__setattr__(session.updater, "step", watched)
    losses = [take_step(session).loss for _ in range(steps)]
    masters = {n: m.data for n, m in session.weights.masters.items()}
    return Trace(losses, seen, _arrays(masters, place))


def _arrays(tensors, place):
    return {n: t.float().numpy().copy() for n, t in gather.whole(tensors, place) if place.main}


def trace(run: Run, corpus, steps: int = 10,
          change: Callable[[Session], None] | None = None) -> Trace:
    """Takes `steps` of `run` on as many forked ranks as its recipe has; the trace of rank 0."""
    return spawn(_trace, run.recipe, run, corpus, steps, change)[0]


def alone(run: Run) -> Run:
    """The same training on one process: what each data rank had as a micro-batch comes after
    another.
    """
    return replace(run, recipe=replace(
        run.recipe, dp_replicate=1, dp_shard=1, tp=1, pp=1, cp=1, ep=1, sequence_parallel=False,
        virtual_stages=1, recompute="none", offload="none", compile=False))


def assert_equal(many: Trace, one: Trace, tolerance: float = 1e-5) -> None:
    """Losses and every gradient of every step agree to `tolerance` (relative to the largest
    element of a gradient).
    """
    np.testing.assert_allclose(many.losses, one.losses, rtol=tolerance, atol=0)
    for step, (ours, theirs) in enumerate(zip(many.gradients, one.gradients, strict=True)):
        assert sorted(ours) == sorted(theirs)
        for name, wanted in theirs.items():
            worst = np.abs(ours[name] - wanted).max()
            assert worst <= tolerance * max(np.abs(wanted).max(), 1e-3), (
                f"step {step}: gradient of {name} differs by {worst:.2e}")
