"""`curbcut audit verify | list`: who changed what, and whether the record is whole."""

from __future__ import annotations

import argparse
import json
import re
import sys

from curbcut.cli import formats
from curbcut.cli.keys import add_ledger_options, ledger_of
from curbcut.errors import EXIT_FAILED, EXIT_OK, InputError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "audit", help="who changed what, and whether the record is whole",
        description="The audit chain: every change of organisations, projects, keys, limits, "
        "budgets, prices and texts, each row with the hash of the row before it.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verifying = actions.add_parser(
        "verify", help="walk the whole chain; exit code 1 where a row was changed or is missing",
        description="Walks the whole chain. Note the head that it prints somewhere else: given "
        "back with --head it proves that nothing was cut off since.")
    verifying.add_argument("--head", metavar="HASH", default="",
                           help="the head of an earlier day, which must still be in the chain")
    verifying.add_argument("--json", action="store_true", help="print the same as JSON")
    listing = actions.add_parser("list", help="the newest rows")
    listing.add_argument("--after", type=int, metavar="ROW", help="rows beyond this one")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="so many rows (50)")
    formats.add(listing)
    for action, does in ((verifying, _verify), (listing, _list)):
        add_ledger_options(action)
        action.set_defaults(run=does)


def _verify(args: argparse.Namespace) -> int:
    """Prints the verdict; 1 where the chain is broken. Raises InputError for what is no hash."""
    from curbcut.ledger import audit

    head = args.head.strip().lower()
    if head and not re.fullmatch("[0-9a-f]{64}", head):
        raise InputError(f"{args.head!r} is no hash of a row", where="--head",
                         mend="give the 64 hex digits that `curbcut audit verify` printed")
    with ledger_of(args, create=False) as ledger:
        verdict = audit.verify(ledger, head)
    if args.json:
        print(json.dumps({"sound": not verdict.fault, **vars(verdict)}, indent=2))
    elif not verdict.fault:
        rows = "1 row is" if verdict.rows == 1 else f"{verdict.rows:,} rows are"
        print(f"{rows} sound; head {verdict.head}")
    if verdict.fault:
        print(f"curbcut: the audit chain is broken: {verdict.fault}\n  help: compare it with a "
              "copy of the ledger; what was changed after that row proves nothing",
              file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _list(args: argparse.Namespace) -> int:
    from curbcut.ledger import audit
    from curbcut.report import access as report
    from curbcut.report.tables import show

    chosen = formats.chosen(args)
    if not 1 <= args.limit <= 100_000:
        raise InputError(f"{args.limit} rows cannot be listed", where="--limit",
                         mend="give 1 to 100000")
    if args.after is not None and not 0 <= args.after < 2**62:
        raise InputError(f"{args.after} is no row", where="--after", mend="give 0 or more")
    with ledger_of(args, create=False) as ledger:
        found = audit.entries(ledger, after=args.after or 0, limit=args.limit,
                              newest=args.after is None)
    if not found and chosen == "text":
        print("no rows" + (f" after {args.after}" if args.after else ": nothing was changed yet"))
        return EXIT_OK
    show([report.audit(found)], chosen, plain=[vars(one) for one in found])
    return EXIT_OK
