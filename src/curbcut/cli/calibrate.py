"""`curbcut calibrate`: your own measured rows become constants of your stack."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curbcut.cli import formats


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "calibrate", help="fit the time model's constants to your own measured rows",
        description="Fits the named constants of one software to its rows in FILE (ten or more "
        "are best), around what other software taught. With --write they go to your own facts, "
        "and the next plan with that software uses them.")
    parser.add_argument("file", metavar="FILE.csv", type=Path,
                        help="measured step times, with the columns of `curbcut validate`")
    parser.add_argument("--stack", default="", metavar="NAME",
                        help="the software, where the file has more than one")
    parser.add_argument("--version", default="", metavar="V", help="rows of this version only")
    formats.add(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write them to your own facts")
    what.add_argument("--dry-run", action="store_true", help="only print them (the default)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints constants and errors; returns 0. Raises InputError for a file without such rows."""
    from curbcut.plan.validation import calibrate
    from curbcut.report.validation import print_calibration

    chosen = formats.chosen(args)
    found = calibrate.calibrate(args.file, args.stack, args.version)
    print_calibration(found, chosen, calibrate.plain(found) if chosen == "json" else None)
    if found.rows < calibrate.ENOUGH_ROWS:
        print(f"curbcut: {found.rows} rows are few: the constants stay near what other software "
              f"taught; {calibrate.ENOUGH_ROWS} or more are best", file=sys.stderr)
    if args.write:
        path = calibrate.write(found)
        print(f"written to {path}", file=sys.stderr)
    return 0
