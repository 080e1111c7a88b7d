"""Runs as their processes would have recorded them, without any training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from curbcut.ledger.inbox import Writer
from curbcut.spec import Account, Estimate, Resolved, Run, measured
from tiny import tiny_run


def about(value: float) -> Estimate:
    return Estimate(value, value * 0.8, value * 1.25, "modelled", "a test")


def promise() -> Account:
    return Account(seconds={"total": about(100.0)}, tokens={"trained": about(1e5)},
                   tokens_per_second={"steps": about(1000.0)}, mfu={"run": about(0.4)},
                   usd={"total": about(3.0)}, kwh={"facility": about(1.5)},
                   loss={"nats_per_token": about(2.0), "bits_per_byte": about(1.1)})


def body(step: int, loss: object, **more: object) -> dict[str, object]:
    """What a recorder writes of a step."""
    return {"step": step, "tokens": step * 128, "loss": loss, "gradient_norm": 1.0,
            "learning_rate": 1e-3, "step_seconds": 0.5, "joules": None,
            "seconds": {"start": 2.0, "steps": 0.5 * step}, "unmetered_seconds": 0.0,
            "usd": 0.01 * step, "kwh": 0.002 * step, "mfu": 0.25, "memory_bytes": 1e9} | more


class Recording:
    """One process of a run; each line comes a second after the one before it."""

    def __init__(self, runs: Path, name: str, *, run: Run | None = None, now: float | None = None,
                 steps: int = 1000, step: int = 0, period: float = 15.0) -> None:
        self.now = time.time() - 20 if now is None else now
        self.writer = Writer(runs / name / "metrics", name, "train", clock=self._tick)
        self.writer.write_run(Resolved(run or tiny_run(name), {"model.layers": "file"}))
        self.writer.write_account("train", "forecast", promise())
        self.writer.write("start", {"step": step, "steps": steps, "run_digest": "x",
                                    "period_seconds": period})

    def _tick(self) -> float:
        self.now += 1
        return self.now

    def losses(self, values: Iterable[object], first: int = 1) -> Recording:
        for step, loss in enumerate(values, first):
            self.writer.write("step", body(step, loss))
        return self

    def write(self, kind: str, **values: object) -> Recording:
        self.writer.write(kind, values)
        return self

    def end(self, step: int, *, resumable: bool = False, usd: float = 2.5) -> Recording:
        self.writer.write("end", {"step": step, "reason": "all tokens trained",
                                  "resumable": resumable, "seconds": {}, "joules": None})
        self.writer.write_account("train", "measured", Account(
            seconds={"total": measured(90.0, "clock")}, usd={"total": measured(usd, "clock")}),
            finished=not resumable)
        self.writer.close()
        return self
