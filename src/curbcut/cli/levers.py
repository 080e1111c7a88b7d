"""`curbcut levers RUN`: the run priced again with each method, alone and in the best order."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.cli import formats
from curbcut.errors import InputError, UnknownName
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import Run, ServeJob

if TYPE_CHECKING:
    from curbcut.plan.levers.case import Taught

_NOT_ASKED = ("budget", "energy", "carbon", "data", "loss")
"""Options of `plan` that leave the run itself to be found."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "levers", help="a run priced again with each method: a waterfall",
        description="Prices a run again with each method that would make it cheaper at equal "
        "expected loss, alone and in the best order, with the evidence of each.")
    parser.add_argument("file", nargs="?", metavar="RUN",
                        help="a run's name, or a run in TOML; without one, options alone")
    parser.add_argument("--model", metavar="PRESET", help='a known shape, like "llama-3-8b"')
    parser.add_argument("--tokens", help='tokens to train on, like "1T"')
    parser.add_argument("--on", metavar="MACHINE", help='"here", or a fleet like "64xH100"')
    parser.add_argument("--hours", metavar="TIME", help='the most time: hours, or "30 min"')
    parser.add_argument("--zone", help='grid zone, like "FRA"')
    parser.add_argument("--contract", help='how it is rented: "on-demand", "reserved-1y", '
                        '"reserved-3y" or "spot"')
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--unit", default="", metavar="UNIT",
                        help="usd, a currency like eur, kwh, kg, hours or litres (the run's "
                        "currency)")
    parser.add_argument("--only", default="", metavar="LEVERS",
                        help='some levers by name, like "fp8,compile"')
    parser.add_argument("--what-if", action="store_true",
                        help="let levers on open assumptions into the order")
    parser.add_argument("--serving", action="store_true",
                        help="levers of serving too, where the run says nothing of its traffic")
    parser.add_argument("--evidence", action="store_true",
                        help="what was published of every lever, not only of those in the order")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of runs, whose ledger corrects the plan")
    parser.add_argument("--plot", metavar="FILE", type=Path,
                        help="draw the waterfall as .svg or .png")
    formats.add(parser)
    parser.set_defaults(run=run, search=False, **dict.fromkeys(_NOT_ASKED))


def run(args: argparse.Namespace) -> int:
    """Prints the waterfall; returns 0. Raises InputError for what cannot be planned."""
    from curbcut.plan.levers import catalogue, price, serving
    from curbcut.plan.levers.waterfall import waterfall
    from curbcut.report.levers import show_levers

    chosen = formats.chosen(args)
    if args.plot:
        from curbcut.report.pictures import canvas

        canvas.ending(args.plot)
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    every = catalogue.chosen(names, catalogue.TRAINING + serving.SERVING)
    if args.unit:
        price.unit(args.unit)
    planned, taught = _planned(args)
    unit = price.unit(args.unit or planned.place.currency)
    training = [one for one in every if one.group != "serving"]
    served = [one for one in every if one.group == "serving"]
    found = []
    if training:
        found.append(waterfall(planned, training, unit, what_if=args.what_if,
                               taught=taught))
    if served and (args.serving or names or planned.serve != ServeJob()):
        found.append(serving.serving_waterfall(planned, unit, served, what_if=args.what_if))
    if args.plot:
        from curbcut.report.pictures import levers as picture

        picture.draw(found, args.plot)
    show_levers(found, chosen, evidence=args.evidence)
    return 0


def _planned(args: argparse.Namespace) -> tuple[Run, Taught]:
    """The run, and what measured runs taught of it, as `curbcut plan` has them."""
    from curbcut.accounts.development import ledger_ratio
    from curbcut.cli.plan import draft_of, this_machine
    from curbcut.cli.told import price_notes
    from curbcut.ledger import FILE_NAME, kept_pairs
    from curbcut.plan.calibration import correction
    from curbcut.plan.levers.case import Taught
    from curbcut.plan.resolve import resolve

    for option in ("on", "zone", "contract"):
        given = getattr(args, option)
        if given is not None and (given == "any" or "," in given):
            raise InputError(f"--{option} {given} names no single one, and levers start from one "
                             "run", mend="name one")
    args.file = _file(args.file, args.runs)
    draft: Draft = draft_of(args)
    here = this_machine([draft.get("machine.name", "here")])
    pairs = list(kept_pairs(args.runs / FILE_NAME))
    resolved = resolve(draft, here=here, pairs=pairs)
    for note in price_notes(resolved):
        print(f"curbcut: {note}", file=sys.stderr)
    planned = resolved.run
    learned = correction(planned.machine, planned.recipe.precision, pairs)
    return planned, Taught(planned.machine, learned, ledger_ratio(args.runs / FILE_NAME))


def _file(given: str | None, runs: Path) -> str | None:
    """The run.toml that is meant: a file, or the folder of a run of that name.

    Raises UnknownName with the nearest runs, InputError for a folder without one.
    """
    if given is None or Path(given).is_file() or given.endswith(".toml"):
        return given
    known = _names(runs)
    if given in known:
        return str(runs / given / "run.toml")
    if (runs / given).is_dir() and Path(given).name == given:
        raise InputError("has no run.toml: it was not planned yet", where=str(runs / given),
                         mend="run `curbcut go` with that name, or name a TOML file")
    raise UnknownName("run", given, known, where=str(runs))


def _names(runs: Path) -> list[str]:
    try:
        return sorted(path.name for path in runs.iterdir() if (path / "run.toml").is_file())
    except OSError:
        return []
