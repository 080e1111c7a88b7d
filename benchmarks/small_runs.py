"""Short runs on our own text, for benchmarks beside this file: a recipe in, a loss curve out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from curbcut.data import prepare
from curbcut.data.corpus import Corpus
from curbcut.spec import Machine, ModelShape, Recipe, Run, TrainJob

VOCAB, SEQUENCE, BATCH = 2048, 128, 16
HELD_OUT_WINDOWS = 128
LOOKS = 8
"""Evaluations on the way."""
RECIPE = Recipe(sequence_tokens=SEQUENCE, micro_batch=BATCH, global_batch=BATCH, precision="fp32",
                attention="math", learning_rate=2e-3)


def shape(width: int = 128, layers: int = 4) -> ModelShape:
    """A small decoder: heads of 32, whatever the width."""
    return ModelShape(layers=layers, width=width, heads=width // 32, kv_heads=width // 32,
                      head_size=32, ffn=width * 11 // 4, vocab=VOCAB, context_tokens=SEQUENCE)


def text(folder: Path) -> Corpus:
    """Python's own library, prepared once in `folder`."""
    return prepare(TrainJob(tokens=1, text="python-stdlib"), VOCAB, folder)


def curve(corpus: Corpus, model: ModelShape, recipe: Recipe, steps: int, *, seed: int = 0,
          watch: Callable[[int, float], None] | None = None) -> dict[str, Any]:
    """Trains `steps`; held-out nats a token by tokens trained, the last of them `loss`, and the
    training losses. The means stand in where the recipe has them.
    """
    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.loop import take_step
    from curbcut.train.session import open_session

    machine = Machine(name="here", accelerator="cpu", kind="cpu", memory_bytes=1,
                      memory_bytes_per_second={}, peak_flops={})
    run = Run(name="small", seed=seed, model=replace(model, vocab=corpus.vocab), machine=machine,
              recipe=recipe, train=TrainJob(tokens=steps * recipe.step_tokens))
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(run, Path(folder), corpus, clock, Account())
        begin, looks, losses = clock.seconds(), [], []
        for step in range(1, steps + 1):
            losses.append(take_step(session).loss)
            if step % max(1, steps // LOOKS) == 0 or step == steps:
                looks.append([step * recipe.step_tokens, held_out(session)])
                if watch is not None:
                    watch(step, looks[-1][1])
    return {"loss": looks[-1][1], "curve": looks, "training": losses,
            "seconds": clock.seconds() - begin, "steps": steps}


def held_out(session: Any) -> float:
    """Nats a token of the same windows of the held-out text."""
    import numpy as np
    import torch

    tokens = session.corpus.tokens("validation")[:HELD_OUT_WINDOWS * SEQUENCE + 1]
    tokens = torch.from_numpy(np.asarray(tokens, dtype=np.int64))
    windows = tokens[:-1].view(-1, SEQUENCE), tokens[1:].view(-1, SEQUENCE)
    with session.averaged():
        nats = sum(session.passes.nats(inputs, targets) for inputs, targets in zip(
            windows[0].split(BATCH), windows[1].split(BATCH), strict=True))
    return float(nats) / windows[0].numel()


class Kept:
    """Results by name in a JSON file: what is there is not run again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        if path is not None and path.exists():
            self.found = json.loads(path.read_text())

    def of(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result called `name`, now or from before."""
        if name not in self.found:
            self.found[name] = work()
            print(f"{name:44} {self.found[name]['loss']:.4f} nats a token, "
                  f"{self.found[name]['seconds']:.0f} s", flush=True)
            if self.path is not None:
                self.path.write_text(json.dumps(self.found, indent=1))
        result: dict[str, Any] = self.found[name]
        return result
