"""Starts a run's ranks on this computer, watches them, and starts them again after a fault.

Ranks on CPUs are forked from this process, which has imported everything: they run within a
fraction of a second. It must not have used torch's threads before (a copy of a process has only
the thread that made it). Ranks on GPUs are fresh processes, since CUDA does not survive a fork.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from curbcut.errors import EXIT_BAD_INPUT, CurbcutError, InputError
from curbcut.launch import pulse, ranks, watch
from curbcut.launch.crew import Crew
from curbcut.launch.environment import Seat, store
from curbcut.launch.pulse import Beat
from curbcut.launch.ranks import Task
from curbcut.launch.watch import Patience
from curbcut.train import folder as run_folders
from curbcut.train import launches, lock
from curbcut.train.launches import RANKS, Fault, Launch

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.spec import Account

STALLS = 3
"""Launches on end that save nothing more, after which a run is given up."""
POLL_SECONDS = 0.1
BACKOFF_SECONDS = 0.5
LARGE_SECONDS = 3600.0
"""Promised seconds from which a minute of checking the layout's gradients is well spent."""
FALL_SECONDS = 1.0
"""How long the others may still say why they failed, once one has ended in disorder."""


@dataclass(frozen=True)
class Finished:
    """How a run on several ranks ended."""

    reason: str
    resumable: bool
    account: Account | None
    """What was measured; None where it was stopped before anything was."""
    steps: int


@dataclass
class _Signals:
    """What was asked of the launcher: the first signal stops in order, the second at once."""

    asked: list[int] = field(default_factory=list)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.asked.append(number)


def train(task: Task, console: Console, patience: Patience | None = None) -> Finished:
    """Trains `task` on as many ranks of this computer as its recipe has, to its end or to a stop.

    A rank that dies, fails or hangs is named; all others are ended, and the run is launched again
    from its newest checkpoint. Raises RunBusy when somebody else trains it, what a rank says of bad
    input, and CurbcutError naming the fault after `STALLS` launches that saved nothing more.
    """
    patience, run, run_folder = patience or Patience(), task.resolved.run, task.folder
    refuse_machine(run.machine.nodes, run.recipe.ranks, run.machine.accelerators_per_node)
    with lock.held(run_folder), _signals() as signals:
        done, stalls = launches.read(run_folder), 0
        if not done or done[-1].started < settled_time(run_folder):
            check_layout(task, console)
        while True:
            launch = _attempt(task, done, signals, patience, console)
            done.append(launch)
            launches.record(run_folder, done)
            if launch.outcome in ("done", "stopped"):
                return _finished(run_folder, launch)
            fault = launch.fault
            assert fault is not None
            launches.alert(run_folder, fault)
            stalls = 0 if launch.saved_step > launch.first_step else stalls + 1
            if stalls >= STALLS:
                raise CurbcutError(
                    f"{stalls} launches on end saved nothing more; the last one: {fault}",
                    where=str(run_folder), mend=f"see {run_folder / RANKS} for what the ranks "
                    "said; the same command goes on from the newest checkpoint")
            console.print(f"  {fault.kind}: {fault}; all other ranks were ended; launching again "
                          f"from step {launch.saved_step}", highlight=False, markup=False)
            time.sleep(BACKOFF_SECONDS * stalls)


def check_layout(task: Task, console: Console) -> None:
    """Before a run of hours: are its recipe's gradients, on a shrunken model, those of one process?

    Raises CurbcutError naming the parameter whose gradient is not.
    """
    promised = task.forecast.get("seconds", "total")
    if promised is None or (promised.value or 0.0) < LARGE_SECONDS:
        return
    from curbcut.train.parallel.shrunken import check_gradients

    console.print("  checking this layout's gradients against one process, on a small model ...",
                  style="dim")
    found = check_gradients(task.resolved.run)
    console.print(f"  equal in {found.seconds:.0f} s: {'; '.join(found.layouts)}", style="dim",
                  highlight=False, markup=False)


def settled_time(run_folder: Path) -> float:
    """When the run in a folder got the layout that it has: seconds since 1970."""
    return (run_folder / "run.toml").stat().st_mtime


def refuse_machine(nodes: int, wanted: int, here: int) -> None:
    """Raises InputError where one computer cannot hold the run's ranks."""
    if nodes > 1:
        raise InputError(f"the run is for {nodes} nodes and this is one of them",
                         where="machine.nodes", mend="start it on each node: torchrun --nnodes "
                         f"{nodes} --nproc-per-node {here} --rdzv-backend c10d --rdzv-endpoint "
                         "HOST:29500 -m curbcut train RUN.TOML")
    if wanted > here:
        raise InputError(f"the recipe is for {wanted} ranks and the machine has {here} "
                         "accelerators", where="recipe",
                         mend=f'plan with machine.name = "{wanted}xhere"')


def _attempt(task: Task, before: list[Launch], signals: _Signals, patience: Patience,
             console: Console) -> Launch:
    """One launch of all ranks, to their common end."""
    number, started = len(before) + 1, time.time()
    if before or task.began is None:
        task = replace(task, began=time.perf_counter())
    first, size = newest_step(task.folder), task.resolved.run.recipe.ranks
    crew, served = Crew(), _serve_store()
    for old in (task.folder / RANKS).glob("rank-*"):
        old.unlink(missing_ok=True)
    try:
        _start(task, crew, Seat(0, size, 0, size, "127.0.0.1", served.port, number, True), console)
        fault = _watched(task.folder, number, crew, signals, patience)
    finally:
        crew.end()
    _refuse_again(task.folder, crew.codes)
    codes = set(crew.codes.values())
    if signals.asked:
        fault, outcome = None, "done" if codes == {0} and len(crew.codes) == size else "stopped"
    else:
        fault = fault or (_slow_again(task, started) if 75 in codes else None)
        outcome = "fault" if fault else "stopped" if 75 in codes else "done"
    beats = [beat for beat in _beats(task.folder, range(size), number).values() if beat]
    return _launch(Launch(number, started, time.time(), first, first, newest_step(task.folder),
                          outcome, fault), beats, before)


