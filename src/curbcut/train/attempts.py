"""What an attempt leaves of its accounts, so that the next one knows what was lost between them.

Beside the metrics stands one small file. It is replaced every second or so; a process that dies
leaves the last one. The next attempt reads there how many steps were done since the checkpoint that
it takes up: their seconds are `replay`. From then to its own beginning is `down`, by the computer's
clock since it was switched on where it is the same computer, and only else by the date, which
jumps. An attempt that was stopped in order leaves no `down`: nobody was waiting for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from curbcut.train.session import Session

FILE = "attempt.json"
AGAIN = ("steps", "skipped", "data", "compile", "hang", "straggler")
"""Kinds that are spent a second time on steps that are done again."""


@dataclass(frozen=True)
class Moment:
    """A point in time that another process can measure from."""

    boot: str
    """Which start of which computer; "" where the system does not say."""
    uptime_seconds: float
    """Since that start, suspended time included."""
    date_seconds: float
    """Since 1970. It may jump."""

    def until(self, later: Moment) -> float:
        """Seconds from here to `later`; never negative."""
        if self.boot and self.boot == later.boot:
            return max(0.0, later.uptime_seconds - self.uptime_seconds)
        return max(0.0, later.date_seconds - self.date_seconds)


def moment() -> Moment:
    """Now."""
    boot, uptime = "", 0.0
    with contextlib.suppress(OSError, AttributeError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Moment(boot, uptime, time.time())


@dataclass(frozen=True)
class Left:
    """The accounts of all attempts so far, as the last one left them."""

    run_digest: str
    step: int
    seconds: Mapping[str, float]
    joules: float | None
    unmetered_seconds: float
    moment: Moment
    ended: bool = False
    """Whether the attempt ended in order: asked to, or at the end of the run."""


def of(session: Session, now: Moment, *, ended: bool = False) -> Left:
    """What `session` would leave now."""
    return Left(session.run_digest, session.step, dict(session.seconds), session.joules,
                session.unmetered_seconds, now, ended)


def write(folder: Path, left: Left) -> None:
    """Replaces the file in `folder` (a run's metrics). Not synced: a torn one is as good as none.
    """
    path = folder / FILE
    aside = path.with_name(f".{FILE}.{os.getpid()}")
    # The accounts are worth less than the run: a full disk costs attribution, not training.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(left)))
        aside.replace(path)


def read(folder: Path) -> Left | None:
    """What the last attempt left; None where there is nothing, or nothing that can be read."""
    try:
        raw = json.loads((folder / FILE).read_text())
        raw["moment"] = Moment(**raw["moment"])
        raw["seconds"] = {str(kind): float(value) for kind, value in raw["seconds"].items()}
        return Left(**raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def take_up(session: Session, left: Left | None, now: Moment, before_seconds: float,
            hung_seconds: float = 0.0) -> float:
    """Books what earlier attempts spent since the checkpoint that `session` stands at, and the time
    between them and this one, which began `before_seconds` before `now`. Of that, `hung_seconds`
    are `hang`: so long ranks stood until it was noticed. Returns seconds of replay.
    """
    if left is None or left.run_digest != session.run_digest:
        return 0.0
    replay = 0.0
    if sum(left.seconds.values()) > sum(session.taken_up.values()):
        replay = _add_lost(session, left)
        session.joules, session.unmetered_seconds = left.joules, left.unmetered_seconds
    if not left.ended:
        between = max(0.0, left.moment.until(now) - before_seconds)
        hung = min(between, hung_seconds)
        session.book("down", between - hung)
        if hung:
            session.book("hang", hung)
    return replay


def _add_lost(session: Session, left: Left) -> float:
    again, replay = left.step > session.step, 0.0
    for kind, seconds in left.seconds.items():
        lost = seconds - session.taken_up.get(kind, 0.0)
        if lost <= 0:
            continue
        is_replay = again and kind in AGAIN
        session.book("replay" if is_replay else kind, lost)
        replay += lost if is_replay else 0.0
    return replay
