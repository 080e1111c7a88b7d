"""`curbcut plan`: what a run takes and gives, before it is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from curbcut.cli import budget, told
from curbcut.errors import InputError
from curbcut.ledger import FILE_NAME, kept_pairs
from curbcut.plan.contracts import ANY
from curbcut.plan.machines import is_here, ranks_here
from curbcut.plan.resolve import resolve
from curbcut.spec import Run, codec
from curbcut.spec.draft import Draft, Resolved, load
from curbcut.spec.nouns import Machine

COMMAND_LINE = "command line"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "plan", help="price a run: time, memory, money, energy, carbon, expected loss",
        description="Completes a run and prices it. Options override the file.")
    parser.add_argument("file", nargs="?", help="a run in TOML, or the name of one in runs/; "
                        "without one, options alone")
    parser.add_argument("--model", metavar="PRESET", help='a known shape, like "curb-4m"')
    parser.add_argument("--tokens", help='tokens to train on, like "1B"')
    parser.add_argument("--on", metavar="MACHINE", help='"here", or a fleet like "8xH100"; with '
                        'a budget or --search several, like "8xH100,16xA100"; "any" for all with '
                        "a price (with a budget)")
    parser.add_argument("--zone", help='grid zone, like "FRA"; "any", with a budget, '
                        "for the cleanest")
    parser.add_argument("--name", help="name of the run")
    told.add(parser)
    parser.add_argument("--write", metavar="FILE", help="write the resolved run as TOML")
    parser.add_argument("--plot", metavar="FILE", type=Path,
                        help="draw the plan as .svg or .png; of a budget its Pareto front too")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of runs, whose ledger corrects the plan")
    parser.add_argument("--serving", action="store_true",
                        help="price the ways to serve the model and choose one within the run's "
                        "objectives (serve.ttft_seconds, serve.tpot_seconds); nothing of training")
    budget.add(parser)
    searching = parser.add_argument_group("search")
    searching.add_argument("--search", action="store_true",
                           help="price every valid recipe of the model on the machine")
    searching.add_argument("--objective", choices=("time", "money", "energy", "memory"),
                           default="time", help="what the best has least of (time)")
    searching.add_argument("--top", type=int, default=6, metavar="N",
                           help="runners-up shown (6)")
    searching.add_argument("--optimisers", action="store_true",
                           help="try every optimiser too, though they learn differently")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the plan; returns the exit code. Raises InputError for what cannot be planned."""
    told.chosen(args)
    if args.plot:
        from curbcut.report.pictures import canvas

        canvas.ending(args.plot)
    if args.search:
        return search(args)
    draft = draft_of(args)
    if args.serving:
        return serving(args, draft)
    if budget.backwards(args, draft):
        return budget.run(args, draft)
    draft = budget.forwards(args, draft)
    here = this_machine([draft.get("machine.name", "here")])
    pairs = kept_pairs(args.runs / FILE_NAME)
    resolved = resolve(draft, here=here, pairs=pairs)
    account = told.priced(args, resolved, pairs)
    if args.write:
        write(args.write, resolved)
    if args.plot:
        from curbcut.report.pictures import plan as picture

        picture.draw(resolved, account, args.plot)
    told.tell(args, resolved, account, pairs)
    return 0


def search(args: argparse.Namespace) -> int:
    """Prices every recipe and prints the best; returns the exit code."""
    import time

    from curbcut.plan.search_draft import search_draft
    from curbcut.report import search as report
    from curbcut.train.refusals import TRAINED

    if args.top < 1:
        raise InputError(f"--top = {args.top} shows nothing", mend="nearest: 1")
    names = budget.names(args)
    draft = budget.with_traffic(args, draft_of(args))
    here = this_machine(names or [draft.get("machine.name", "here")])
    pairs = kept_pairs(args.runs / FILE_NAME)
    started = time.perf_counter()
    searched = search_draft(
        draft, names[:] if len(names) > 1 else (), here=here, pairs=pairs,
        objective=args.objective, top=args.top,
        also=frozenset({"optimiser"} if args.optimisers else ()), only=TRAINED)
    seconds = time.perf_counter() - started
    resolved = searched.resolved
    if args.write:
        write(args.write, resolved)
    if args.plot:
        from curbcut.report.pictures import plan as picture

        picture.draw(resolved, told.priced(args, resolved, pairs), args.plot)
    chosen = told.chosen(args)
    if chosen == "text" and not (args.explain or args.samples):
        report.print_search(searched, top=args.top)
        for note in told.price_notes(resolved):
            print(f"curbcut: {note}", file=sys.stderr)
    else:
        told.tell(args, resolved, told.priced(args, resolved, pairs), pairs,
                  before=report.search_tables(searched, chosen, top=args.top),
                  more={"search": report.as_plain(searched)} if chosen == "json" else None)
    print(f"curbcut: searched in {seconds:.2f} s", file=sys.stderr)
    return 0


