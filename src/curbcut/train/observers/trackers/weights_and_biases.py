"""Weights & Biases, offline unless WANDB_MODE says otherwise: `wandb sync` uploads it later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import wandb

from curbcut.train.observers.trackers import Tracked

PROJECT = "curbcut"


class WeightsAndBiases:
    """Writes `runs/NAME/wandb/offline-run-*`. An attempt that goes on writes a folder of its own
    with the same id; uploaded, both are one run.
    """

    def __init__(self) -> None:
        self._run: Any = None

    def begin(self, run: Tracked) -> None:
        """Opens it under the run's own id, so that a later attempt goes on in it."""
        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT, name=run.name, id=run.id,
            resume="allow", mode=mode,
            dir=str(run.folder), config=dict(run.config),
            # What is measured of the machine is measured by the run itself, and with its source.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False,
                                    x_disable_stats=True))
        # Steps that were lost with an attempt are done again: no axis may refuse a smaller step.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        for key, (value, low, high, basis) in run.promised.items():
            self._run.summary[f"promised/{key}"] = {"value": value, "low": low, "high": high,
                                                    "basis": basis}

    def figures(self, step: int, values: Mapping[str, float], time: float) -> None:
        """A row of the history."""
        self._run.log({**values, "step": step, "_timestamp": time})

    def note(self, step: int, text: str, time: float) -> None:
        """A row with a text."""
        self._run.log({"note": text, "step": step, "_timestamp": time})

    def end(self, state: str, reason: str, measured: Mapping[str, float]) -> None:
        """Finishes it; one that crashed is marked as such."""
        self._run.summary.update({"state": state, "reason": reason})
        self._run.summary.update({f"measured/{key}": value for key, value in measured.items()})
        self._run.finish(exit_code=1 if state == "crashed" else 0)


def make() -> WeightsAndBiases:
    """The tracker."""
    return WeightsAndBiases()
