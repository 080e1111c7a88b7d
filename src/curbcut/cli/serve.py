"""`curbcut serve`: trained models behind the OpenAI API."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.cli.keys import actor, add_ledger_options, ledger_of
from curbcut.cli.served import (
    add_engine_options,
    find,
    known_run,
    runs_with_models,
    way_of,
)
from curbcut.errors import EXIT_OK, CurbcutError, InputError, MissingExtra

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from curbcut.ledger.store import Ledger
    from curbcut.meter.energy import Lap
    from curbcut.serve.api.uses import Use
    from curbcut.serve.engine.interface import Stats
    from curbcut.serve.gateway.keys import Verify
    from curbcut.serve.gateway.limits import Limits
    from curbcut.serve.gateway.prompts import PromptLog
    from curbcut.serve.gateway.till import Till
    from curbcut.serve.metering import StepMeter
    from curbcut.serve.opening import Way
    from curbcut.serve.server import Session
    from curbcut.spec import Run


@dataclass(frozen=True)
class Served:
    """One model: where it is, how it is served, and the run that it is of."""

    folder: Path | None
    way: Way
    run: Run | None = None


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "serve", help="serve models behind the OpenAI API",
        description="Serves runs' models (or any folders in Hugging Face's format) behind the "
                    "OpenAI API until Ctrl-C. On an address other than loopback, keys are needed.")
    parser.add_argument("models", metavar="RUN|FOLDER", nargs="*",
                        help="name of a run, or a folder with config.json and model.safetensors; "
                        "of several the first is loaded at once, the others when asked for")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 is any free one")
    parser.add_argument("--name", help="what the model is called, where it is one")
    parser.add_argument("--memory", metavar="BUDGET", help='what all models may take, like "8 GB"; '
                        "the longest unused goes when another one is asked for")
    parser.add_argument("--objective", metavar="ttft=S,tpot=S,loss=SHARE|auto",
                        help="let the plan choose how to serve: the cheapest way within these "
                        "(auto: the run's own)")
    parser.add_argument("--model", dest="asked_name", metavar="NAME",
                        help="with --engine URL, what that server calls the model")
    parser.add_argument("--engine-key", default="", metavar="SECRET",
                        help="with --engine URL, that server's API key")
    parser.add_argument("--queue", type=int, metavar="N",
                        help="requests that may wait for a place; the next one is told to come "
                        "again (64)")
    parser.add_argument("--log-prompts", metavar="FILE", type=Path,
                        help="write every request, word for word, to FILE; the audit chain tells "
                        "that it was said")
    add_engine_options(parser)
    add_ledger_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object when it listens")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; returns the exit code."""
    from curbcut.ledger import budgets
    from curbcut.serve.metrics import Metrics
    from curbcut.serve.server import serve

    started = time.perf_counter()
    memory = _budget(args.memory)
    with ledger_of(args, create=True) as ledger, contextlib.ExitStack() as stack:
        served = _served(ledger, args)
        alone = next(iter(served.values())).run if len(served) == 1 else None
        keyed = _keyed(stack, ledger, served)
        meter = stack.enter_context(_meter(ledger, served, keyed.till if keyed else None))
        metrics = Metrics(meter.joules, where=meter.where,
                          budgets=(lambda: budgets.budgets(ledger)) if keyed else None)
        prompts = _prompts(stack, ledger, args)

        def ready(session: Session) -> None:
            if alone is not None:
                _promise(ledger, alone)
            _greet(session, served, keyed is not None, args, time.perf_counter() - started)

        limits = _limits(args)
        with _killable():
            stats = serve({name: (one.folder, one.way) for name, one in served.items()},
                          args.host, args.port, budget_bytes=memory, meter=meter, prompts=prompts,
                          verify=keyed.verify if keyed else None,
                          till=keyed.till if keyed else None, more=keyed.routes if keyed else (),
                          on_use=None if keyed else lambda use: _record(ledger, use),
                          limits=limits, on_ready=ready, metrics=metrics)
        if alone is not None:
            _settle(ledger, alone, stats, time.perf_counter() - started, meter.total())
    print(_goodbye(stats), file=sys.stderr)
    return EXIT_OK


@dataclass(frozen=True)
class _Keyed:
    """What a server has once there are keys."""

    verify: Verify
    till: Till
    routes: Sequence[BaseRoute]
    """Where access is managed."""


