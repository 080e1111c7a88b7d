"""`Session`: one training process at work on one run. What the loop moves and observers watch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from curbcut.data.batches import Batches
from curbcut.data.corpus import Corpus
from curbcut.errors import InputError
from curbcut.meter.clock import Clock
from curbcut.model.decoder import Decoder
from curbcut.spec import Account, Run
from curbcut.train import optimiser, policy, precision, refusals, transfer
from curbcut.train.allocator import keep_large_blocks
from curbcut.train.averages import Averages, standing_in
from curbcut.train.checkpoint import Progress
from curbcut.train.parallel import build as parallel
from curbcut.train.passes import Passes
from curbcut.train.stopwatch import Stopwatch
from curbcut.train.world import World


@dataclass(frozen=True)
class Stop:
    """Why training ended. `resumable`: before its end, at a checkpoint that can be taken up."""

    reason: str
    resumable: bool = False


@dataclass(frozen=True)
class StepReport:
    """One optimiser step as the observers see it."""

    step: int
    """Steps done, this one included."""
    loss: float
    """Mean loss of its tokens, nats per token, fp32."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    tokens: int
    seconds: float
    """Wall clock of the step, data included."""
    trouble: str = ""
    """What was wrong, "" for nothing."""
    applied: bool = True
    """Whether the weights moved."""


