"""The processes of a run's ranks on this computer: started, counted, signalled, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from curbcut.errors import EXIT_FAILED
from curbcut.launch.environment import Seat
from curbcut.launch.ranks import die_with_parent
from curbcut.launch.watch import Ended
from curbcut.train.lock import LAUNCHER

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass
class Crew:
    """The ranks of one attempt, by rank."""

    pids: dict[int, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    """Exit codes of those that ended by themselves; below 0 for minus the signal."""

    def fork(self, rank: int, work: Callable[[], int]) -> None:
        """Starts a rank as a copy of this process: nothing is imported anew."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self.pids[rank] = pid
            return
        code = EXIT_FAILED
        try:
            _begin_rank()
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # Without the parent's exit handlers, and without waiting for threads that it had.
            os._exit(code)

    def start(self, rank: int, command: list[str], seat: Seat) -> None:
        """Starts a rank as a fresh process that finds its seat in its environment."""
        environment = os.environ | seat_variables(seat) | {LAUNCHER: str(os.getpid())}
        process = subprocess.Popen(command, env=environment, process_group=0)
        self.pids[rank] = process.pid

    def poll(self) -> Mapping[int, int]:
        """Exit codes of the ranks that have ended."""
        for rank, pid in self.pids.items():
            if rank not in self.codes:
                try:
                    found, status = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    found, status = pid, EXIT_FAILED << 8
                if found:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        return self.codes

    @property
    def running(self) -> list[int]:
        """Ranks that have not ended."""
        return [rank for rank in self.pids if rank not in self.poll()]

    def signal(self, number: int) -> None:
        """Sends a signal to all that run."""
        for rank in self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pids[rank], number)

    def states(self) -> Mapping[int, str]:
        """Letters of /proc/PID/stat: "T" is stopped; empty where the system has no /proc."""
        found = {}
        for rank in self.running:
            with suppress(OSError):
                text = Path(f"/proc/{self.pids[rank]}/stat").read_text()
                found[rank] = text.rpartition(")")[2].split()[0]
        return found

    def end(self) -> None:
        """Kills what still runs, with all that it started, and waits until nothing is left."""
        left = self.running
        for rank in left:
            for kill in (os.killpg, os.kill):
                with suppress(ProcessLookupError, PermissionError):
                    kill(self.pids[rank], signal.SIGKILL)
        for rank in left:
            with suppress(ChildProcessError):
                os.waitpid(self.pids[rank], 0)
            del self.pids[rank]

    def wait(self, seconds: float) -> None:
        """Waits until all have ended, or so long."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            time.sleep(0.02)

    def ended(self, error_of: Callable[[int], str]) -> dict[int, Ended]:
        """How those ended that were not killed by `end`."""
        return {rank: Ended(code, error_of(rank)) for rank, code in self.codes.items()}


def _begin_rank() -> None:
    """A group of its own: Ctrl-C on the terminal reaches the launcher, which tells the ranks."""
    os.setpgid(0, 0)
    die_with_parent()
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)


def seat_variables(seat: Seat) -> dict[str, str]:
    """The environment that says a seat, as torchrun says it."""
    return {"RANK": str(seat.rank), "WORLD_SIZE": str(seat.size),
            "LOCAL_RANK": str(seat.local_rank), "LOCAL_WORLD_SIZE": str(seat.local_size),
            "MASTER_ADDR": seat.address, "MASTER_PORT": str(seat.port),
            "TORCHELASTIC_RESTART_COUNT": str(seat.attempt - 1),
            "TORCHELASTIC_USE_AGENT_STORE": str(seat.agent_store)}
