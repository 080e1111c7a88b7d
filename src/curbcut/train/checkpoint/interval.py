"""How long to train between checkpoints: Young's formula on what this run measures of itself."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from statistics import median

from curbcut.physics import goodput

REMEMBERED = 5
"""Saves whose median seconds count."""


class Rhythm:
    """When the next checkpoint is due: sqrt(2 d M) seconds of training after the last one (Young
    1974), d seconds that a save keeps training waiting and M the mean time to an interruption.

    d is `guessed_seconds` until a save was measured. M is what this run has seen (its seconds over
    its interruptions), or where it was never interrupted the published rate for as many
    accelerators.
    """

    def __init__(self, guessed_seconds: float, accelerators: int, interruptions: int = 0) -> None:
        self.accelerators, self.interruptions = accelerators, interruptions
        self._guessed = guessed_seconds
        self._measured: deque[float] = deque(maxlen=REMEMBERED)

    def saved(self, seconds: float) -> None:
        """Takes up how long a save kept training waiting."""
        self._measured.append(seconds)

    @property
    def save_seconds(self) -> float:
        """Seconds of a save: measured, or guessed before the first."""
        return median(self._measured or [self._guessed])

    def interruption_seconds(self, worked_seconds: float) -> float:
        """Mean time between interruptions, by so many seconds of work of all attempts."""
        if self.interruptions and worked_seconds > 0:
            return worked_seconds / self.interruptions
        return float(goodput.interruption_seconds(self.accelerators))

    def seconds(self, worked_seconds: float) -> float:
        """Seconds of training between checkpoints; never fewer than a save takes."""
        mean = self.interruption_seconds(worked_seconds)
        return max(self.save_seconds, float(goodput.young(self.save_seconds, mean)))


def interruptions(metrics: Path) -> int:
    """Attempts of a run that began and did not end in order, by the records in its folder."""
    return sum(_broke_off(path) for path in metrics.glob("*.jsonl"))


def _broke_off(path: Path) -> bool:
    kinds = set()
    for line in path.read_bytes().splitlines():
        try:
            kinds.add(json.loads(line)["kind"])
        except (ValueError, KeyError, TypeError):
            continue  # a process that was killed leaves a torn last line
    return "start" in kinds and "end" not in kinds
