"""From a run's folder to its trained model: set up, take up the last checkpoint, train, export."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from curbcut.data.corpus import Corpus
from curbcut.evaluate.bits import BitsPerByte
from curbcut.ledger.inbox import FOLDER, Writer
from curbcut.meter.clock import Clock, SystemClock
from curbcut.meter.energy import EnergyMeter
from curbcut.meter.memory import forget_peak
from curbcut.meter.sensors import EnergySensor, open_sensors
from curbcut.model import weights as model_weights
from curbcut.spec import Account, Resolved
from curbcut.train import (
    attempts,
    checkpoint,
    faults,
    folder,
    gather,
    launches,
    lock,
    precision,
)
from curbcut.train.account import measured_account
from curbcut.train.allocator import give_back
from curbcut.train.held_out import held_out
from curbcut.train.loop import train
from curbcut.train.observers.attempt import Attempt
from curbcut.train.observers.attribution import Attribution
from curbcut.train.observers.checkpointer import Checkpointer
from curbcut.train.observers.console import ConsoleLine
from curbcut.train.observers.energy import Energy
from curbcut.train.observers.evaluation import Evaluation
from curbcut.train.observers.forecast import ForecastCorrector
from curbcut.train.observers.limits import LimitKeeper
from curbcut.train.observers.recorder import Recorder
from curbcut.train.observers.signals import Signals
from curbcut.train.observers.trackers import chosen
from curbcut.train.observers.trackers.follow import Trackers
from curbcut.train.rehearsal import is_rehearsal
from curbcut.train.room import or_levers
from curbcut.train.session import Observer, Session, Stop, device_of, open_session
from curbcut.train.world import World

if TYPE_CHECKING:
    from rich.console import Console

CHECKPOINTS = "checkpoints"
MODEL = "model"


@dataclass(frozen=True)
class Trained:
    """How a training process ended, and what it measured."""

    stop: Stop
    account: Account
    evaluation: BitsPerByte | None
    model_folder: Path
    steps: int


def train_run(resolved: Resolved, forecast: Account, corpus: Corpus, run_folder: Path,
              console: Console, *, clock: Clock | None = None, world: World | None = None,
              began: float | None = None, extra_observers: tuple[Observer, ...] = ()) -> Trained:
    """Trains a claimed run to its end, from its newest whole checkpoint if it has one.

    `began` is when this attempt began, on the same clock, where that was before this call.
    Collective where `world` has several ranks: rank 0 keeps the record and talks to people.
    Raises RunBusy when another process trains it, Resumable is left to the caller: look at
    `Trained.stop.resumable`.
    """
    world = world or World(device=device_of(resolved.run))
    # Building and the export are most crowded, too: out of memory is one message wherever it is.
    with lock.held(run_folder) if world.main else nullcontext(), or_levers(resolved.run):
        clock = clock or SystemClock()
        began = clock.seconds() if began is None else began
        # What prepared the text in this process is not training's.
        give_back()
        forget_peak()
        session = open_session(resolved.run, run_folder, corpus, clock, forecast,
                               checkpoint.identity(resolved.run), world)
        session.watch.since(began)
        recorder = _recorder(resolved, forecast, run_folder) if world.main else None
        resume(session, run_folder / CHECKPOINTS, _saying(console, recorder))
        _count_the_past(session, began, _saying(console, recorder))
        results: list[BitsPerByte] = []
        tracked = _tracked(session, recorder, console)
        stop = train(session, [*_observers(session, recorder, console, results),
                               *extra_observers, *([recorder, tracked] if recorder else [])])
        with session.timed("other"):
            export(session, run_folder)
        account = measured_account(session)
        if world.main:
            _settle(run_folder, resolved, account, stop)
            if results and not stop.resumable:
                folder.write_evaluation(run_folder, results[-1])
            tracked.settle()
        world.barrier()
        return Trained(stop, account, results[-1] if results else None, run_folder / MODEL,
                       session.step)


def _count_the_past(session: Session, began: float, say: Callable[[str], None]) -> None:
    """Books what earlier attempts lost, and the time between them and this one."""
    session.watch.lap()
    left, past = attempts.read(session.folder / FOLDER), session.clock.seconds() - began
    hung = launches.hung_seconds(session.folder)
    if attempts.take_up(session, left, attempts.moment(), past, hung) and left is not None:
        say(f"{left.step - session.step} steps after the last checkpoint were lost and are done "
            "again")


def _recorder(resolved: Resolved, forecast: Account, run_folder: Path) -> Recorder:
    writer = Writer(run_folder / FOLDER, resolved.run.name, "train")
    writer.write_run(resolved)
    writer.write_account("train", "forecast", forecast)
    recorder = Recorder(writer)
    if before := launches.read(run_folder):
        recorder.launched(before[-1])
    return recorder


def _observers(session: Session, recorder: Recorder | None, console: Console,
               results: list[BitsPerByte]) -> list[Observer]:
    """What watches on this rank: signals, evaluation and checkpoints on all, the rest on rank 0."""
    def heard(session: Session, result: BitsPerByte) -> None:
        results.append(result)
        if recorder is not None:
            recorder.evaluated(session, result)

    def saved(session: Session, path: Path) -> None:
        if recorder is not None:
            recorder.saved(session, path)

    alert = _saying(console, recorder)
    recipe = session.run.recipe
    everywhere: list[Observer] = [
        Signals(),
        Attribution(),
        Energy(_meter(session)),
        Evaluation(held_out, recipe.evaluate_every_steps, heard),
    ]
    last: list[Observer] = [Checkpointer(session.folder / CHECKPOINTS, saved, alert)]
    if not session.world.main:
        return everywhere + last
    watchers: list[Observer] = [Attempt(session.folder / FOLDER), ConsoleLine(console)]
    if recorder is not None:
        watchers.insert(0, ForecastCorrector(alert, recorder.forecast))
    return [*everywhere, LimitKeeper(), *last, *watchers]


def _tracked(session: Session, recorder: Recorder | None, console: Console) -> Trackers:
    """The chosen trackers, on the rank that keeps the record; elsewhere, and of a rehearsal, none.
    """
    if recorder is None or is_rehearsal(session.run):
        return Trackers((), session.folder, Path(), lambda text: None)
    return Trackers(chosen(), session.folder, recorder.writer.path,
                    lambda text: console.print(f"  {text}", highlight=False, soft_wrap=True))


def _meter(session: Session) -> EnergyMeter | None:
    """One a node: its counters are of the whole node."""
    if session.world.local_rank:
        return None
    return EnergyMeter(sensors_of(session.device.type), session.clock)


def sensors_of(device: str) -> list[EnergySensor]:
    """The sensors of what computes: an idle GPU beside a CPU run is not part of it."""
    boundaries = {"cpu": ("cpu", "memory")}.get(device, ("device",))
    return [sensor for sensor in open_sensors() if sensor.boundary in boundaries]


def resume(session: Session, root: Path, say: Callable[[str], None]) -> None:
    """Takes up the newest whole checkpoint in `root`, if there is one."""
    found = checkpoint.newest(root, checkpoint.identity(session.run), session.world, say)
    if found is None:
        return
    progress = found.progress
    session.restore(progress, checkpoint.Laid(found, session.weights.masters))
    faults.reach("start: resumed", session.world.rank, session.step)
    threads = torch.get_num_threads()
    if session.device.type == "cpu" and progress.threads not in (0, threads):
        say(f"resumed with {threads} threads instead of {progress.threads}: "
            "the weights will not be bit for bit those of an unbroken run")


def export(session: Session, run_folder: Path) -> Path:
    """Writes `model/`: safetensors with Hugging Face names, config and tokenizer."""
    target = run_folder / MODEL
    with session.averaged():
        weights = gather.whole(session.weights.compute, session.world)
        if session.world.main:
            model_weights.write(weights, session.run.model, target, session.corpus.tokenizer_path,
                                dtype=precision.dtype_of(session.run.recipe.precision))
        for _ in weights:
            pass  # every rank takes part in bringing each tensor to rank 0
    return target


def _settle(run_folder: Path, resolved: Resolved, account: Account, stop: Stop) -> None:
    """Leaves the measurement in the run's record and in its folder."""
    with Writer(run_folder / FOLDER, resolved.run.name, "train") as writer:
        writer.write_run(resolved)
        writer.write_account("train", "measured", account, finished=not stop.resumable)
    folder.write_ending(run_folder, stop.reason, stop.resumable, account)


def _saying(console: Console, recorder: Recorder | None) -> Callable[[str], None]:
    def say(text: str) -> None:
        if recorder is not None:
            console.print(f"  {text}", highlight=False)
            recorder.note(text)

    return say
