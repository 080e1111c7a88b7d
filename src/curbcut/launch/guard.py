"""Watches the ranks that something else started (torchrun): a hang is found before a timeout.

A launcher of ours sees its ranks; torchrun only sees them end. So each rank watches others by their
pulses, in a thread of its own, and leaves, resumable, once one of them hangs: torchrun then ends
all, and starts them again where it was told to (--max-restarts). Other nodes' clocks are not
compared with this one's: what counts is when a pulse was last seen to change here.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from curbcut.errors import EXIT_RESUMABLE
from curbcut.launch import pulse, watch
from curbcut.launch.environment import Seat
from curbcut.launch.pulse import Beat
from curbcut.launch.watch import Patience
from curbcut.train import launches
from curbcut.train.launches import RANKS, Fault

LOOK_SECONDS = 1.0
ALL_WATCH_ALL = 32
"""Ranks up to which each watches all others; beyond, its node's and one of the next node."""
FAR_SECONDS = 40.0
"""Silence of another node's rank: a network file system may show a pulse late (x `NOT_SURE`)."""


def watched_by(seat: Seat) -> list[int]:
    """Ranks that the rank of `seat` watches: in the end, each is watched by others."""
    if seat.size <= ALL_WATCH_ALL:
        return [rank for rank in range(seat.size) if rank != seat.rank]
    first = seat.node * seat.local_size
    near = [rank for rank in range(first, first + seat.local_size) if rank != seat.rank]
    return [*near, (seat.rank + seat.local_size) % seat.size]


class Guard:
    """Looks at others' pulses until it is stopped; `leave` is called once, with the first fault."""

    def __init__(self, run_folder: Path, seat: Seat, patience: Patience | None = None,
                 leave: Callable[[Fault], None] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._seat, self._clock = run_folder, seat, clock
        self._patience = patience or Patience()
        self._leave = leave or self._go
        self._seen: dict[int, tuple[Beat, Beat]] = {}
        self._since = self._last_look = clock()
        self._host = socket.gethostname()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="guard")

    def start(self) -> None:
        """From now on the others are watched."""
        self._thread.start()

    def stop(self) -> None:
        """They may end now."""
        self._ended.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _look_on(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            fault = self.look()
            if fault is not None and not self._ended.is_set():
                self._leave(fault)
                return

    def look(self) -> Fault | None:
        """The rank that hangs, of those that were heard of in this attempt; None for none."""
        now = self._clock()
        if now - self._last_look > watch.PAUSED_SECONDS:
            self._since = now
        self._last_look = now
        beats = {rank: beat for rank in (*watched_by(self._seat), self._seat.rank)
                 if (beat := self._timed(rank, now)) is not None}
        # Who is at the end falls silent by leaving.
        busy = {rank: beat for rank, beat in beats.items() if beat.phase != pulse.ENDING}
        near = {rank: beat for rank, beat in busy.items() if beat.host == self._host}
        far = {rank: beat for rank, beat in busy.items() if beat.host != self._host}
        crowded = watch.crowding()
        return (self._judged(near, _states(near), now, self._patience, crowded)
                or self._judged(far, {}, now, replace(
                    self._patience, silent_seconds=max(FAR_SECONDS,
                                                       self._patience.silent_seconds)), crowded)
                or watch.stuck(beats, _pids(beats), now, self._since, self._patience, self._host,
                               crowded))

    def _judged(self, beats: Mapping[int, Beat], states: Mapping[int, str], now: float,
                patience: Patience, crowded: float) -> Fault | None:
        return watch.silent(beats, states, _pids(beats), now, self._since, patience, self._host,
                            crowded)

    def _timed(self, rank: int, now: float) -> Beat | None:
        """A rank's beat with this process's times: when it was first seen as it is."""
        found = pulse.read(self._folder / RANKS, rank, self._seat.attempt)
        if found is None:
            return None
        before = self._seen.get(rank)
        beat_seconds = moved_seconds = now
        if before is not None:
            old, timed = before
            beat_seconds = timed.beat_seconds if old.beat_seconds == found.beat_seconds else now
            moved_seconds = timed.moved_seconds if _place(old) == _place(found) else now
        timed = replace(found, beat_seconds=beat_seconds, moved_seconds=moved_seconds)
        self._seen[rank] = found, timed
        return timed

    def _go(self, fault: Fault) -> None:
        """Says it, once for all who watch, and leaves: the process's main thread cannot, it waits.
        """
        others = [rank for rank in self._seen if rank != fault.rank]
        if self._seat.rank == min([*others, self._seat.rank]):
            launches.alert(self._folder, fault)
            print(f"curbcut: {fault.kind}: {fault}; leaving, to go on from the newest checkpoint",
                  file=sys.stderr, flush=True)
        os._exit(EXIT_RESUMABLE)


def _place(beat: Beat) -> tuple[int, str, int]:
    return beat.step, beat.phase, beat.steps_here


def _pids(beats: Mapping[int, Beat]) -> dict[int, int]:
    return {rank: beat.pid for rank, beat in beats.items()}


def _states(beats: Mapping[int, Beat]) -> dict[int, str]:
    """Letters of /proc/PID/stat, where this computer has them."""
    found = {}
    for rank, beat in beats.items():
        with suppress(OSError, IndexError):
            text = Path(f"/proc/{beat.pid}/stat").read_text()
            found[rank] = text.rpartition(")")[2].split()[0]
    return found
