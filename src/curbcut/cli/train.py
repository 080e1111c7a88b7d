"""`curbcut train [RUN.TOML|NAME]`: plan, data and training; or on from the last checkpoint."""

from __future__ import annotations

import argparse
import time

from curbcut.cli.go import add_machine, add_run_options, add_track, draft_of


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "train", help="train a planned run", description="Train a run to its end. SIGTERM or "
        "Ctrl-C saves a checkpoint and leaves with exit code 75; the same command goes on, also "
        "with another layout of ranks in the file or by --on.")
    add_run_options(parser)
    add_machine(parser)
    add_track(parser)
    parser.add_argument("--on-slow", choices=("record", "relaunch"), default="record",
                        help="what a rank that is several times slower than the others leads to: "
                        "an alert (record), or a new launch from a checkpoint")
    parser.add_argument("--rehearse", action="store_true",
                        help="first take a minute of the run, made small, and show what the plan "
                        "then says; the run itself is not begun")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it."""
    began = time.perf_counter()
    from rich.console import Console

    from curbcut import circle
    from curbcut.errors import InputError
    from curbcut.launch import environment
    from curbcut.train.observers import trackers

    trackers.choose(args.track)
    console = Console()
    if (seat := environment.read()) is not None:
        if args.rehearse:
            environment.refuse(seat, InputError(
                "a rehearsal starts its own ranks", where="--rehearse",
                mend="take it before, on one computer, without torchrun"))
        return circle.train_seat(draft_of(args), args.runs, seat, console, began=began)
    if args.rehearse:
        circle.rehearse(draft_of(args), args.runs, console)
        return 0
    settled = circle.settle(draft_of(args), args.runs, console, began=began)
    measured = circle.train(settled, console, relaunch_slow=args.on_slow == "relaunch")
    circle.show_samples(settled, console)
    circle.tell(settled, measured, console)
    return 0
