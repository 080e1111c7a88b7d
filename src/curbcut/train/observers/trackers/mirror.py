"""`python -m ...trackers.mirror TOOL FOLDER FILE STAMP`: tells one tracker what a record says.

It runs in a process of its own: what a tracker's package imports, waits for, leaks or crashes on is
not the run's. It reads the same lines that the ledger imports, as they are appended, and ends when
the run has ended and left its account, or when the process that trains is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from curbcut.errors import CurbcutError
from curbcut.ledger import codec
from curbcut.ledger.inbox import Event, read_batch
from curbcut.train import lines
from curbcut.train.observers import trackers
from curbcut.train.observers.trackers import Tracked, Tracker, identity

POLL_SECONDS = 0.5
ACCOUNT_SECONDS = 600.0
"""How long the account may take after the last step: the model is written in between."""
ACCOUNT = "account.json"


class Mirror:
    """What a tracker was told so far."""

    def __init__(self, tracker: Tracker, folder: Path, identity: str) -> None:
        self.tracker, self.folder, self.identity = tracker, folder, identity
        self.ended: tuple[str, str] | None = None
        """State and reason, once the loop said that it ended."""
        self._config: dict[str, str | float | int | bool] = {}
        self._promised: dict[str, tuple[float, float, float, str]] = {}
        self._begun = False
        self._step = 0

    def take(self, event: Event) -> None:
        """One line of the record."""
        body = event.body
        if event.kind == "run":
            self._config = flat(body.get("run", {}))
        elif event.kind == "account" and body.get("kind") == "forecast":
            self._promised = known_figures(body.get("account"))
        elif event.kind == "start":
            self._step = int(body.get("step", 0))
            self._begin()
        elif found := lines.figures(event.kind, body):
            self._begin()
            self._step = int(body.get("step", self._step))
            self.tracker.figures(self._step, found, event.time)
        elif event.kind == "end":
            self.ended = ("stopped" if body.get("resumable") else "done",
                          str(body.get("reason", "")))
        elif text := remark(event):
            self._begin()
            self.tracker.note(int(body.get("step", self._step)), text, event.time)

    def close(self, reason: str, measured: Mapping[str, float]) -> None:
        """Ends the tracked run: as the record says, or as crashed for `reason`."""
        self._begin()
        state, why = self.ended or ("crashed", reason)
        self.tracker.end(state, why, measured)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.tracker.begin(Tracked(self.identity, self.folder.name, self.folder, self._step,
                                       self._config, self._promised))


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str | float | int | bool]:
    """Nested tables by dotted key; lists as JSON text, what is not said left out."""
    found: dict[str, str | float | int | bool] = {}
    for key, value in values.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            found |= flat(value, name)
        elif isinstance(value, str | float | int | bool):
            found[name] = value
        elif value is not None:
            found[name] = json.dumps(value)
    return found


def known_figures(account: Any) -> dict[str, tuple[float, float, float, str]]:
    """Value, low, high and basis of each figure of a plain account that is known; of what is no
    account none.
    """
    try:
        found = codec.from_plain(account)
    except CurbcutError:
        return {}
    return {f"{section}.{kind}": (one.value, _or(one.low, one.value), _or(one.high, one.value),
                                  one.basis)
            for section, kind, one in found.lines() if one.value is not None}


def _or(bound: float | None, value: float) -> float:
    return value if bound is None else bound


def remark(event: Event) -> str:
    """What a line that has no figures says to a person; "" for nothing."""
    body = event.body
    if event.kind == "trouble":
        return f"{'applied' if body.get('applied') else 'skipped'}: {body.get('what', '')}"
    if event.kind == "checkpoint":
        return f"checkpoint {body.get('path', '')}"
    if event.kind == "straggler":
        return f"slowed {body.get('times')} times by a rank"
    return str(body.get("text", "")) if event.kind == "note" else ""


def follow(mirror: Mirror, file: Path, before: int, alive: Callable[[], bool],
           sleep: Callable[[float], None] = time.sleep) -> None:
    """Tells `mirror` each line of `file` as it comes, until the run ended or is no longer alive.

    `before` is the `stamp` of the account that stood when the attempt began.
    """
    offset, waited = 0, 0.0
    while True:
        # Asked first: what a process left is read after it is known to be gone.
        here = alive()
        batch = read_batch(file, offset)
        for _, event in batch.events:
            mirror.take(event)
        if batch.end > offset:
            offset = batch.end
            continue
        settled = stamp(mirror.folder) != before
        if not here or (mirror.ended and (settled or waited > ACCOUNT_SECONDS)):
            break
        waited += POLL_SECONDS if mirror.ended else 0.0
        sleep(POLL_SECONDS)
    mirror.close("the process that trained is gone", _measured(mirror.folder) if settled else {})


def stamp(folder: Path) -> int:
    """Which account of a run this is: when it was written, 0 where there is none."""
    try:
        return (folder / ACCOUNT).stat().st_mtime_ns
    except OSError:
        return 0


def _measured(folder: Path) -> dict[str, float]:
    try:
        raw = json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))
        return {key: value for key, (value, *_) in known_figures(raw["measured"]).items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(arguments: list[str]) -> int:
    """Mirrors until the run ends; returns 0. What fails is told on stderr, its last line the short
    of it.
    """
    parent = os.getppid()
    tool, folder, file, before = arguments[0], Path(arguments[1]), Path(arguments[2]), arguments[3]
    # An interrupt is the run's to answer: it ends in order, and its end is still to be told.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(10)
    mirror = Mirror(trackers.tracker(tool), folder, identity.of(folder))
    follow(mirror, file, int(before), lambda: os.getppid() == parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
