"""`curbcut trend`: what training costs over time, and who can train what."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from curbcut import units
from curbcut.cli import formats
from curbcut.errors import InputError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "trend", help="what training costs over time, and who can train what",
        description="Cost of frontier training, of one fixed capability and of arithmetic over "
        "time, each with its interval; and the largest training-optimal model that a budget buys.")
    parser.add_argument("--year", metavar="YEAR",
                        help="of the map; other years than today's follow the trend of rents")
    parser.add_argument("--budget", metavar="MONEY", action="append", default=[],
                        help='map this budget, like "5000 EUR" (several times: several); '
                        "all powers of ten from $100 to $1B")
    parser.add_argument("--plot", metavar="FILE", type=Path,
                        help="draw the frontier and the map as .svg or .png")
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the tables; returns 0. Raises InputError for a budget, year or file that is none."""
    chosen = formats.chosen(args)
    budgets = [units.parse_money(text, "--budget") for text in args.budget]
    for text, budget in zip(args.budget, budgets, strict=True):
        if not (math.isfinite(budget.amount) and budget.amount > 0):
            raise InputError(f"a budget of {text} buys nothing", where="--budget",
                             mend='give an amount above 0, like "500 EUR"')
    year = _year(args.year)
    if args.plot:
        from curbcut.report.pictures import canvas

        canvas.ending(args.plot)
    from curbcut.accounts.money import to_usd
    from curbcut.plan.trend.outlook import outlook
    from curbcut.report.trend import print_trend

    found = outlook([to_usd(each) for each in budgets], year)
    if args.plot:
        from curbcut.report.pictures import trend

        trend.draw(found, args.plot)
    print_trend(found, chosen, currency=budgets[0].currency if budgets else "USD")
    return 0


def _year(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        year = float(text)
    except ValueError:
        year = math.nan
    if math.isnan(year):
        raise InputError(f"{text!r} is no year", where="--year", mend='write one like "2028"')
    return year
