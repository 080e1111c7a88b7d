"""`curbcut validate`: our predictions against published measurements."""

from __future__ import annotations

import argparse
from pathlib import Path

from curbcut.cli import formats
from curbcut.errors import InputError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "validate", help="our predictions against published measurements, in a table",
        description="Predicts each row of a table of measurements from its input columns only, "
        "and says how far off the predictions are. By default no constant has seen a row's "
        "software.")
    parser.add_argument("kind", metavar="KIND", help="throughput, memory, serving, runs, energy or "
                        "cost")
    parser.add_argument("file", metavar="FILE.csv", type=Path, help="the measurements")
    formats.add(parser)
    parser.add_argument("--rows", type=Path, metavar="OUT.csv",
                        help="write each row's prediction, intervals and assumptions")
    parser.add_argument("--calibrate", type=int, metavar="N",
                        help="let N rows of each source fit its software's constants first")
    parser.add_argument("--folds", type=int, metavar="K",
                        help="predict each of K parts of a software's rows from the others")
    parser.add_argument("--known", action="store_true",
                        help="use what the facts know of each row's own software")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice of rows")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the scores; returns 0. Raises InputError for a file that cannot be scored."""
    from curbcut.plan.validation.outcome import Regime, validate

    chosen = formats.chosen(args)
    if sum((args.calibrate is not None, args.folds is not None, args.known)) > 1:
        raise InputError("are different regimes", where="--calibrate, --folds and --known",
                         mend="give one of them")
    regime = Regime(calibrate=_at_least(args.calibrate, 1, "--calibrate"),
                    folds=_at_least(args.folds, 2, "--folds"), known=args.known,
                    seed=args.seed)
    outcome = validate(args.kind, args.file, regime)
    from curbcut.report import validation

    if args.rows:
        _write(args.rows, validation.rows_csv(list(outcome.parts.items())))
    validation.print_outcome(outcome, chosen)
    return 0


def _at_least(value: int | None, least: int, option: str) -> int:
    if value is not None and value < least:
        raise InputError(f"is {value}, less than {least}", where=option,
                         mend=f"give {least} or more")
    return value or 0


def _write(path: Path, text: str) -> None:
    from curbcut.files import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(path),
                         mend="give a file in a folder you may write to") from None
