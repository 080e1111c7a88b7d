"""`curbcut go [run.toml]`: the whole circle."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curbcut.spec import Draft


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "go", help="the whole circle", description="Plan, prepare data, train, evaluate, serve one "
        "question and report. Run it again and it goes on where it stopped.")
    add_run_options(parser)
    add_machine(parser)
    add_track(parser)
    parser.add_argument("--ask", metavar="TEXT", help="the question asked over HTTP at the end")
    parser.set_defaults(run=run)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which run and where: shared by the verbs that execute one."""
    parser.add_argument("file", nargs="?", metavar="RUN.TOML|NAME",
                        help="a run file, or the name of a run that stands; without one, a "
                        "run of about 4 minutes on this machine")
    parser.add_argument("--name", help="name of the run and its folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of all runs (default: runs)")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The option that says what to train on, or to go on on."""
    parser.add_argument("--on", "--machine", metavar="MACHINE", dest="on", help='"here", or '
                        '"2xhere" for 2 ranks of this computer; a run that stands goes on there '
                        "from its last checkpoint")


def add_track(parser: argparse.ArgumentParser) -> None:
    """The option that has other tools' trackers follow the run."""
    parser.add_argument("--track", metavar="TOOLS", help="trackers that follow the run, of wandb "
                        "(offline), mlflow, tensorboard, trackio: \"wandb,mlflow\" (default: "
                        "what CURBCUT_TRACK says)")


def run(args: argparse.Namespace) -> int:
    """Does it."""
    began = time.perf_counter()
    from rich.console import Console

    from curbcut import circle
    from curbcut.launch import environment
    from curbcut.train.observers import trackers

    trackers.choose(args.track)
    console, question = Console(), args.ask or circle.QUESTION
    if (seat := environment.read()) is not None:
        return circle.go_seat(draft_of(args), args.runs, seat, console, question,
                              began=began)
    circle.go(draft_of(args), args.runs, console, question, began=began)
    return 0


def draft_of(args: argparse.Namespace) -> Draft:
    """The draft that a file, a run's name, `--name` and `--on` say together."""
    from curbcut.errors import UnknownName
    from curbcut.spec import Draft, load

    draft = Draft()
    if args.file and (args.runs / args.file / "run.toml").is_file():
        draft = draft.with_values({"name": args.file}, "command line")
    elif args.file and _means_a_name(args.file):
        known = (path.parent.name for path in args.runs.glob("*/run.toml"))
        raise UnknownName("run", args.file, known, where=str(args.runs))
    elif args.file:
        draft = load(args.file)
    if args.name:
        draft = draft.with_values({"name": args.name}, "command line", override=True)
    if getattr(args, "on", None):
        draft = draft.with_values({"machine.name": args.on}, "command line", override=True)
    return draft


def _means_a_name(text: str) -> bool:
    path = Path(text)
    return path.name == text and path.suffix != ".toml" and not path.exists()
