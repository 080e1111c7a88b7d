"""`curbcut report RUN`: promised against measured, line by line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.cli import formats
from curbcut.cli.keys import add_ledger_options, ledger_of
from curbcut.errors import InputError, UnknownName

if TYPE_CHECKING:
    from curbcut.ledger.inbox import Imported
    from curbcut.ledger.store import Ledger
    from curbcut.report.tables import Format, Table
    from curbcut.spec import Account, Resolved

Step = tuple[str, "Account | None", "Account | None"]
"""Name of a step, what was promised of it, what was measured."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "report", help="promised against measured, line by line",
        description="What a run was to take and what it took, with the ratio of each figure.")
    parser.add_argument("name", metavar="RUN", help="name of the run")
    add_ledger_options(parser)
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Imports what the run's processes left, and prints the report; returns 0."""
    chosen = formats.chosen(args)
    in_folder = _has_inbox(args.runs, args.name)
    with ledger_of(args, create=in_folder) as ledger:
        taken = _import(ledger, args.runs / args.name) if in_folder else None
        known = {line.name for line in ledger.runs()}
        if args.name not in known:
            raise UnknownName("run", args.name, known | set(_folders(args.runs)),
                              where=str(args.runs))
        resolved = ledger.resolved(args.name)
        steps = [(step, ledger.account(args.name, step, "forecast"),
                  ledger.account(args.name, step, "measured"))
                 for step in ledger.steps(args.name)]
    notes = _notes(taken, steps)
    from curbcut.report.tables import show

    if chosen == "json":
        show([], chosen, plain=_plain(args.name, resolved, steps, notes))
    else:
        show(list(_tables(args.name, resolved, steps, notes, chosen)), chosen)
    return 0


def _has_inbox(runs: Path, name: str) -> bool:
    # A name is one folder of ours and never a way to another one.
    return name in _folders(runs) and (runs / name / "metrics").is_dir()


def _folders(runs: Path) -> Iterator[str]:
    try:
        return iter(sorted(path.name for path in runs.iterdir()
                           if path.is_dir() and not path.name.startswith(".")))
    except FileNotFoundError:
        return iter(())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(runs),
                         mend="name the folder of your runs with --runs") from None


def _import(ledger: Ledger, folder: Path) -> Imported:
    from curbcut.ledger.inbox import import_folder

    return import_folder(ledger, folder)


def _notes(taken: Imported | None, steps: list[Step]) -> list[str]:
    notes = [] if steps else ["nothing was promised or measured of this run yet"]
    if taken is not None and taken.damaged:
        first = taken.damaged[0]
        notes.append(f"damaged lines in the run's record: {len(taken.damaged)}; the first is in "
                     f"{first.file} at byte {first.offset_bytes}: {first.reason}")
    if taken is not None and taken.torn:
        notes.append(f"unfinished last line in {', '.join(taken.torn)}: its process was killed, "
                     "or is writing now")
    return notes


def _tables(name: str, resolved: Resolved | None, steps: list[Step], notes: list[str],
            chosen: Format) -> Iterator[Table]:
    """Of each step promised against measured, or what was promised where nothing is measured."""
    from curbcut.report.account import plan_tables
    from curbcut.report.comparison import comparison_tables
    from curbcut.report.tables import Table
    from curbcut.spec import Account

    currency = resolved.run.place.currency if resolved else "USD"
    for step, promised, measured in steps:
        if measured is None and promised is not None and resolved is not None:
            yield Table(f"{name}: {step}", (), ())
            yield from plan_tables(resolved, promised, chosen, notes=["not measured yet"])
        else:
            yield from comparison_tables(promised or Account(), measured or Account(),
                                         title=f"{name}: {step}", currency=currency)
    if notes:
        yield Table("", (), (), [f"note: {note}" for note in notes])


def _plain(name: str, resolved: Resolved | None, steps: list[Step],
           notes: list[str]) -> dict[str, Any]:
    from curbcut.report.comparison import as_plain
    from curbcut.spec import codec

    return {
        "name": name,
        "run": codec.plain(resolved.run) if resolved else None,
        "steps": {step: as_plain(promised, measured) for step, promised, measured in steps},
        "notes": notes,
    }