def _keyed(stack: contextlib.ExitStack, ledger: Ledger,
           served: Mapping[str, Served]) -> _Keyed | None:
    """None where there is no key. The till is closed at the stack's end."""
    from curbcut.ledger import access

    if all(key.revoked is not None for key in access.kept_keys(ledger)):
        return None
    try:
        from curbcut.serve.api.admin.acts import routes
        from curbcut.serve.gateway.till import Till
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None
    from curbcut.serve.metering import tariff

    runs = {name: _known(one) for name, one in served.items()}
    prices = {name: tariff(name, run) for name, run in runs.items() if run is not None}
    till = Till(ledger, prices.get)
    stack.callback(till.close)
    return _Keyed(partial(access.verify, ledger), till, routes(ledger))


def _meter(ledger: Ledger, served: Mapping[str, Served], till: Till | None) -> StepMeter:
    """Shares out the joules and seconds of what is served on this machine."""
    from curbcut.ledger import meterings
    from curbcut.meter.sensors import open_sensors
    from curbcut.serve.metering import open_meter

    here = {name: _known(one) for name, one in served.items() if "://" not in one.way.engine}
    return open_meter(here, sensors=open_sensors(), settles=till is not None,
                      server=till.server if till else secrets.token_hex(8),
                      record=partial(meterings.record_meterings, ledger))


def _limits(args: argparse.Namespace) -> Limits:
    """The usual ones, and how many may wait. Raises InputError."""
    from curbcut.serve.gateway.limits import Limits

    if args.queue is None:
        return Limits()
    if args.queue < 0:
        raise InputError(f"{args.queue} requests cannot wait", where="--queue",
                         mend="give 0 or more")
    return Limits(queue=args.queue)


def _prompts(stack: contextlib.ExitStack, ledger: Ledger,
             args: argparse.Namespace) -> PromptLog | None:
    """Where requests are written word for word, if that was asked for."""
    if args.log_prompts is None:
        return None
    from curbcut.serve.gateway.prompts import PromptLog

    log = PromptLog(args.log_prompts, ledger, actor=actor())
    stack.callback(log.close)
    print(f"curbcut: every request is written to {args.log_prompts}", file=sys.stderr)
    return log


