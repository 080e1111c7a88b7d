"""Which rank is at fault: a pure judgement of how ranks ended and of their last beats.

When one rank dies the others fail too, within milliseconds, because their connections break; when
one hangs all of them wait. The one to name is the first cause, not the first to be seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from curbcut.launch.pulse import ENDING, WAITS, Beat
from curbcut.train.launches import Fault

BROKEN = ("Connection closed by peer", "Connection reset by peer", "Connection refused",
          "Broken pipe", "Timed out waiting", "pair closure", "remote process exited",
          "Socket Timeout", "ncclRemoteError", "connectFullMesh", "Wait timeout")
"""Words of the libraries' errors in a rank that lost another one."""
LONG = frozenset({"evaluation", "checkpoint", ENDING})
"""Phases that may take much longer than a step."""
SLOW = 2.5
"""A rank is slow whose own work takes this times what the others' does: five times slower is
told with room for noise (ranks that share cores slow each other), twice is a busy neighbour."""
NOT_SURE = 3.0
"""A silent process that is not stopped may only be starved of its core: it is given longer."""
CROWD = 4.0
"""A crowded computer is waited for at most so many times longer."""
PAUSED_SECONDS = 5.0
"""A gap in a watch itself (Ctrl-Z, a suspended laptop) after which silence is counted anew."""
NEXT_TO_NOTHING = 1e-4
"""Seconds of own work a step below which it tells nothing."""


@dataclass(frozen=True)
class Patience:
    """How long silence is waited out before it counts as a hang."""

    silent_seconds: float = 10.0
    """A process whose pulse is silent so long is stopped or stuck."""
    stuck_seconds: float = 120.0
    """All ranks beat and none moves within a step for so long: one is stuck."""
    steps: float = 10.0
    """Both wait at least so many median steps."""
    ending_seconds: float = 30.0
    """Grace to save a checkpoint after a signal."""


@dataclass(frozen=True)
class Ended:
    """How a rank's process ended."""

    code: int
    """Exit code; below 0 for minus the signal."""
    error: str = ""
    """What it said last, "" where it could not."""


def ended_by(ended: Mapping[int, Ended], beats: Mapping[int, Beat | None],
             pids: Mapping[int, int], host: str) -> Fault | None:
    """The rank whose end is the cause, of those that ended other than in order; None for none."""
    bad = {rank: one for rank, one in ended.items() if one.code not in (0, 75)}
    if not bad:
        return None

    def guilt(rank: int) -> tuple[int, int]:
        one = bad[rank]
        if one.code < 0 and one.code != -signal.SIGABRT:
            return (0, rank)
        broken = any(word in one.error for word in BROKEN)
        # An abort may be a library that lost a peer; an error of its own is a better cause.
        return (1 if one.error and not broken else 2 if one.code < 0 else 3, rank)

    rank = min(bad, key=guilt)
    one = bad[rank]
    if one.code < 0:
        kind, what = "died", f"killed by {_signal_name(-one.code)}"
    else:
        kind, what = "failed", one.error or f"left with exit code {one.code}"
    return _fault(kind, rank, beats.get(rank), pids, host, what)


def hangs(beats: Mapping[int, Beat | None], states: Mapping[int, str], pids: Mapping[int, int],
          now: float, since: float, patience: Patience, host: str,
          crowded: float = 1.0) -> Fault | None:
    """The rank that hangs, or None.

    `states` are the letters of /proc/PID/stat ("T" for stopped) where the system tells, `since`
    the monotonic time before which silence does not count: the start, or this watch's own pause;
    `crowded` how much longer all takes here than on a computer of one's own.
    """
    return (silent(beats, states, pids, now, since, patience, host, crowded)
            or stuck(beats, pids, now, since, patience, host, crowded))


def silent(beats: Mapping[int, Beat | None], states: Mapping[int, str], pids: Mapping[int, int],
           now: float, since: float, patience: Patience, host: str,
           crowded: float = 1.0) -> Fault | None:
    """The rank whose process gives no sign of life, or None."""
    silent_for = max(patience.silent_seconds, _long(beats, patience))
    quiet_for = {rank: now - max(since, beat.beat_seconds if beat else since)
                 for rank, beat in beats.items()}
    quiet = [rank for rank, seconds in quiet_for.items() if seconds > silent_for * (
        1.0 if states.get(rank) == "T" else NOT_SURE * crowded)]
    if not quiet:
        return None
    rank = max(quiet, key=lambda r: (states.get(r) == "T", quiet_for[r]))
    why = "is stopped (SIGSTOP)" if states.get(rank) == "T" else "gives no sign of life"
    return _fault("hung", rank, beats[rank], pids, host, f"{why} for {quiet_for[rank]:.0f} s")


def stuck(beats: Mapping[int, Beat | None], pids: Mapping[int, int], now: float, since: float,
          patience: Patience, host: str, crowded: float = 1.0) -> Fault | None:
    """The rank that is furthest behind where all live and none has moved within a step."""
    limit = max(patience.stuck_seconds, _long(beats, patience)) * crowded
    alive = {rank: beat for rank, beat in beats.items() if beat is not None}
    if len(alive) < len(beats) or not alive:
        return None
    still = {rank: now - max(since, beat.moved_seconds) for rank, beat in alive.items()}
    if min(still.values()) <= limit or any(
            beat.phase in LONG or not beat.steps_here for beat in alive.values()):
        return None
    # Who waits in an agreement waits for somebody; of the others the one that is furthest behind.
    rank = min(alive, key=lambda r: (alive[r].phase == WAITS, alive[r].step,
                                     alive[r].phase != "data", alive[r].moved_seconds))
    return _fault("hung", rank, alive[rank], pids, host,
                  f"has not moved for {still[rank]:.0f} s (in {alive[rank].phase!r})")


def _long(beats: Mapping[int, Beat | None], patience: Patience) -> float:
    known = [b.step_seconds for b in beats.values() if b is not None and b.step_seconds]
    return patience.steps * median(known) if known else 0.0


def crowding() -> float:
    """Processes that want a core of this computer for each one it has, from 1 to `CROWD`: a
    starved process is silent for as many times longer. 1 where the system does not say.
    """
    try:
        wanted = os.getloadavg()[0]
    except (OSError, AttributeError):
        return 1.0
    return min(CROWD, max(1.0, wanted / (os.cpu_count() or 1)))


def slow(own_seconds: Sequence[float]) -> list[tuple[int, float]]:
    """Ranks whose own work a step takes `SLOW` times the median of the others', with the factor.

    `own_seconds` are by rank, of sections in which no rank waits for another.
    """
    found: list[tuple[int, float]] = []
    for rank, mine in enumerate(own_seconds):
        others = [seconds for other, seconds in enumerate(own_seconds) if other != rank]
        usual = max(median(others), NEXT_TO_NOTHING) if others else mine
        if usual and mine > SLOW * usual:
            found.append((rank, mine / usual))
    return found


def _fault(kind: str, rank: int, beat: Beat | None, pids: Mapping[int, int], host: str,
           what: str) -> Fault:
    return Fault(kind, rank, beat.host if beat else host, pids.get(rank, 0),
                 beat.step if beat else 0, what)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
