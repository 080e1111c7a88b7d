"""What one rank of a run does: meets the others, trains, and says how it ended."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.data.corpus import Corpus
from curbcut.errors import EXIT_FAILED, EXIT_OK, EXIT_RESUMABLE, CurbcutError
from curbcut.launch.environment import Seat
from curbcut.launch.watch import Patience
from curbcut.spec import Account, Resolved
from curbcut.train import lock
from curbcut.train.launches import RANKS

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.train.session import Observer
    from curbcut.train.start import Trained
    from curbcut.train.world import World

_PR_SET_PDEATHSIG = 1
COLLECTIVE_SECONDS = 600.0
"""How long a rank waits in one collective before it takes the others for lost. The launcher's
watch is faster; this is for ranks that something else started."""


@dataclass(frozen=True)
class Task:
    """What all ranks of a run train."""

    resolved: Resolved
    forecast: Account
    corpus: Corpus
    folder: Path
    leave_slow: bool = False
    """Whether a slow rank ends the attempt at a checkpoint, to be started again."""
    observers: Callable[[World], tuple[Observer, ...]] | None = None
    """More observers of each rank."""
    began: float | None = None
    """When this attempt began, on the system's clock of durations, where that was before."""
    beat_seconds: float = 0.5
    gather_steps: int = 20
    """Steps between two comparisons of the ranks' own speed."""
    collective_seconds: float = COLLECTIVE_SECONDS
    watched: bool = False
    """Whether a launcher of ours that forked this rank watches it; else the ranks do themselves."""
    patience: Patience | None = None
    """How long they wait then; None for the usual."""


def train(task: Task, seat: Seat, store: Any, console: Console) -> Trained:
    """Trains as the rank of `seat`; collective. Raises what `train_run` and `world.join` raise."""
    from curbcut.launch.guard import Guard
    from curbcut.launch.heart import Heart
    from curbcut.launch.pulse import Pulse
    from curbcut.train import faults, world
    from curbcut.train.session import device_of
    from curbcut.train.start import train_run

    run = task.resolved.run
    began = time.perf_counter() if task.began is None else task.began
    share_cores(run.machine.kind, run.machine.cores, seat.local_size)
    pulse = Pulse(task.folder / RANKS, seat.rank, seat.attempt, task.beat_seconds)
    pulse.start()
    guard = None if lock.launched() or task.watched else Guard(task.folder, seat, task.patience)
    try:
        if guard is not None:
            guard.start()
        place = world.join(run.recipe, device_of(run, seat.local_rank), seat.rank, seat.size,
                           seat.local_rank, store, task.collective_seconds)
        faults.reach("launch: joined", seat.rank, 0)
        heart = Heart(pulse, lambda text: console.print(f"  {text}", highlight=False, markup=False),
                      leave=task.leave_slow, every_steps=task.gather_steps)
        more = task.observers(place) if task.observers else ()
        trained = train_run(task.resolved, task.forecast, task.corpus, task.folder, console,
                            world=place, began=began, extra_observers=(heart, *more))
        world.leave(place)
        return trained
    finally:
        if guard is not None:
            guard.stop()
        pulse.stop()


def share_cores(kind: str, cores: int, local_size: int) -> int:
    """Gives this rank its part of the node's cores; returns its threads.

    On a GPU machine the host's threads only feed the device: torch's own choice is shared too, so
    that eight ranks do not each take all cores.
    """
    import torch

    usable = cores or os.cpu_count() or 1
    threads = max(1, usable // local_size)
    torch.set_num_threads(threads)
    return threads


def die_with_parent() -> None:
    """Lets this process be killed when the one that started it ends, however that ends (Linux)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended in between
        os._exit(EXIT_FAILED)


def last_words(folder: Path, rank: int) -> Path:
    """The file in which a rank says why it failed."""
    return folder / RANKS / f"rank-{rank:05d}.failed.json"


def exit_code_of(work: Callable[[], Trained], folder: Path, rank: int) -> int:
    """Runs `work`; what fails is left in the rank's last words. Returns the exit code."""
    try:
        trained = work()
    except CurbcutError as error:
        _leave_words(folder, rank, {"error": error.what, "where": error.where,
                                    "mend": error.mend, "code": error.exit_code})
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        first = (str(error).splitlines() or [""])[0]
        _leave_words(folder, rank, {"error": f"{type(error).__name__}: {first}",
                                    "code": EXIT_FAILED, "traceback": traceback.format_exc()})
        return EXIT_FAILED
    return EXIT_RESUMABLE if trained.stop.resumable else EXIT_OK


def _leave_words(folder: Path, rank: int, words: dict[str, Any]) -> None:
    with suppress(OSError):
        path = last_words(folder, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(words, indent=1), encoding="utf-8")


def read_last_words(folder: Path, rank: int) -> dict[str, Any]:
    """What a rank left; {} where it could not."""
    try:
        words = json.loads(last_words(folder, rank).read_text(encoding="utf-8"))
        return words if isinstance(words, dict) else {}
    except (OSError, ValueError):
        return {}
