"""The planner's page, and its JSON: `planning` answers in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route

from curbcut.errors import CurbcutError, InputError
from curbcut.web.answers import as_json
from curbcut.web.pages import page_route

if TYPE_CHECKING:
    from curbcut.web.site import Site

MOST_SECONDS = 60.0
"""An answer that takes longer never comes: the process is ended, and the next question starts
another."""
MOST_WAITING = 8
"""Questions that wait for the one before them; more are turned away."""


def routes(site: Site) -> list[Route]:
    """The page and what it asks."""
    worker = Worker(site.runs)

    def asks(what: str) -> Route:
        def endpoint(request: Request) -> dict[str, Any]:
            asked = dict(request.query_params)
            asked.pop("token", None)
            return worker.ask(what, asked)
        return Route(f"/api/planner/{what}", as_json(endpoint))

    return [page_route("/planner", "planner.html", "/planner"), *map(asks, (
        "answer", "levers", "map", "choices"))]


class Worker:
    """The process that plans: started by the first question, ended with this one (its questions
    then end) or when it hangs.
    """

    def __init__(self, runs: Path, command: Sequence[str] = ()) -> None:
        """`command` stands for the planner's own: a line of JSON in, one out."""
        # -P: what lies in the folder that this was started in is no module of ours.
        self._command = [*command] or [sys.executable, "-P", "-m", "curbcut.web.planning",
                                       str(runs)]
        self._turn = threading.Lock()
        self._waiting = 0
        self._doing = ""
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """One answer. Raises InputError as the planner does, CurbcutError where none comes."""
        if self._waiting >= MOST_WAITING:
            raise CurbcutError("too many questions at once", where="planner",
                               mend="wait for an answer")
        self._waiting += 1
        try:
            self._hurry()
            with self._turn:
                told = self._told({"do": what, "asked": asked})
        finally:
            self._waiting -= 1
        if "found" in told:
            found: dict[str, Any] = told["found"]
            return found
        error = told["error"]
        kind = InputError if told["exit_code"] == 2 else CurbcutError
        raise kind(error["what"], where=error["where"], mend=error["mend"])

    @property
    def pid(self) -> int:
        """Of the process that plans; 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    def close(self) -> None:
        """Ends the process."""
        with self._turn:
            self._end()

    def _hurry(self) -> None:
        """Tells who pulls levers that another question waits."""
        process = self._process
        if self._doing == "levers" and process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write("\n")
                process.stdin.flush()

    def _told(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Timer(MOST_SECONDS, process.kill)
        late.daemon = True
        late.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            self._doing = question["do"]
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            self._doing = ""
            late.cancel()
        if not line:
            self._end()
            raise CurbcutError("the planner gave no answer", where="planner",
                               mend="ask again; if it stays so, ask `curbcut plan` in a terminal")
        told: dict[str, Any] = json.loads(line)
        return told

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, text=True, encoding="utf-8")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
