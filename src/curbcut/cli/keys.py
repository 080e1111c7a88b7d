"""`curbcut keys add NAME | list | rotate NAME | accept NAME | revoke NAME`: who may use what is
served.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.errors import InputError

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

_SHOWN_ONCE = ("{secret}\n\nThis secret of {name!r} is shown once: keep it. Clients send it as"
               "\n  Authorization: Bearer {secret}")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "keys", help="add, list, rotate and revoke API keys",
        description="API keys of what is served. A secret is shown once and kept nowhere.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="make a key and print its secret, once")
    adding.add_argument("--project", metavar="NAME", help="whose requests these are (default)")
    adding.add_argument("--role", default="user", metavar="ROLE",
                        help="user asks models (the default); admin manages access, operator sees "
                        "states and metrics, auditor reads accounts and the audit chain: these "
                        "ask no models")
    adding.add_argument("--owner", default="", metavar="WHO", help="the person behind it")
    adding.add_argument("--expires", metavar="WHEN", help='when it ends, like "30 d" or 2027-01-31')
    rotating = actions.add_parser("rotate", help="a new secret for a key, printed once")
    rotating.add_argument("--grace", metavar="TIME", help='how long the old secret still answers, '
                          'like "1 h" (not at all)')
    accepting = actions.add_parser("accept", help="accept, for a key, a text that came later")
    revoking = actions.add_parser("revoke", help="end a key")
    listing = actions.add_parser("list", help="all keys, without their secrets")
    for action in (adding, rotating, accepting, revoking):
        action.add_argument("name", metavar="NAME", help="whose key: a-z, 0-9, dot, dash, _")
    for action in (adding, rotating, accepting):
        action.add_argument("--accept-licence", action="append", default=[], metavar="HASH",
                            required=action is accepting, help="accept a text by its hash "
                            "(`curbcut access licence list`); once for each text")
    for action in (adding, accepting):
        action.add_argument("--told", action="append", default=[], metavar="WHAT=TEXT",
                            help="what its owner says with that, like institution=...")
    for action, does in ((adding, _add), (rotating, _rotate), (accepting, _accept),
                         (revoking, _revoke), (listing, _list)):
        add_ledger_options(action)
        action.add_argument("--json", action="store_true", help="print the same as JSON")
        action.set_defaults(run=run, does=does)


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
    """Who is at the command line, for the audit chain: a container's user may have no name."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"cli:{os.getuid()}"


def run(args: argparse.Namespace) -> int:
    """Does one action; returns 0."""
    with ledger_of(args, create=args.action == "add") as ledger:
        args.does(args, ledger)
    return 0


def _add(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access, said
    from curbcut.ledger.licences import Unaccepted
    from curbcut.ledger.migrations import DEFAULT

    expires = said.moment(args.expires, time.time(), "--expires") if args.expires else None
    try:
        secret = access.issue_key(
            ledger, args.name, actor=actor(), project=args.project or DEFAULT, role=args.role,
            owner=args.owner, expires=expires, accepted=args.accept_licence,
            told=_pairs(args.told))
    except Unaccepted as error:
        raise _to_accept(error) from None
    _say(args, {"name": args.name, "secret": secret}, _SHOWN_ONCE)


def _rotate(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut import units
    from curbcut.ledger import access
    from curbcut.ledger.licences import Unaccepted

    grace = 0.0
    if args.grace:
        grace = units.finite(units.parse(args.grace, "seconds", "--grace"), "--grace", at_least=0,
                             said=args.grace)
    try:
        secret = access.rotate_key(ledger, args.name, actor=actor(), grace_seconds=grace,
                                   accepted=args.accept_licence)
    except Unaccepted as error:
        raise _to_accept(error) from None
    ends = f"The old one answers for {units.show(grace, 'seconds')} more." if grace else \
        "The old one opens nothing any more."
    _say(args, {"name": args.name, "secret": secret}, f"{_SHOWN_ONCE}\n{ends}")


def _accept(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import licences

    licences.accept(ledger, args.name, args.accept_licence, actor=actor(), told=_pairs(args.told))
    _say(args, {"name": args.name, "accepted": args.accept_licence},
         "that is written down for {name!r}")


def _revoke(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access

    access.revoke_key(ledger, args.name, actor=actor())
    _say(args, {"name": args.name, "revoked": True}, "key {name!r} opens nothing any more")


def _list(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.report import access as report
    from curbcut.report.tables import show

    [table] = report.tables(ledger, ["keys"])
    if args.json:
        print(json.dumps(report.as_plain(ledger, ["keys"])["keys"], indent=2))
    elif table.rows:
        show([table])
    else:
        print("no keys yet; `curbcut keys add NAME` makes one")


def _say(args: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values, indent=2) if args.json else text.format(**values))


def _pairs(said: Sequence[str]) -> Mapping[str, str]:
    """What stands in "institution=a school" and the like; raises InputError."""
    found: dict[str, str] = {}
    for one in said:
        name, equals, text = one.partition("=")
        if not equals or not name.strip() or name.strip() in found:
            raise InputError(f"{one!r} does not say what of whom", where="--told",
                             mend="like --told institution='a school', each once")
        found[name.strip()] = text.strip()
    return found


def _to_accept(error: Any) -> InputError:
    """The same, with how to do it here."""
    scopes = " and ".join(f"`curbcut access licence show {one.scope}`" for one in error.licences)
    hashes = " ".join(f"--accept-licence {one.hash[:12]}" for one in error.licences)
    return InputError(error.what, where=error.where, mend=f"read {scopes}; then add {hashes}")
