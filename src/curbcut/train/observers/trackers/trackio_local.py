"""Trackio on this machine: a store beside the runs, unless TRACKIO_DIR names another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trackio

from curbcut.train.observers.trackers import Tracked

PROJECT = "curbcut"


class TrackioLocal:
    """Writes into Trackio's own store; the folder must be in TRACKIO_DIR before it is imported."""

    def begin(self, run: Tracked) -> None:
        """Opens the run, or the one that an earlier attempt opened."""
        promised = {f"promised/{key}": {"value": value, "low": low, "high": high, "basis": basis}
                    for key, (value, low, high, basis) in run.promised.items()}
        self._run = trackio.init(PROJECT, name=run.id, resume="allow", embed=False,
                                 config={**run.config, "name": run.name, **promised},
                                 auto_log_gpu=False, auto_log_cpu=False)
        self._step = run.step

    def figures(self, step: int, values: Mapping[str, float], time: float) -> None:
        """Points of metrics."""
        self._step = step
        self._run.log(dict(values), step=step)

    def note(self, step: int, text: str, time: float) -> None:
        """An alert for information."""
        self._run.alert(f"step {step}", text, level=trackio.AlertLevel.INFO, step=step)

    def end(self, state: str, reason: str, measured: Mapping[str, float]) -> None:
        """Finishes it; Trackio has no status, so it is said as an alert and in the last row."""
        self._run.log({f"measured/{key}": value for key, value in measured.items()}
                      | {"state": state}, step=self._step)
        self._run.alert(state, reason, level=trackio.AlertLevel.INFO, step=self._step)
        finish: Any = self._run.finish  # untyped in some releases
        finish()


def make() -> TrackioLocal:
    """The tracker."""
    return TrackioLocal()
