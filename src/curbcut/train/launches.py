"""The launches of a run's ranks on this computer: why each ended, and which rank was at fault.

`runs/NAME/launches.json` is written by the launcher, whole or as it was. Alerts (a slow rank, a
named fault) are lines of `runs/NAME/ranks/alerts.jsonl`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curbcut.files import write_whole

FILE = "launches.json"
RANKS = "ranks"
ALERTS = "alerts.jsonl"


@dataclass(frozen=True)
class Fault:
    """What went wrong with one rank, and where it was."""

    kind: str
    """"died" (a signal), "failed" (an error of its own), "hung" or "slow"."""
    rank: int
    host: str
    pid: int
    step: int
    """Steps done when it was last heard of."""
    what: str
    """Signal, error or figures, in words."""

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid} on {self.host}) at step {self.step}: {self.what}"


@dataclass(frozen=True)
class Launch:
    """One start of all ranks of a run."""

    number: int
    """From 1."""
    started: float
    """When its ranks were started: seconds since 1970."""
    ended: float
    """When the last of them was gone."""
    first_step: int
    """Step of the newest checkpoint when it started."""
    last_step: int
    """Steps done when it ended."""
    saved_step: int
    """Step of the newest checkpoint when it ended: where the next one goes on."""
    outcome: str
    """"done", "stopped" (on purpose, resumable), "refused" or "fault"."""
    fault: Fault | None = None
    unnoticed_seconds: float = 0.0
    """Wall clock between the last sign of work and the end of all ranks: a hang, its detection."""
    down_seconds: float = 0.0
    """Wall clock between the end of the launch before and this one's start."""


def record(folder: Path, all_so_far: Sequence[Launch]) -> None:
    """Writes `launches.json`; raises OSError."""
    write_whole(folder / FILE, json.dumps({"launches": [asdict(one) for one in all_so_far]},
                                          indent=1))


def read(folder: Path) -> list[Launch]:
    """All launches so far, oldest first; none where nothing was recorded or it is damaged."""
    try:
        raw = json.loads((folder / FILE).read_text(encoding="utf-8"))["launches"]
        return [Launch(**(one | {"fault": Fault(**one["fault"]) if one["fault"] else None}))
                for one in raw]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def hung_seconds(folder: Path) -> float:
    """How long the ranks of the newest launch stood before it was noticed, where one hung."""
    newest = read(folder)[-1:]
    return sum(one.unnoticed_seconds for one in newest
               if one.fault is not None and one.fault.kind == "hung")


def alert(folder: Path, fault: Fault) -> None:
    """Adds a line to the alerts; a full disk must not end a run that only wanted to warn."""
    try:
        (folder / RANKS).mkdir(exist_ok=True)
        with (folder / RANKS / ALERTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **asdict(fault)}) + "\n")
    except OSError:
        pass


def alerts(folder: Path) -> list[Mapping[str, Any]]:
    """All alerts, oldest first; a line cut off by a crash is left out."""
    found: list[Mapping[str, Any]] = []
    try:
        lines = (folder / RANKS / ALERTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
