"""`curbcut top [RUN]`: the runs, live in the terminal: what the page shows, without a browser."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from curbcut.cli.keys import add_ledger_options, ledger_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from curbcut.web.site import Site

EVERY_SECONDS = 1.0
PIPED_WIDTH = 160
"""A pipe has no width: whoever reads it wants whole lines."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "top", help="the runs, live in the terminal", description="All runs as they stand, or the "
        "course of one, shown anew each second until Ctrl-C; once where nobody can watch.")
    parser.add_argument("name", nargs="?", metavar="RUN", help="follow this run alone")
    parser.add_argument("--once", action="store_true", help="show it once and leave")
    parser.add_argument("--json", action="store_true", help="print the same as JSON, once")
    add_ledger_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shows them; returns 0, also when it is interrupted."""
    from rich.console import Console

    from curbcut.web.site import Site

    site = Site(args.runs, str(args.ledger or ""))
    try:
        if site.ledger() is None:
            ledger_of(args, create=False).close()  # which says what is missing
        site.look()
        console = Console()
        if args.json:
            print(json.dumps(_plain(site, args.name), indent=1))
        elif args.once or not console.is_terminal:
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console = Console(width=PIPED_WIDTH)
            console.print(_view(site, args.name, console.width))
        else:
            _watch(site, args.name, console)
    except KeyboardInterrupt:
        pass
    finally:
        site.close()
    return 0


def _watch(site: Site, name: str | None, console: Any) -> None:
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_view(site, name, console.width), refresh=True)
            time.sleep(EVERY_SECONDS)
            site.look()


def _view(site: Site, name: str | None, width: int) -> RenderableType:
    from curbcut.report import top

    plain = _plain(site, name)
    if name is None:
        rows = plain["rows"]
        return top.runs_table(rows, width) if rows else "no run has begun here yet"
    return top.run_view(plain["row"], _losses(site, name), plain["events"], width)


def _plain(site: Site, name: str | None) -> dict[str, Any]:
    """All rows, or the row and events of one run; raises UnknownName for a run nobody knows."""
    from curbcut.errors import UnknownName
    from curbcut.web.timeline import timeline

    if name is None:
        return {"rows": site.table.since().rows}
    row, ledger = site.table.row(name), site.ledger()
    if row is None or ledger is None:
        raise UnknownName("run", name, site.table.names(), where=str(site.runs))
    return {"row": row, "events": timeline(ledger, name)["events"]}


def _losses(site: Site, name: str) -> list[float]:
    """The loss of each recorded step, NaN where a line lacks it."""
    ledger = site.ledger()
    assert ledger is not None
    recorded = site.columns.of(ledger, name, site.table.change_of(name))
    losses: list[float] = recorded.frames["step"]["loss"].tolist()
    return losses
