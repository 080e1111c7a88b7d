"""The options of every verb that prints tables: `--format`, and `--json` as its short form."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from curbcut.errors import InputError, UnknownName
from curbcut.report.tables import Format

if TYPE_CHECKING:
    from collections.abc import Sequence


def add(parser: argparse.ArgumentParser) -> None:
    """Adds `--format` and `--json`."""
    parser.add_argument("--format", metavar="FORMAT", help="text, markdown, csv or json (text)")
    parser.add_argument("--json", action="store_true", help="short for --format json")


def chosen(args: argparse.Namespace) -> Format:
    """The format that was asked for.

    Raises UnknownName for another one, InputError where `--json` and `--format` disagree.
    """
    known: Sequence[Format] = get_args(Format)
    if args.format is None:
        return "json" if args.json else "text"
    found = next((one for one in known if one == args.format), None)
    if found is None:
        raise UnknownName("format", args.format, known, where="--format")
    if args.json and found != "json":
        raise InputError(f"asks for JSON, and --format for {found}", where="--json",
                         mend="give one of them")
    return found