@dataclass
class Session:
    """The moving state of a training process."""

    run: Run
    folder: Path
    corpus: Corpus
    batches: Batches
    model: Decoder
    weights: precision.Weights
    updater: optimiser.Updater
    passes: Passes
    world: World
    clock: Clock
    forecast: Account
    averages: Averages | None = None
    """The running mean of the masters; None where the recipe has none."""
    step: int = 0
    tokens: int = 0
    recent_losses: deque[float] = field(
        default_factory=lambda: deque(maxlen=policy.WINDOW_STEPS))
    skips_in_a_row: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    joules: float | None = None
    unmetered_seconds: float = 0.0
    """Seconds that an energy sensor was to see and did not."""
    bits_per_byte: float | None = None
    nats_per_token: float | None = None
    stop: Stop | None = None
    """Set once all ranks agree."""
    save_due: bool = False
    """Whether all ranks agreed to save a checkpoint now."""
    run_digest: str = ""
    own_seconds: float = 0.0
    """Seconds of this rank in sections where none waits for another: a slow rank's are longer."""
    slowed: float = 1.0
    """How many times as long as the others' the own work of the slowest rank takes, once it was
    named: all others wait for it."""
    _asked: Stop | None = None
    _save_asked: bool = False
    taken_up: dict[str, float] = field(default_factory=dict)
    """Seconds by kind that the checkpoint had which this attempt took up."""
    watch: Stopwatch = field(init=False)
    """Where this process's seconds go."""

    def __post_init__(self) -> None:
        """Starts the watch."""
        self.watch = Stopwatch(self.clock, self.book)

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self.world.device

    def ask_to_stop(self, reason: str, *, resumable: bool = False) -> None:
        """Ends the loop after this step, on all ranks; the first reason stands."""
        if self._asked is None:
            self._asked = Stop(reason, resumable)

    def ask_to_save(self) -> None:
        """Has all ranks save a checkpoint after this step."""
        self._save_asked = True

    def agree(self) -> None:
        """Settles what any rank asked for since the last step: the same on all. Collective."""
        stop, save = self.world.most([float(self._asked is not None), float(self._save_asked)])
        self.save_due, self._save_asked = bool(save), False
        if stop and self.stop is None:
            asked = [self._asked.reason, self._asked.resumable] if self._asked else None
            reason, resumable = next(one for one in self.world.everybody(asked) if one)
            self.stop = Stop(reason, resumable)

    def timed(self, kind: str) -> AbstractContextManager[None]:
        """Books the wall clock of a block under `kind`, in this process's main thread."""
        return self.watch.timed(kind)

    @contextmanager
    def on_its_own(self) -> Iterator[None]:
        """Around what this rank does without waiting for any other."""
        start = self.clock.seconds()
        yield
        self.own_seconds += self.clock.seconds() - start

    def book(self, kind: str, seconds: float) -> None:
        """Adds wall clock to a kind."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    @property
    def total_seconds(self) -> float:
        """Wall clock booked so far, over all attempts."""
        return sum(self.seconds.values())

    def progress(self) -> Progress:
        """What a checkpoint must hold besides tensors."""
        return Progress(
            step=self.step, tokens=self.tokens, recent_losses=tuple(self.recent_losses),
            skips_in_a_row=self.skips_in_a_row, seconds=dict(self.seconds), joules=self.joules,
            threads=torch.get_num_threads())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Masters and optimiser moments by name."""
        named: dict[str, torch.Tensor] = {
            f"master.{n}": p.data for n, p in self.weights.masters.items()}
        means = self.averages.tensors() if self.averages else {}
        return named | means | self.updater.moments()

    def averaged(self) -> AbstractContextManager[None]:
        """While it lasts, the model computes with the mean weights, where the recipe has them."""
        return standing_in(self.averages, self.weights)

    def restore(self, progress: Progress, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes up a checkpoint: the next step is bit for bit what it would have been."""
        with torch.no_grad():
            for name, master in self.weights.masters.items():
                master.copy_(tensors[f"master.{name}"])
        precision.publish_masters(self.weights)
        if self.averages:
            self.averages.restore(tensors)
        if progress.step:
            self.updater.restore(tensors)
        self.step, self.tokens = progress.step, progress.tokens
        self.recent_losses.clear()
        self.recent_losses.extend(progress.recent_losses)
        self.skips_in_a_row = progress.skips_in_a_row
        here, self.taken_up = self.seconds, dict(progress.seconds)
        self.seconds = dict(progress.seconds)
        for kind, seconds in here.items():
            self.book(kind, seconds)
        self.joules = progress.joules


class Observer(Protocol):
    """Watches a session: clock, energy, checkpoints, evaluation, limits, console, record."""

    def start(self, session: Session) -> None:
        """Once, before the first step of this process."""

    def after_step(self, session: Session, report: StepReport) -> None:
        """After each optimiser step."""

    def agreed(self, session: Session) -> None:
        """After each step once all ranks know `stop` and `save_due`; may be collective."""

    def finish(self, session: Session) -> None:
        """Once, after the last step, when the loop ended by itself or was asked to stop."""

    def close(self) -> None:
        """Always, also after an error: let go of what is held."""


class Silent:
    """An observer that does nothing: base of those that need only some of the calls."""

    def start(self, session: Session) -> None:
        """Nothing."""

    def after_step(self, session: Session, report: StepReport) -> None:
        """Nothing."""

    def agreed(self, session: Session) -> None:
        """Nothing."""

    def finish(self, session: Session) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def device_of(run: Run, local_rank: int = 0) -> torch.device:
    """The device that the run's machine means for this rank of this computer."""
    if run.machine.kind == "gpu":
        if not torch.cuda.is_available():
            raise InputError("the plan is for a GPU and torch sees none here",
                             where="machine.name", mend="plan with machine.name = \"here\"")
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"rank {local_rank} of this node has no GPU of its own: torch sees "
                             f"{torch.cuda.device_count()}", where="machine.accelerators_per_node",
                             mend=f"set it to {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return device
    if run.machine.kind != "cpu":
        raise InputError(f"machines of kind {run.machine.kind!r} can be planned but not run",
                         where="machine.kind", mend="plan with machine.name = \"here\"")
    return torch.device("cpu")


def open_session(run: Run, folder: Path, corpus: Corpus, clock: Clock, forecast: Account,
                 run_digest: str = "", world: World | None = None) -> Session:
    """Builds this rank's part of model, weights and optimiser for `run` from its seed alone."""
    recipe = run.recipe
    refusals.check(run.model, recipe, run.machine)
    if corpus.vocab > run.model.vocab:
        raise InputError(f"the text's tokenizer has {corpus.vocab} entries and the model "
                         f"{run.model.vocab}", where="model.vocab",
                         mend=f"set it to {corpus.vocab} or more")
    world = world or World(device=device_of(run))
    keep_large_blocks()
    model, weights, passes = parallel.build(run, world)
    batches = Batches(corpus, recipe.sequence_tokens, recipe.global_batch, run.seed)
    updater = optimiser.updater(weights.masters, recipe, transfer.ratio(run.model, recipe))
    averages = Averages(weights.masters, recipe.ema_decay) if recipe.ema_decay else None
    return Session(run, folder, corpus, batches, model, weights, updater, passes, world, clock,
                   forecast, averages, run_digest=run_digest)
