"""A folder of runs in every state, as processes leave it, for tests that look at pages."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from curbcut.ledger.inbox import FOLDER, Writer
from curbcut.spec import Account, Estimate, Resolved
from tiny import tiny_run

LONG_NAME = "a-run-whose-name-somebody-made-from-all-its-settings-lr-3e-4-width-512-seed-1234567"


class Told:
    """A clock that says what it was told last."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def between(value, spread=0.2, basis="modelled", source="the tests' own words"):
    return Estimate(value, value * (1 - spread), value * (1 + spread), basis, source)


def promise(seconds, usd, kwh, bits=1.9, spread=0.2):
    return Account(
        seconds={"total": between(seconds, spread), "steps": between(0.9 * seconds, spread)},
        tokens={"trained": Estimate(2.6e6, basis="given")},
        tokens_per_second={"steps": between(2.6e6 / seconds, spread)},
        mfu={"run": between(0.31, spread)}, memory_bytes={"peak": between(1.9e9, spread)},
        watts={"device": between(18.0, spread)},
        kwh={"device": between(0.8 * kwh, spread), "facility": between(kwh, spread)},
        usd={"total": between(usd, spread), "energy": between(0.3 * usd, spread)},
        kgco2e={"total": between(0.37 * kwh, spread)},
        loss={"bits_per_byte": between(bits, 0.1), "nats_per_token": between(2.4, 0.1)})


def measured(seconds, usd, kwh, bits=1.9):
    exact = {"basis": "measured"}
    return Account(
        seconds={"total": Estimate(seconds, **exact), "steps": Estimate(0.93 * seconds, **exact)},
        tokens={"trained": Estimate(2.6e6, **exact)},
        tokens_per_second={"steps": Estimate(2.6e6 / seconds, **exact)},
        mfu={"run": Estimate(0.29, **exact)}, memory_bytes={"peak": Estimate(2.5e9, **exact)},
        kwh={"facility": Estimate(None, basis="measured", source="no sensor")},
        kwh_modelled={"facility": between(kwh, 0.1)}, usd={"total": Estimate(usd, **exact)},
        loss={"bits_per_byte": Estimate(bits, **exact), "nats_per_token": Estimate(2.3, **exact)})


def shown_run(folder: Path, name: str, *, began: float, steps: int = 400, done: int | None = None,
              every: int = 2, end: str = "", seed: int = 0, rate: float = 3e-3,
              spread: float = 0.2, broken: bool = False, step_seconds: float = 1.5) -> Path:
    """One run's folder: `done` of `steps` steps; `end` says why it ended, "" that it did not."""
    chance = random.Random(seed)
    run = tiny_run(name, steps=steps, recipe={"learning_rate": rate})
    origins = {"recipe.learning_rate": "run.toml", "recipe.precision": "plan", "name": "run.toml",
               "train.tokens": "plan"}
    place = folder / name
    clock = Told(began)
    done = steps if done is None else done
    whole = steps * step_seconds
    with Writer(place / FOLDER, name, "rank0", clock=clock) as writer:
        writer.write_run(Resolved(run, origins))
        writer.write_account("train", "forecast", promise(whole * 0.95, 0.4, 0.011, spread=spread))
        if done:
            writer.write("start", {"step": 0, "steps": steps, "run_digest": "0" * 64})
        for step in range(every, done + 1, every):
            clock.now = began + step * step_seconds
            part = step / steps
            loss = 1.8 + 4.2 * math.exp(-6 * part) + chance.gauss(0, 0.05 * (1 - 0.7 * part))
            if step == 2 * (steps // 6):
                loss += 5.0
                writer.write("trouble", {"step": step, "what": "the loss jumped to "
                                         f"{loss:.2f}", "applied": True})
            if broken and part > 0.7:
                loss = math.nan
            writer.write("step", {
                "step": step, "tokens": step * 6500, "loss": loss,
                "gradient_norm": 0.4 + abs(chance.gauss(0, 0.2)) / (0.1 + part),
                "learning_rate": rate * min(1, part * 20) * (1 - 0.9 * part),
                "step_seconds": step_seconds * chance.uniform(0.9, 1.15),
                "seconds": {"steps": step * step_seconds, "data": 0.02 * step},
                "joules": None, "unmetered_seconds": 0.0, "mfu": chance.uniform(0.27, 0.33),
                "usd": 0.41 * part, "kwh": 0.0115 * part, "memory_bytes": 1.9e9})
            if step % (steps // 4) == 0:
                writer.write("checkpoint", {"step": step, "path": f"step-{step}"})
                writer.write("evaluation", {"step": step, "nats_per_token": loss,
                                            "bits_per_byte": 1.7 + 1.5 * math.exp(-4 * part)})
        if end:
            writer.write("end", {"step": done, "reason": end, "resumable": done < steps,
                                 "seconds": {}, "joules": None})
            if done == steps:
                writer.write_account("train", "measured", measured(whole, 0.41, 0.0115, bits=1.73))
    for file, size in (("run.toml", 900), ("checkpoints/step-200/manifest.json", 4_000),
                       ("model/model.safetensors", 1_200_000)):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(b" " * size)
    if end and done == steps:
        (place / "samples.json").write_text(json.dumps([
            {"prompt": "def add(a, b):", "text": "\n    return <script>alert(1)</script>\n"}]))
    return place


def shown_folder(folder: Path, now: float) -> Path:
    """Runs in every state, some with what embarrasses a page: long names, broken losses."""
    shown_run(folder, "steady", began=now - 9000, end="all tokens trained")
    shown_run(folder, "narrow-promise", began=now - 7000, end="all tokens trained", seed=3,
              spread=0.02, rate=1e-3)
    shown_run(folder, "under-way", began=now - 300, done=196, seed=1)
    shown_run(folder, "fell-silent", began=now - 90_000, done=120, seed=2)
    shown_run(folder, "diverged", began=now - 50_000, done=400, seed=4, broken=True, rate=3e-2,
              end="the loss is no number any more")
    shown_run(folder, LONG_NAME, began=now - 4000, done=200, seed=5, end="the budget of 0.20 USD "
              "would be overshot by the next step; raise it in run.toml, and start it again")
    shown_run(folder, "planned-only", began=now - 100, done=0)
    return folder