def serving(args: argparse.Namespace, draft: Draft) -> int:
    """Prints the ways to serve the draft's model; returns the exit code: 0 where one will do."""
    from curbcut.plan.serving_calibration import learned
    from curbcut.plan.serving_choice import choose
    from curbcut.plan.serving_run import to_serve
    from curbcut.report import serving_choice as report
    from curbcut.report.tables import show

    draft = budget.with_traffic(args, draft)
    run = to_serve(draft, this_machine([draft.get("machine.name", "here")]))
    sessions = [pair for step in ("bench", "serve")
                for pair in kept_pairs(args.runs / FILE_NAME, step=step)]
    choice = choose(run, lesson=learned(run.machine, run.recipe.precision, sessions))
    show([report.table(choice)], told.chosen(args), plain=report.as_plain(choice))
    return 0 if choice.chosen else 1


def this_machine(names: Sequence[str]) -> Machine | None:
    """The machine at hand, if one of the names means it."""
    if not any(is_here(name) for name in names):
        return None
    from curbcut.meter import detect, here, probe

    ranks, detected = max(ranks_here(name) for name in names), detect.machine()
    kept = probe.load(detected)
    if ranks > 1 and kept is not None and not detected.gpus:
        kept = probe.with_link(detected, kept, ranks)
    return here.machine(detected, kept, ranks=ranks)


def _file(given: str) -> str:
    """The file, or that of the run by this name where there is no such file."""
    named = Path("runs") / given / "run.toml"
    by_name = Path(given).name == given and not Path(given).exists() and named.is_file()
    return str(named) if by_name else given


def draft_of(args: argparse.Namespace) -> Draft:
    """The file's draft under the options, which win over it."""
    draft = load(_file(args.file)) if args.file else Draft()
    raw: dict[str, dict[str, object]] = {}
    for option, table, key in (
            ("model", "model", "preset"), ("tokens", "train", "tokens"),
            ("on", "machine", "name"), ("budget", "limits", "money"),
            ("hours", "limits", "seconds"), ("energy", "limits", "kwh"),
            ("carbon", "limits", "kgco2e"), ("zone", "place", "zone"),
            ("data", "train", "text_bytes"), ("loss", "limits", "loss"),
            ("contract", "place", "contract")):
        given = _given(args, option)
        if given is not None:
            raw.setdefault(table, {})[key] = given
            codec.check(Run, {table: {key: raw[table][key]}}, f"--{option}:")
    if args.model:
        draft = Draft({k: v for k, v in draft.values.items() if not k.startswith("model.")},
                      draft.origins)
    top = {"name": args.name} if args.name else {}
    return draft.with_raw(raw | top, COMMAND_LINE, override=True)


def _given(args: argparse.Namespace, option: str) -> object:
    """What an option says of a run's field; None where the choice is left to the plan."""
    text = getattr(args, option)
    if text is None:
        return None
    several = option in ("on", "zone", "contract") and (ANY in text or "," in text)
    if several and option == "on" and args.search:
        return budget.names(args)[0]
    if several:
        return None
    reads: Mapping[str, Callable[[str], object]] = {"hours": _hours, "loss": budget.loss}
    return reads.get(option, str)(text)


def _hours(text: str) -> str:
    """A bare number means hours; anything else must carry its unit."""
    try:
        return f"{float(text):g} h"
    except ValueError:
        return text


def write(file: str, resolved: Resolved) -> None:
    """Writes the run as TOML; raises InputError where that cannot be."""
    from curbcut.files import write_whole
    from curbcut.spec.toml import dumps

    try:
        write_whole(Path(file), dumps(resolved))
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=file,
                         mend="give a file in a folder you may write to") from None
