"""`curbcut keys add NAME | list | revoke NAME`: who may use what is served."""

from __future__ import annotations

import argparse
import getpass
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "keys", help="add, list and revoke API keys",
        description="API keys of what is served. A secret is shown once and kept nowhere.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="make a key and print its secret, once")
    revoking = actions.add_parser("revoke", help="end a key")
    listing = actions.add_parser("list", help="all keys, without their secrets")
    for action in (adding, revoking):
        action.add_argument("name", metavar="NAME", help="whose key: a-z, 0-9, dot, dash, _")
    for action in (adding, revoking, listing):
        add_ledger_options(action)
        action.add_argument("--json", action="store_true", help="print the same as JSON")
        action.set_defaults(run=run)


def add_ledger_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which ledger."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of all runs (default: runs)")
    parser.add_argument("--ledger", metavar="PATH|URL",
                        help="another ledger than FOLDER/ledger.sqlite, like postgresql://host/base")


def ledger_of(args: argparse.Namespace, *, create: bool) -> Ledger:
    """Opens the ledger that the options name."""
    from curbcut.ledger import FILE_NAME, open_ledger

    return open_ledger(args.ledger or args.runs / FILE_NAME, create=create)


def actor() -> str:
    """Who is at the command line, for the audit chain."""
    return f"cli:{getpass.getuser()}"


def run(args: argparse.Namespace) -> int:
    """Does one action; returns 0."""
    from curbcut.ledger import access

    with ledger_of(args, create=args.action == "add") as ledger:
        if args.action == "add":
            secret = access.issue_key(ledger, args.name, actor=actor())
            _say(args, {"name": args.name, "secret": secret},
                 "{secret}\n\nThis secret of {name!r} is shown once: keep it. Clients send it as"
                 "\n  Authorization: Bearer {secret}")
        elif args.action == "revoke":
            access.revoke_key(ledger, args.name, actor=actor())
            _say(args, {"name": args.name, "revoked": True}, "key {name!r} opens nothing any more")
        else:
            _list(args, ledger)
    return 0


def _say(args: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values, indent=2) if args.json else text.format(**values))


def _list(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access

    used = ledger.used()
    rows: list[dict[str, Any]] = []
    for key in access.kept_keys(ledger):
        mine = [use for use in used if use.key == key.name]
        rows.append({"id": key.id, "name": key.name, "created": key.created,
                     "revoked": key.revoked, "requests": sum(use.requests for use in mine),
                     "tokens": sum(use.prompt_tokens + use.output_tokens for use in mine)})
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("no keys yet; `curbcut keys add NAME` makes one")
        return
    print(f"{'key':<12} {'name':<24} {'made':<16} {'state':<8} {'requests':>8} {'tokens':>12}")
    for row in rows:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        state = "live" if row["revoked"] is None else "revoked"
        print(f"ck-{row['id']:<9} {row['name']:<24} {made:<16} {state:<8} {row['requests']:>8,} "
              f"{row['tokens']:>12,}")