@contextlib.contextmanager
def _killable() -> Iterator[None]:
    """Ctrl-C ends the process at once until the server takes it over: as an exception it would
    break libraries that are being loaded, with words that help nobody.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() \
            or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _budget(text: str | None) -> int | None:
    if text is None:
        return None
    from curbcut import units

    found = int(units.parse(text, "bytes", "--memory"))
    if found < 1:
        raise InputError(f"{text!r} holds no model", where="--memory", mend='like "8 GB"')
    return found


def _served(ledger: Ledger, args: argparse.Namespace) -> dict[str, Served]:
    """All models by name. Raises InputError."""
    if "://" in args.engine:
        if args.models:
            raise InputError("the model is at that address", where=f"--engine {args.engine}",
                             mend="name it with --model, and leave the folder out")
        from curbcut.serve.engine.shelf import plain_name

        name = args.name or plain_name(args.asked_name or "model")
        return {name: Served(None, way_of(args))}
    if not args.models:
        known = runs_with_models(args.runs)
        raise InputError("names no model", where="serve",
                         mend=f"curbcut serve {known[0]}" if known else "give a folder of a model, "
                         "or train one: curbcut go")
    if args.name and len(args.models) > 1:
        raise InputError("is one name for several models", where="--name",
                         mend="leave it out: each goes by its run's or folder's name")
    found: dict[str, Served] = {}
    for given in args.models:
        folder, name = find(given, args.runs)
        name = args.name or name
        if name in found:
            raise InputError(f"two models would be called {name!r}", where="serve",
                             mend="serve them apart, or rename a folder")
        found[name] = _one(ledger, args, folder)
    return found


def _one(ledger: Ledger, args: argparse.Namespace, folder: Path) -> Served:
    from curbcut.serve.ways import refuse_unknown_ways

    run = known_run(ledger, args, folder)
    if args.objective is not None:
        run, of_ledger = _chosen(ledger, args, folder, run), run is not None
        precision = run.recipe.precision
        dtype = precision if precision in ("fp32", "bf16") else args.dtype
        way = replace(way_of(args, run), dtype=dtype)
        return Served(folder, way, run if of_ledger else None)
    if run is not None:
        refuse_unknown_ways(run.serve, "vllm" if args.engine == "vllm" else "own")
    return Served(folder, way_of(args, run), run)


def _chosen(ledger: Ledger, args: argparse.Namespace, folder: Path, run: Run | None) -> Run:
    """The run as the plan serves it best, and why, said beside."""
    from curbcut.cli.objective import within
    from curbcut.plan.serving_calibration import learned
    from curbcut.plan.serving_choice import choose

    run = run or _as_run(folder)
    asked = within(args.objective, run.serve)
    pairs = [*ledger.pairs(step="bench"), *ledger.pairs(step="serve")]
    choice = choose(run, asked, learned(run.machine, run.recipe.precision, pairs),
                    "vllm" if args.engine == "vllm" else "own")
    for line in (*choice.reasons, *choice.warnings):
        print(f"curbcut: {line}", file=sys.stderr)
    if choice.chosen is None:
        print("curbcut: it is served as the run says", file=sys.stderr)
    return choice.run


def _as_run(folder: Path) -> Run:
    """A model that is no run of ours, on this machine, as the plan knows models."""
    from curbcut.meter import here
    from curbcut.model.config import shape_of
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json
    from curbcut.plan.serving_run import to_serve
    from curbcut.spec import codec
    from curbcut.spec.draft import Draft

    shape = shape_of(read_json(folder / CONFIG), where=str(folder / CONFIG))
    values = {f"model.{key}": value for key, value in codec.plain(shape).items()}
    return to_serve(Draft().with_values(values, str(folder)), here.machine())


def _known(one: Served) -> Run | None:
    """The run that a model is priced and metered as; None where its shape is not known."""
    if one.run is not None or one.folder is None:
        return one.run
    try:
        return _as_run(one.folder)
    except CurbcutError:
        return None


def _promise(ledger: Ledger, run: Run) -> None:
    from curbcut.plan.serving import forecast_session
    from curbcut.plan.serving_calibration import learned, taught

    lesson = learned(run.machine, run.recipe.precision,
                     [pair for step in ("bench", "serve") for pair in ledger.pairs(step=step)])
    if lesson is not None:
        run = lesson.accepting(run)
    ledger.record_account(run.name, "serve", "forecast",
                          taught(forecast_session(run), run, lesson))


def _settle(ledger: Ledger, run: Run, stats: Stats, seconds: float, energy: Lap) -> None:
    from curbcut.meter.memory import cuda_peak_bytes, peak_bytes
    from curbcut.serve.measure import account

    ledger.record_account(run.name, "serve", "measured", account(
        stats, seconds, run=run, peak_bytes=cuda_peak_bytes() or peak_bytes(),
        joules=energy.joules, energy_source=energy.reason))


def _record(ledger: Ledger, use: Use) -> None:
    ledger.record_use(use.key, use.model, prompt_tokens=use.prompt_tokens,
                      output_tokens=use.output_tokens, seconds=use.seconds)


def _greet(session: Session, served: Mapping[str, Served], keyed: bool, args: argparse.Namespace,
           seconds: float) -> None:
    stats = session.stats()
    if args.json:
        print(json.dumps({"url": session.url, "model": session.model, "models": list(served),
                          "keys": keyed, "seconds": round(seconds, 3),
                          "weights_bytes": stats.weights_bytes or None,
                          "cache_bytes": stats.cache_bytes or None}), flush=True)
        return
    for name, one in served.items():
        print(f"  {name}: {_how(one, stats if name == session.model else None)}")
    who = "keys are needed" if keyed else "this machine only, no key needed"
    print(f"{session.model} answers at {session.url}/v1 after {seconds:.1f} s  ({who}; Ctrl-C "
          "ends)", flush=True)


def _how(one: Served, stats: Stats | None) -> str:
    """How one model is served, in a line; `stats` of one that is in memory."""
    from curbcut.units import show

    way = one.way
    names = {"own": "Curbcut's engine", "transformers": "transformers", "vllm": "vLLM"}
    there = " and ".join(way.engine.split())
    said = [names.get(way.engine, f"what answers at {there}"), f"{way.max_batch} together"]
    said += [way.dtype] if way.dtype != "auto" else []
    said += [f"{way.weights} weights"] if way.weights != "same" else []
    said += [f"{way.cache} cache"] if way.cache != "same" else []
    said += [f"drafts: {way.draft}"] if way.draft else []
    said += [f"adapters: {', '.join(way.adapters)}"] if way.adapters else []
    if stats is None:
        said.append("loaded when it is asked for")
    elif stats.weights_bytes:
        said.append(f"weights {show(stats.weights_bytes, 'bytes')}, cache "
                    f"{show(stats.cache_bytes, 'bytes')}")
    return ", ".join(said)


def _goodbye(stats: Stats) -> str:
    said = [f"served {stats.finished} answer{'' if stats.finished == 1 else 's'}, "
            f"{stats.answer_tokens} tokens"]
    if stats.cached_tokens and stats.prompt_tokens:
        said.append(f"{stats.cached_tokens / stats.prompt_tokens:.0%} of prompt tokens remembered")
    if stats.drafted_tokens:
        said.append(f"{stats.accepted_tokens / stats.drafted_tokens:.0%} of guesses accepted")
    if stats.preempted:
        said.append(f"{stats.preempted} times preempted")
    if stats.failed or stats.refused:
        said.append(f"{stats.failed} failed, {stats.refused} refused")
    return "; ".join(said)
