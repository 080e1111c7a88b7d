"""The ranks of a run that something else started: rank 0 plans and prepares, all train.

All nodes see one folder of runs: checkpoints are written by all ranks and read on any layout.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.data.corpus import Corpus
from curbcut.errors import EXIT_OK, CurbcutError, InputError
from curbcut.launch import ranks
from curbcut.launch.environment import Seat, store
from curbcut.launch.ranks import Task
from curbcut.spec import Account, Resolved
from curbcut.train import folder as run_folders
from curbcut.train import lock

if TYPE_CHECKING:
    from rich.console import Console

PREPARING = timedelta(hours=24)
"""How long the other ranks wait for rank 0's plan and text."""
SEEN_SECONDS = 60.0
"""How long a network file system may take to show what another node wrote."""
PLAN = "run.toml"
Settle = Callable[[], tuple[Resolved, Account, Corpus]]
Tell = Callable[[Resolved, Account, Corpus, Account], None]


def train(seat: Seat, runs: Path, name: str, console: Console, *, settle: Settle,
          prepared: Callable[[Resolved, Console], Corpus], tell: Tell,
          began: float | None = None) -> int:
    """Plans on rank 0, trains on all; returns this rank's exit code. Collective.

    `settle` plans and prepares (rank 0 only), `prepared` opens or prepares the text of a run,
    `tell` reports what was measured (rank 0 only, where no launcher of ours does it). `began` is
    when this attempt began, where that was before its ranks met.
    """
    run_folder = run_folders.run_folder(runs, name)
    if not seat.main:
        console.quiet = True
    served = store(seat, name)
    resolved, forecast, corpus = _agreed(seat, served, run_folder, console, settle, prepared)
    ending = run_folders.ended(run_folder)
    if ending is not None and seat.main:
        console.print(f"  done before ({ending.reason}); a new run needs a new --name")
    if _from_main(seat, served, "ended", ending is not None):
        if seat.main and ending is not None:
            tell(resolved, forecast, corpus, ending.measured)
        return EXIT_OK
    task = Task(resolved, forecast, corpus, run_folder, began=began)
    code = ranks.exit_code_of(lambda: ranks.train(task, seat, served, console), run_folder,
                              seat.rank)
    words = ranks.read_last_words(run_folder, seat.rank) if code not in (0, 75) else {}
    if words and not lock.launched():
        print(f"curbcut: rank {seat.rank}: {words.get('error')}", file=sys.stderr)
    if seat.main and code == EXIT_OK and not lock.launched():
        done = run_folders.ended(run_folder)
        assert done is not None
        tell(resolved, forecast, corpus, done.measured)
    return code


def _agreed(seat: Seat, served: Any, run_folder: Path, console: Console, settle: Settle,
            prepared: Callable[[Resolved, Console], Corpus]
            ) -> tuple[Resolved, Account, Corpus]:
    """The run that rank 0 settled, and its text."""
    if seat.main:
        try:
            resolved, forecast, corpus = settle()
            told = {"run": (run_folder / PLAN).read_text(encoding="utf-8"),
                    "text": text_digest(corpus)}
        except CurbcutError as error:
            served.set("settled", json.dumps({"refused": error.what}))
            raise
        served.set("settled", json.dumps(told))
        return resolved, forecast, corpus
    served.wait(["settled"], PREPARING)
    told = json.loads(served.get("settled"))
    if "refused" in told:
        raise InputError(f"rank 0 refused: {told['refused']}", where=f"rank {seat.rank}")
    see_plan(run_folder, told["run"])
    resolved, forecast = run_folders.read_plan(run_folder)
    corpus = prepared(resolved, console)
    if text_digest(corpus) != told["text"]:
        raise InputError("this node's text is not rank 0's", where=resolved.run.train.text,
                         mend="give every node the same files, or a folder that all of them see")
    return resolved, forecast, corpus


def see_plan(run_folder: Path, text: str, wait_seconds: float = SEEN_SECONDS) -> None:
    """Returns once rank 0's run stands in this node's folder of it.

    Raises InputError where it does not come to be seen: the folder is not the same one.
    """
    until = time.monotonic() + wait_seconds
    while True:
        with suppress(OSError):
            if (run_folder / PLAN).read_text(encoding="utf-8") == text:
                return
        if time.monotonic() > until:
            raise InputError("this node does not see what rank 0 wrote", where=str(run_folder),
                             mend="give --runs a folder that all nodes see: every rank writes "
                             "its part of a checkpoint there")
        time.sleep(0.1)


def text_digest(corpus: Corpus) -> str:
    """Hash of a prepared text: of the hashes of its files."""
    files = json.dumps(corpus.manifest["files"], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()


def _from_main(seat: Seat, served: Any, key: str, value: bool) -> bool:
    """Rank 0's word: what it finds in its own folder holds for all."""
    if seat.main:
        served.set(key, str(int(value)))
        return value
    return bool(int(served.get(key)))
