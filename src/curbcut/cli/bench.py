"""`curbcut bench`: what users of a server meet under load, and what the plan had promised."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.cli import formats
from curbcut.cli.keys import add_ledger_options, ledger_of
from curbcut.cli.objective import read
from curbcut.cli.served import add_engine_options, engine_words, find, known_run
from curbcut.errors import InputError

if TYPE_CHECKING:
    from curbcut.report.tables import Format
    from curbcut.serve.bench.drive import Bench, Found, Metered
    from curbcut.serve.bench.lengths import Asking
    from curbcut.serve.bench.load import Load
    from curbcut.serve.engine.address import Address
    from curbcut.spec import Account, Run

PROMPT, OUTPUT, USERS = "128", "64", "1,8"
EACH = 8
"""Requests for each user where nobody says how many."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "bench", help="what users of a server meet under load",
        description="Asks a server as users would, and says what they met. A run or folder is "
                    "served in a process of its own; any OpenAI-compatible server by its address.")
    parser.add_argument("model", metavar="RUN|FOLDER|URL", help="what is asked")
    asking = parser.add_argument_group("who asks when")
    asking.add_argument("--users", metavar="N", help="closed loop: so many, each asking again when "
                        f'answered; "1,8,16" one after another, "1..16" a ramp ({USERS})')
    asking.add_argument("--rate", metavar="R", help='open loop: requests a second by chance '
                        '(Poisson); "1,2,4" one after another, "1..8" a ramp')
    asking.add_argument("--requests", type=int, metavar="N", help="requests of each load "
                        f"(where no --seconds are given, {EACH} a user)")
    asking.add_argument("--seconds", type=float, metavar="S", help="no more requests after so many")
    asking.add_argument("--warmup", type=int, default=2, metavar="N",
                        help="requests before each load that do not count (2)")
    asking.add_argument("--seed", type=int, default=0, help="same seed, same requests (0)")
    what = parser.add_argument_group("what is asked")
    what.add_argument("--prompt", metavar="TOKENS", help='"128", "64..256" (evenly between) or '
                      f'"128~0.8" (lognormal: median, spread) ({PROMPT})')
    what.add_argument("--output", metavar="TOKENS", help=f"the same of answers ({OUTPUT})")
    what.add_argument("--trace", type=Path, metavar="FILE", help="JSONL with prompt_tokens, "
                      "output_tokens and, with --rate, seconds of each request")
    what.add_argument("--shared", type=float, default=0.0, metavar="SHARE",
                      help="share of each prompt that all have in common (0)")
    what.add_argument("--api", choices=("completions", "chat"), default="completions")
    what.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (0)")
    what.add_argument("--objective", metavar="ttft=S,tpot=S", help="goodput: requests that met "
                      'this, in seconds ("ttft=0.2,tpot=0.05")')
    server = parser.add_argument_group("the server at an address")
    server.add_argument("--as", dest="asked_name", metavar="NAME", help="model to ask for, where "
                        "it has several")
    server.add_argument("--key", default="", help="API key")
    server.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="of the model at a URL: "
                        "exact prompts, and tokens where the server counts none")
    add_engine_options(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw latency against load as .svg or .png")
    add_ledger_options(parser)
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks, prints, records; returns the exit code."""
    chosen = formats.chosen(args)
    if args.plot:
        from curbcut.report.pictures import canvas

        canvas.ending(args.plot)
    bench = _bench(args)
    served: Run | None = None
    with contextlib.ExitStack() as stack:
        notes: list[str]
        if "://" in args.model:
            where, name, notes = _at(args), args.asked_name or "", []
            folder = args.tokenizer
        else:
            folder, name = find(args.model, args.runs)
            served = _run_of(args, folder)
            where, notes = _started(stack, args, folder, served)
        bench = replace(bench, asking=_with_tokens(bench, folder))
        asked = _promises(args, served, bench)
        found = _driven(args, where, bench, name, folder, served)
    promised = [account for _, account in asked]
    if served is not None:
        with ledger_of(args, create=False) as ledger:
            from curbcut.serve.bench.promise import record

            record(ledger, served, asked, found.results)
    _tell(args, chosen, found, promised, notes)
    return 1 if any(one.errors for one in found.results) else 0


def _tell(args: argparse.Namespace, chosen: Format, found: Found,
          promised: Sequence[Account], notes: Sequence[str]) -> None:
    from curbcut.report import bench as report
    from curbcut.report.tables import show

    if args.plot:
        from curbcut.report.pictures import bench as picture

        picture.draw(found, promised, args.plot)
    plain = report.as_plain(found, promised, _asked(args)) if chosen == "json" else None
    show(list(report.tables(found, promised, notes)), chosen, plain=plain)


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    return {"asked": {"prompt_tokens": args.prompt or PROMPT,
                      "output_tokens": args.output or OUTPUT,
                      "trace": str(args.trace) if args.trace else None, "shared": args.shared,
                      "seed": args.seed, "temperature": args.temperature, "api": args.api}}


def _bench(args: argparse.Namespace) -> Bench:
    """What is asked, checked before anything is started."""
    from curbcut.serve.bench.drive import Bench
    from curbcut.serve.bench.lengths import Asking, lengths, read_trace
    from curbcut.serve.bench.load import Closed, rates, users
    from curbcut.serve.bench.result import Objective

    _sane(args)
    loads: list[Load] = [*(users(args.users) if args.users or not args.rate else []),
                         *(rates(args.rate) if args.rate else [])] if args.users or args.rate \
        else users(USERS)
    if any(getattr(load, "to", 0) for load in loads) and not args.seconds:
        raise InputError("a ramp needs a length in time", where="--seconds", mend="--seconds 30")
    trace = read_trace(args.trace) if args.trace else ()
    asking = Asking(args.seed, lengths(args.prompt or PROMPT, "--prompt"),
                    lengths(args.output or OUTPUT, "--output"), args.shared, trace=trace)
    requests = args.requests or 0
    if not requests and not args.seconds:
        most = max(load.most if isinstance(load, Closed) else 1 for load in loads)
        requests = EACH * most if most > 1 else 2 * EACH
    return Bench(asking=asking, loads=tuple(loads), requests=requests, seconds=args.seconds or 0.0,
                 warmup=args.warmup, api=args.api, temperature=args.temperature,
                 objective=Objective(**read(args.objective)) if args.objective else Objective())


def _sane(args: argparse.Namespace) -> None:
    for name, value, low, high in (
            ("--requests", args.requests, 1, 10_000_000), ("--seconds", args.seconds, 1e-3, 1e6),
            ("--warmup", args.warmup, 0, 10_000), ("--shared", args.shared, 0.0, 0.99),
            ("--temperature", args.temperature, 0.0, 2.0)):
        if value is not None and not low <= value <= high:
            raise InputError(f"{value:g} is not between {low:g} and {high:g}", where=name,
                             mend=f"nearest: {low if value < low else high:g}")
    if args.trace and (args.prompt or args.output):
        raise InputError("a trace says the lengths itself", where="--trace",
                         mend="leave --prompt and --output out")


def _at(args: argparse.Namespace) -> Address:
    from curbcut.serve.engine.address import Address

    if words := engine_words(args):
        raise InputError(f"{words[0]} is for a server that is started here", where=args.model,
                         mend="leave it out, or give it to the server")
    return Address.of(args.model, args.key)


def _run_of(args: argparse.Namespace, folder: Path) -> Run | None:
    """The run, as it will be served, where the ledger knows it."""
    from curbcut.ledger import FILE_NAME

    if not args.ledger and not (args.runs / FILE_NAME).is_file():
        return None
    with ledger_of(args, create=False) as ledger:
        return known_run(ledger, args, folder)


def _started(stack: contextlib.ExitStack, args: argparse.Namespace, folder: Path,
             served: Run | None) -> tuple[Address, list[str]]:
    from curbcut.serve.bench.process import started
    from curbcut.serve.engine.address import Address

    words = engine_words(args, served)
    one = stack.enter_context(started(folder, words))
    print(f"curbcut: {one.model} listens after {one.seconds:.1f} s", file=sys.stderr)
    return Address.of(one.url), [f"served here by a process of its own, that listened after "
                              f"{one.seconds:.1f} s"]


def _with_tokens(bench: Bench, folder: Path | None) -> Asking:
    """Prompts of tokens where their tokenizer is here and the API takes them."""
    if folder is None or bench.api == "chat":
        return bench.asking
    from curbcut.serve.engine import text

    tokenizer = text.load(folder).tokenizer
    special = set(tokenizer.get_added_tokens_decoder())
    pool = tuple(token for token in range(tokenizer.get_vocab_size()) if token not in special)
    return replace(bench.asking, pool=pool)


def _promises(args: argparse.Namespace, served: Run | None,
              bench: Bench) -> list[tuple[Run, Account]]:
    """What the plan says of each load, corrected by what was measured before."""
    if served is None:
        return []
    from curbcut.serve.bench.promise import as_asked, forecast

    with ledger_of(args, create=False) as ledger:
        pairs = [*ledger.pairs(step="bench"), *ledger.pairs(step="serve")]
    asked = [as_asked(served, bench.asking, load) for load in bench.loads]
    return [(one, forecast(one, load, pairs))
            for one, load in zip(asked, bench.loads, strict=True)]


def _driven(args: argparse.Namespace, where: Address, bench: Bench, name: str,
            folder: Path | None, served: Run | None) -> Found:
    from curbcut.serve.bench.drive import drive

    count: Callable[[str], int] | None = None
    if folder is not None:
        from curbcut.serve.engine import text

        vocabulary = text.load(folder)
        count = lambda said: len(vocabulary.encode(said))  # noqa: E731
    return drive(where, bench, model=name, count=count, meter=_meter(where, served))


def _meter(where: Address, served: Run | None) -> Callable[[], Metered] | None:
    """Joules of this computer, where that is what serves."""
    from curbcut.serve.bench.client import near

    if not near(where):
        return None
    from curbcut.meter import here
    from curbcut.serve.bench.promise import metering
    from curbcut.spec import Place

    machine, place = (served.machine, served.place) if served else (here.machine(), Place())
    return lambda: metering(machine, place)
