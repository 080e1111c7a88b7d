"""One run over three layouts: 1 rank, then 4, then 2; its loss curve beside an unbroken one's.

Each change is made as a person makes it who changes the run's file: what was trained stands, the
layout is replaced, and the launcher goes on from the newest checkpoint. Prints step, both losses,
their relative difference and the ranks that took the step.

    python benchmarks/resume_layouts.py [--steps 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from curbcut.data import prepare
from curbcut.data.corpus import Corpus
from curbcut.launch import local, relaid
from curbcut.launch.ranks import Task
from curbcut.plan.forecast import forecast
from curbcut.spec import Draft, Machine, ModelShape, Recipe, Resolved, Run, TrainJob
from curbcut.train import folder as run_folders
from curbcut.train import layouts
from curbcut.train.session import Session, Silent, StepReport
from curbcut.train.world import World

LAYOUTS: tuple[dict[str, Any], ...] = (
    {}, {"dp_replicate": 2, "tp": 2}, {"dp_shard": 2, "recompute": "full"})
RANKS = (1, 4, 2)


class Curve(Silent):
    """Leaves each step's loss and ranks in a file; asks the launcher to stop after one of them."""

    def __init__(self, world: World, path: Path, launcher: int, stop: int | None) -> None:
        self.world, self.path, self.launcher, self.stop = world, path, launcher, stop

    def after_step(self, session: Session, report: StepReport) -> None:
        """One line a step."""
        if not self.world.main:
            return
        with self.path.open("a") as file:
            file.write(json.dumps([report.step, report.loss, self.world.size]) + "\n")
        if report.step == self.stop:
            os.kill(self.launcher, signal.SIGTERM)
            time.sleep(0.5)


def run_of(steps: int, corpus: Corpus) -> Run:
    """A small model on one rank of this computer."""
    machine = Machine(
        name="here", accelerator="this computer", kind="cpu", memory_bytes=2**32,
        memory_bytes_per_second={"measured": 5e9}, peak_flops={}, measured_flops={"fp32": 1e10},
        cores=os.cpu_count() or 1, link_bytes_per_second=10**9)
    recipe = Recipe(sequence_tokens=128, micro_batch=2, global_batch=8, precision="fp32",
                    learning_rate=3e-3, checkpoint_every_steps=10**6, evaluate_every_steps=10**6)
    shape = ModelShape(layers=4, width=64, heads=4, kv_heads=2, head_size=16, ffn=192,
                       vocab=corpus.vocab, context_tokens=128)
    return Run(name="relaid", model=shape, machine=machine, recipe=recipe,
               train=TrainJob(tokens=steps * recipe.step_tokens, text="python-stdlib"), seed=0)


def train(folder: Path, corpus: Corpus, path: Path, stop: int | None) -> None:
    """Trains what stands in `folder` to its end, or to a stop at a checkpoint."""
    resolved, promised = run_folders.read_plan(folder)
    launcher = os.getpid()
    local.train(Task(resolved, promised, corpus, folder, observers=lambda world: (
        Curve(world, path, launcher, stop),)), Console(quiet=True))


def relaid_curve(place: Path, run: Run, corpus: Corpus, steps: int) -> None:
    """Trains the run over all of `LAYOUTS`, a third of its steps under each."""
    folder = place / "relaid"
    run_folders.claim(folder, Resolved(run, {}), forecast(run))
    for number, recipe in enumerate(LAYOUTS):
        if recipe:
            draft = Draft({f"recipe.{name}": value for name, value in recipe.items()}
                          | {f"recipe.{name}": 1 for name in ("dp_replicate", "dp_shard", "tp")
                             if name not in recipe}
                          | {"recipe.micro_batch": 2, "machine.name": f"{RANKS[number]}xhere"})
            standing, _ = run_folders.read_plan(folder)
            changed = layouts.changes(standing.run, draft, folder)
            found = relaid.propose(folder, draft, changed, corpus, pairs=[],
                                   machine=lambda _: run.machine)  # shared by the plan
            relaid.take(folder, found, draft)
        last = number + 1 == len(LAYOUTS)
        train(folder, corpus, place / "relaid.jsonl",
              None if last else (number + 1) * steps // len(LAYOUTS))


def read(path: Path) -> Mapping[int, tuple[float, int]]:
    """Loss and ranks by step."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {step: (loss, size) for step, loss, size in rows}


def main() -> None:
    """Trains twice and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("CURBCUT_SENSORS", "off")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        corpus = prepare(TrainJob(tokens=1), 512, place / "text")
        run = run_of(args.steps, corpus)
        run_folders.claim(place / "unbroken", Resolved(run, {}), forecast(run))
        train(place / "unbroken", corpus, place / "unbroken.jsonl", None)
        relaid_curve(place, run, corpus, args.steps)
        one, many = read(place / "unbroken.jsonl"), read(place / "relaid.jsonl")
    rows = [{"step": step, "unbroken": loss, "relaid": many[step][0],
             "difference": abs(many[step][0] / loss - 1), "ranks": many[step][1]}
            for step, (loss, _) in one.items()]
    print(f"{'step':>5} {'unbroken':>10} {'relaid':>10} {'difference':>11} {'ranks':>6}")
    for row in rows:
        print(f"{row['step']:>5} {row['unbroken']:>10.6f} {row['relaid']:>10.6f} "
              f"{row['difference']:>11.1e} {row['ranks']:>6}")
    print(f"largest relative difference: {max(row['difference'] for row in rows):.1e}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
