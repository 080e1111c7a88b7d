"""The trackers that people use already: each is told what the run's own record says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from curbcut.errors import InputError, MissingExtra, UnknownName

VARIABLE = "CURBCUT_TRACK"
"""Environment variable with the names of the chosen trackers: "wandb,mlflow"; all ranks of a run
inherit it, and it is no part of what a run is."""
KINDS: Mapping[str, str] = {
    "wandb": "weights_and_biases", "mlflow": "mlflow_store", "tensorboard": "tensorboard_events",
    "trackio": "trackio_local",
}
"""Each tracker by the name of its package, with the module here that knows it."""


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker first hears of it."""

    id: str
    """The same for all attempts of this run, and for no other run."""
    name: str
    folder: Path
    """`runs/NAME`."""
    step: int
    """Steps done when this attempt took it up; more than 0: the tracked run goes on."""
    config: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    """The resolved run by dotted key."""
    promised: Mapping[str, tuple[float, float, float, str]] = field(default_factory=dict)
    """Value, low, high and basis of each figure of the forecast, by "section.kind"."""

    @property
    def runs(self) -> Path:
        """The folder of all runs: a tracker's own store stands there."""
        return self.folder.parent


class Tracker(Protocol):
    """One tool. All calls come from one thread of a process that does nothing else."""

    def begin(self, run: Tracked) -> None:
        """Opens the tracked run, or takes it up again."""

    def figures(self, step: int, values: Mapping[str, float], time: float) -> None:
        """What was measured at a step; `time` is seconds since 1970."""

    def note(self, step: int, text: str, time: float) -> None:
        """A remark: a resume, trouble, a checkpoint."""

    def end(self, state: str, reason: str, measured: Mapping[str, float]) -> None:
        """Closes it: "done", "stopped" (to go on later) or "crashed"; `measured` is the account by
        "section.kind", empty where there is none."""


def chosen(text: str | None = None) -> tuple[str, ...]:
    """The trackers named in `text` ("wandb,mlflow"), or without it in the environment.

    Raises UnknownName for a tracker nobody knows, MissingExtra for one that is not installed.
    """
    where = VARIABLE if text is None else "--track"
    said = os.environ.get(VARIABLE, "") if text is None else text
    names = dict.fromkeys(part.strip() for part in said.split(",") if part.strip())
    if text is not None and not names:
        raise InputError("names no tracker", where=where, mend=f"known: {', '.join(KINDS)}")
    for name in names:
        if name not in KINDS:
            raise UnknownName("tracker", name, KINDS, where=where)
        if find_spec(name) is None:
            raise MissingExtra(name, name)
    return tuple(names)


def choose(text: str | None) -> None:
    """Checks what `--track` says, or else the environment, and has this process and all that it
    starts follow it. Raises as `chosen` does.
    """
    names = chosen(text)
    if names:
        os.environ[VARIABLE] = ",".join(names)


def tracker(name: str) -> Tracker:
    """The tracker of that name, which must be one of `KINDS`; its package is imported here."""
    module = import_module(f"{__name__}.{KINDS[name]}")
    found: Tracker = module.make()
    return found


def ways_to_look(names: Iterable[str], runs: Path) -> Sequence[str]:
    """How a person looks at what each tracker keeps: one command a tracker."""
    said = {"wandb": f"wandb sync {runs}/NAME/wandb/offline-run-*",
            "mlflow": "mlflow ui --backend-store-uri "
                      f"{os.environ.get('MLFLOW_TRACKING_URI') or mlflow_place(runs)}",
            "tensorboard": f"tensorboard --logdir {runs}",
            "trackio": f"TRACKIO_DIR={trackio_folder(runs)} trackio show"}
    return [said[name] for name in names]


def mlflow_place(runs: Path) -> str:
    """Where MLflow keeps runs unless MLFLOW_TRACKING_URI says: a database where its parts for that
    are installed, else files. No run can have such a name.
    """
    if find_spec("alembic") is not None and not (runs / ".mlruns").is_dir():
        return f"sqlite:///{(runs / '.mlflow.db').resolve()}"
    return (runs / ".mlruns").resolve().as_uri()


def trackio_folder(runs: Path) -> Path:
    """Where Trackio keeps projects unless TRACKIO_DIR says."""
    return Path(os.environ.get("TRACKIO_DIR") or runs.resolve() / ".trackio")
