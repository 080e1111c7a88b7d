"""Named points of a run at which tests let a process fail: killed, stopped, late, or in error.

A point is a call `reach("save: in shard", rank, step)` in the code. It costs one look at an empty
dict, and does nothing, unless a test armed it in this process (a forked child inherits that) or
`CURBCUT_FAULT` did in a process that tests start anew: "POINT;ACTION;RANK;STEP;NTH", the last three
may be empty.

    CURBCUT_FAULT="step: end;kill;1;7" curbcut train run.toml     rank 1 dies after step 7
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from curbcut.errors import UnknownName

VARIABLE = "CURBCUT_FAULT"
POINTS: Mapping[str, str] = {
    "save: before aside": "nothing is written yet",
    "save: in shard": "half of a rank's bytes are in its file",
    "save: before sync": "all of them, not yet on the disk",
    "save: after shard": "a rank's file is whole and verified",
    "save: before manifest": "all ranks' files are whole, nothing says so",
    "save: before rename": "the manifest is written, the folder still aside",
    "save: after rename": "the checkpoint is complete, older ones are not pruned",
    "save: in prune": "an old checkpoint has lost its name, not yet its files",
    "save: done": "older ones are pruned",
    "start: resumed": "the newest checkpoint is taken up, no step is taken",
    "step: begin": "before the data of a step",
    "step: in accumulation": "after a micro-batch that is not the step's last",
    "step: end": "the weights have moved, nobody has looked yet (`step` counts this one)",
    "evaluation: in pass": "some held-out text may have been scored, not all",
    "launch: joined": "a rank has met the others",
}
"""Every point and what is true there."""


@dataclass
class Fault:
    """What happens at a point: `act` runs the `nth` time that `rank` gets there at `step`."""

    act: Callable[[], object]
    rank: int | None = None
    """Any rank where None."""
    step: int | None = None
    """Any step where None."""
    nth: int = 1
    seen: int = field(default=0, compare=False)


_armed: dict[str, list[Fault]] = {}


def reach(point: str, rank: int, step: int | None = None) -> None:
    """Says that `rank` is at `point`, `step` steps done (None: it does not know): nothing, unless a
    test armed it.
    """
    if not _armed:
        return
    for fault in _armed.get(point, ()):
        if fault.rank in (None, rank) and fault.step in (None, step):
            fault.seen += 1
            if fault.seen == fault.nth:
                fault.act()


def arm(point: str, act: Callable[[], object], *, rank: int | None = None,
        step: int | None = None, nth: int = 1) -> None:
    """Lets `act` run at `point`; raises UnknownName where the code has no such point."""
    if point not in POINTS:
        raise UnknownName("failure point", point, POINTS)
    _armed.setdefault(point, []).append(Fault(act, rank, step, nth))


def disarm() -> None:
    """Forgets all faults."""
    _armed.clear()


def kill() -> None:
    """SIGKILL to this process: what a machine that dies looks like to its neighbours."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """SIGSTOP to this process: it holds all it has and answers no more."""
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep(seconds: float) -> Callable[[], None]:
    """An action that takes so long."""
    return lambda: time.sleep(seconds)


def error(exception: BaseException) -> Callable[[], None]:
    """An action that raises."""
    def act() -> None:
        raise exception

    return act


def arm_from(text: str) -> None:
    """Arms what `CURBCUT_FAULT` says; actions are kill, hang, slow (a second) and os errors by
    number. Raises UnknownName for another point or action.
    """
    point, action, rank, step, nth = (text.split(";") + [""] * 4)[:5]
    actions: dict[str, Callable[[], object]] = {"kill": kill, "hang": hang, "slow": sleep(1.0)}
    if action.isdigit():
        actions[action] = error(OSError(int(action), os.strerror(int(action))))
    if action not in actions:
        raise UnknownName("action", action, actions, where=VARIABLE)
    arm(point, actions[action], rank=int(rank) if rank else None,
        step=int(step) if step else None, nth=int(nth) if nth else 1)


if os.environ.get(VARIABLE):
    arm_from(os.environ[VARIABLE])