def _launch(plain: Launch, beats: list[Beat], before: list[Launch]) -> Launch:
    """With what the last beats and the launch before tell of steps and lost seconds."""
    moved = max((beat.moved_time for beat in beats), default=plain.started)
    again = bool(before) and before[-1].outcome == "fault"
    return replace(
        plain, last_step=max((beat.step for beat in beats), default=plain.first_step),
        unnoticed_seconds=max(0.0, plain.ended - moved) if plain.fault else 0.0,
        down_seconds=max(0.0, plain.started - before[-1].ended) if again else 0.0)


def _serve_store() -> Any:
    """A meeting place for one attempt, on a free port of this computer."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False,
                    timeout=timedelta(seconds=60))


def _start(task: Task, crew: Crew, seat: Seat, console: Console) -> None:
    run = task.resolved.run
    for rank in range(seat.size):
        own = replace(seat, rank=rank, local_rank=rank)
        if run.machine.kind == "gpu":
            crew.start(rank, [sys.executable, "-m", "curbcut", "train", run.name, "--runs",
                              str(task.folder.parent)], own)
        else:
            crew.fork(rank, lambda own=own: _work(task, own, console))  # type: ignore[misc]


def _work(task: Task, seat: Seat, console: Console) -> int:
    """A forked rank, from its start to its exit code."""
    if sys.platform == "linux":
        # All ranks are here: no name has to be looked up, and no firewall is in between.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not seat.main:
        console.quiet = True
    return ranks.exit_code_of(
        lambda: ranks.train(replace(task, watched=True), seat,
                            store(seat, task.resolved.run.name), console), task.folder, seat.rank)


def _watched(run_folder: Path, number: int, crew: Crew, signals: _Signals,
             patience: Patience) -> Fault | None:
    """Waits until all ranks have ended; returns the fault where they ended in disorder."""
    host, pids = socket.gethostname(), dict(crew.pids)
    told, last_look = 0, time.monotonic()
    since, leave_at = last_look, float("inf")
    while crew.running:
        now = time.monotonic()
        if now - last_look > watch.PAUSED_SECONDS:
            since = now
        last_look = now
        if len(signals.asked) > told:
            told = len(signals.asked)
            if told > 1:
                raise KeyboardInterrupt
            crew.signal(signal.SIGCONT)
            crew.signal(signals.asked[-1])  # the record says which it was
            leave_at = now + patience.ending_seconds
        beats = _beats(run_folder, pids, number)
        bad = any(code not in (0, 75) for code in crew.codes.values())
        if bad or now > leave_at:
            crew.wait(FALL_SECONDS)
            break
        fault = watch.hangs({rank: beats[rank] for rank in crew.running}, crew.states(), pids,
                            now, since, patience, host, watch.crowding())
        if fault is not None:
            return fault
        time.sleep(POLL_SECONDS)
    return watch.ended_by(crew.ended(lambda rank: _error_of(run_folder, rank)),
                          _beats(run_folder, pids, number), pids, host)


def _error_of(run_folder: Path, rank: int) -> str:
    return str(ranks.read_last_words(run_folder, rank).get("error", ""))


def _beats(run_folder: Path, of: Any, number: int) -> dict[int, Beat | None]:
    return {rank: pulse.read(run_folder / RANKS, rank, number) for rank in of}


def _refuse_again(run_folder: Path, codes: Mapping[int, int]) -> None:
    """Raises what a rank said of bad input: launching again would not mend it."""
    for rank in sorted(codes):
        if codes[rank] == EXIT_BAD_INPUT:
            words = ranks.read_last_words(run_folder, rank)
            raise InputError(words.get("error", f"rank {rank} refused its input"),
                             where=words.get("where", ""), mend=words.get("mend", ""))


def _slow_again(task: Task, started: float) -> Fault | None:
    """The slow rank for which all left at a checkpoint, or None where they stopped otherwise."""
    if not task.leave_slow:
        return None
    for one in reversed(launches.alerts(task.folder)):
        if one["kind"] == "slow" and one["time"] >= started:
            return Fault(**{key: value for key, value in one.items() if key != "time"})
    return None


def newest_step(run_folder: Path) -> int:
    """Step of the newest complete checkpoint; 0 for none."""
    steps = [one.name.partition("-")[2] for one in (run_folder / "checkpoints").glob("step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _finished(run_folder: Path, launch: Launch) -> Finished:
    """What rank 0 left of a run that ended in order; less where it was ended before it could."""
    ending = run_folders.last_ending(run_folder)
    if ending is None or (launch.outcome == "stopped" and not ending.resumable):
        return Finished("stopped", True, None, launch.saved_step)
    return Finished(ending.reason, ending.resumable, ending.measured, launch.last_step)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Takes the signals that end a run, and gives them back."""
    signals, before = _Signals(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            before[number] = signal.signal(number, signals.receive)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
