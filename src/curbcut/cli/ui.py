"""`curbcut ui`: the pages, on one port of this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from curbcut.cli.keys import add_ledger_options
from curbcut.errors import EXIT_OK, InputError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "ui", help="the page: runs, comparisons, planner, models and keys, budget",
        description="Shows runs, live, beside what was promised of them; plans, models, keys and "
                    "budgets. Open the link that it prints: it holds the secret that opens the "
                    "pages. From elsewhere: ssh -L 8090:127.0.0.1:8090 THIS-MACHINE.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8090, help="port; 0 is any free one (8090)")
    parser.add_argument("--no-token", action="store_true",
                        help="ask nobody for the link's secret (on the loopback address only)")
    parser.add_argument("--open", action="store_true", help="open the link in the browser")
    add_ledger_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object when it listens")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shows the pages until a signal; returns 0."""
    from curbcut.web.opening import leading, open_in_browser
    from curbcut.web.server import show
    from curbcut.web.site import Site

    if args.runs.exists() and not args.runs.is_dir():
        raise InputError("is a file, not a folder of runs", where=str(args.runs),
                         mend="name a folder with --runs")
    site = Site(args.runs, args.ledger or "")
    site.ledger()  # one that cannot be used is said before anything listens
    stack = contextlib.ExitStack()

    def ready(link: str) -> None:
        _greet(args, link)
        if args.open:
            open_in_browser(stack.enter_context(leading(link, args.runs)))

    with stack:
        show(site, args.host, args.port, asked=not args.no_token, on_ready=ready)
    return EXIT_OK


def _greet(args: argparse.Namespace, link: str) -> None:
    if args.json:
        print(json.dumps({"url": link, "runs": str(args.runs)}), flush=True)
        return
    secret = "" if args.no_token else "\n  the link holds a secret: who has it may look"
    print(f"{link}\n  runs in {args.runs}; Ctrl-C ends it{secret}", flush=True)
    if args.no_token:
        print("  --no-token: every program of this machine may look", file=sys.stderr)
