"""How a plan is told, whichever way it was found: its account, one figure explained, a format."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curbcut.accounts.development import ledger_ratio
from curbcut.cli import formats
from curbcut.errors import InputError
from curbcut.ledger import FILE_NAME, kept_pairs
from curbcut.plan.forecast import forecast
from curbcut.report.tables import Format, Table
from curbcut.spec import UNIT_OF, codec
from curbcut.spec.account import Account
from curbcut.spec.draft import Resolved
from curbcut.spec.nouns import ServeJob

if TYPE_CHECKING:
    from curbcut.plan.calibration import Pair

FEWEST, MOST = 100, 100_000
"""Draws: fewer say nothing of the ends of an interval, more take GiB of memory."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the options of how a plan is told."""
    parser.add_argument("--explain", metavar="KEY", help='how one figure of the plan was come by, '
                        'like "usd.total" (keys: those of --format csv)')
    parser.add_argument("--samples", metavar="N", type=int, help="intervals from N seeded draws, "
                        "not first-order")
    formats.add(parser)


def chosen(args: argparse.Namespace) -> Format:
    """The format. Raises InputError for too few or too many draws, UnknownName for a format."""
    found = args.samples
    if found is not None and not FEWEST <= found <= MOST:
        few = found < FEWEST
        raise InputError(f"{found} draws are too {'few' if few else 'many'} for an interval",
                         where="--samples", mend=f"nearest: {FEWEST if few else MOST}")
    return formats.chosen(args)


def priced(args: argparse.Namespace, resolved: Resolved, pairs: Sequence[Pair]) -> Account:
    """The forecast, with what users of the server meet where somebody said what they ask."""
    account = forecast(resolved.run, pairs, project=ledger_ratio(args.runs / FILE_NAME),
                       samples=args.samples or 0, seed=resolved.run.seed)
    if resolved.run.serve == ServeJob():
        return account
    from curbcut.plan.served import with_service
    from curbcut.plan.serving_calibration import learned, taught

    run = resolved.run
    sessions = [pair for step in ("bench", "serve")
                for pair in kept_pairs(args.runs / FILE_NAME, step=step)]
    return taught(with_service(account, run), run,
                  learned(run.machine, run.recipe.precision, sessions))


def tell(args: argparse.Namespace, resolved: Resolved, account: Account, pairs: Sequence[Pair], *,
         before: Sequence[Table] = (), after: Sequence[Table] = (),
         more: Mapping[str, Any] | None = None) -> None:
    """Prints the plan in the format asked for, between tables of how it was found and, in JSON,
    behind `more`; or only the explanation of one figure.
    """
    if args.explain is not None:
        _explain(args, resolved, account, pairs)
        return
    from curbcut.report.tables import show

    form = formats.chosen(args)
    if form == "json":
        show([], form, plain={**(more or {}), "run": codec.plain(resolved.run),
                              "origins": dict(resolved.origins),
                              "forecast": codec.plain(account)})
        return
    from curbcut.report.account import plan_tables

    notes = [*run_notes(resolved), *price_notes(resolved)] if form == "text" else []
    show([*before, *plan_tables(resolved, account, form, notes=notes), *after], form)


def run_notes(resolved: Resolved) -> list[str]:
    """Which field of the recipe this version prices and does not train, if one is."""
    from curbcut.plan import running

    run = resolved.run
    reason = running.reason(run.model, run.recipe, run.machine)
    return [f"This version prices it and does not train it itself: {reason}."] if reason else []


def price_notes(resolved: Resolved) -> list[str]:
    """What is to be said about the age of the prices, today."""
    from datetime import date

    from curbcut.accounts.money import price_warning

    said = price_warning(resolved.run.machine, resolved.run.place, date.today())
    return [said] if said else []


def _explain(args: argparse.Namespace, resolved: Resolved, account: Account,
             pairs: Sequence[Pair]) -> None:
    """Prints how a figure was come by; those of serving stand on the sheet as they are. Raises
    UnknownName with the nearest.
    """
    from curbcut.accounts.sheet import SAMPLES
    from curbcut.plan.forecast import sheet_of
    from curbcut.report.explain import show_explanation

    run = resolved.run
    sheet = sheet_of(run, pairs, project=ledger_ratio(args.runs / FILE_NAME))
    for section, kind, estimate in account.lines():
        if f"{section}.{kind}" not in sheet:
            sheet.leaf(f"{section}.{kind}", estimate, UNIT_OF[section])
    show_explanation(sheet, args.explain, formats.chosen(args), currency=run.place.currency,
                     samples=args.samples or SAMPLES, seed=run.seed)
