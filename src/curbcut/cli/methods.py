"""`curbcut methods`: each method, what it relieves, whether it is planned and run, its gain."""

from __future__ import annotations

import argparse

from curbcut.cli import formats


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "methods", help="the methods: planned? runs? gain, source",
        description="The methods that this version knows. One that is only planned, or only run, "
        "is unfinished.")
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the tables; returns 0. Raises InputError for a format that is none."""
    from curbcut.report import methods

    chosen = formats.chosen(args)
    methods.print_methods(methods.standings(), chosen)
    return 0
