"""The observer that has trackers follow a run: it starts them, and says once if one fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from curbcut.train.observers.trackers import identity, trackio_folder, ways_to_look
from curbcut.train.observers.trackers.mirror import stamp
from curbcut.train.session import Session, Silent, StepReport

FOLDER = "trackers"
"""Of what each tracker printed, in the run's folder."""
LOOK_SECONDS = 5.0
END_SECONDS = 20.0
"""How long a run that has ended waits for what its trackers still write."""
_QUIET = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
          "HF_HUB_DISABLE_TELEMETRY": "1", "GIT_PYTHON_REFRESH": "quiet",
          "CUDA_VISIBLE_DEVICES": ""}
"""Of the trackers' own habits, unless the person set them: no word to anybody, no GPU."""


class Trackers(Silent):
    """Each tracker is a process of its own that reads the run's record (`mirror`): a step never
    waits for one, and one that fails or hangs is named once and costs the run nothing.
    """

    def __init__(self, names: Iterable[str], folder: Path, file: Path,
                 say: Callable[[str], None]) -> None:
        """`file` is the record of this process in the run's `folder`."""
        self.names, self.folder, self.file, self.say = tuple(names), folder, file, say
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._well: set[str] = set()
        self._looked = 0.0

    def start(self, session: Session) -> None:
        """Starts them."""
        if not self.names:
            return
        with suppress(OSError):
            identity.of(self.folder)  # once, before several ask for it
        for name in self.names:
            try:
                self._running[name] = self._begin(name)
                self._well.add(name)
            except OSError as error:
                self.say(f"tracker {name} could not be started ({error.strerror})")

    def _begin(self, name: str) -> subprocess.Popen[bytes]:
        log = self.folder / FOLDER / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        environment = _QUIET | dict(os.environ)
        environment.setdefault("TRACKIO_DIR", str(trackio_folder(self.folder.parent)))
        with log.open("wb") as out:
            # A session of its own: an interrupt at the terminal is for the run alone.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "curbcut.train.observers.trackers.mirror", name,
                 str(self.folder), str(self.file), str(stamp(self.folder))],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True)

    def after_step(self, session: Session, report: StepReport) -> None:
        """Looks now and then whether all are well."""
        now = session.clock.seconds()
        if self._running and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()

    def _look(self) -> None:
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                if code:
                    self._well.discard(name)
                    self.say(f"tracker {name} failed and is left out: {self._why(name)}")

    def _why(self, name: str) -> str:
        log = self.folder / FOLDER / f"{name}.log"
        with suppress(OSError):
            # What is set in says where, or how to mend it; what it is stands at the margin.
            said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
                    if line and not line[0].isspace()]
            if said:
                return f"{said[-1][:300]} ({log})"
        return f"see {log}"

    def settle(self, seconds: float = END_SECONDS) -> None:
        """Once the account is written: waits a little for the trackers, and says how to look."""
        limit = time.monotonic() + seconds
        while self._running and time.monotonic() < limit:
            time.sleep(0.05)
            self._look()
        for name in self._running:
            self.say(f"tracker {name} is still writing; it ends by itself")
        kept = [name for name in self.names if name in self._well]
        for line in ways_to_look(kept, self.folder.parent):
            self.say(f"tracked: {line}")
