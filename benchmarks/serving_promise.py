"""What the plan promises of serving on this machine beside what a bench measures: four settings of
a model, one more of a larger one where it is given.

Each setting has a fresh server in a process of its own, asked by `curbcut bench`'s own code. Its
promise and its measurement go into a ledger that lasts as long as the benchmark. Promises are shown
thrice: before anything was measured, from the other settings' pairs alone, and from all pairs.

    python benchmarks/serving_promise.py [--model RUN|FOLDER] [--larger m30|m120|FOLDER]
        [--seconds 8] [--runs runs] [--only NAME,...] [--json FILE]

The default model is the newest run of --runs that has one. A larger shape by name has random
weights. Nothing is promised where the machine was never probed: `curbcut doctor --probe` first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import CurbcutError
from curbcut.ledger import open_ledger
from curbcut.ledger.store import Ledger
from curbcut.meter import here
from curbcut.plan.calibration import Pair
from curbcut.plan.serving_run import to_serve
from curbcut.serve.bench.drive import Bench, drive
from curbcut.serve.bench.lengths import Asking, lengths
from curbcut.serve.bench.load import Closed
from curbcut.serve.bench.process import started
from curbcut.serve.bench.promise import account, as_asked, forecast, metering, record
from curbcut.serve.engine.address import Address
from curbcut.spec import Account, Draft, Resolved, Run, codec
from curbcut.spec.estimate import Estimate
from serving_speed import SHAPES, build

FIGURES = {"TTFT ms": ("seconds", "ttft", 1e3), "TPOT ms": ("seconds", "tpot", 1e3),
           "tokens/s": ("tokens_per_second", "answers", 1.0),
           "J/token": ("joules_per_token", "answer", 1.0)}
LAST_SECONDS = 90.0
"""No setting begins later: the whole stays below two minutes."""


@dataclass(frozen=True)
class Setting:
    """One way of serving and asking."""

    name: str
    users: int = 1
    weights: str = "same"
    prompt_tokens: int = 128
    """Mean; half to one and a half of it are asked, so that users do not march in step."""
    output_tokens: int = 64
    """The same of answers."""
    shared: float = 0.0
    larger: bool = False


SETTINGS = (Setting("1 user"), Setting("16 users", users=16),
            Setting("int8-dynamic", users=4, weights="int8-dynamic"),
            Setting("90% shared", users=4, prompt_tokens=400, shared=0.9),
            Setting("larger", larger=True))


@dataclass(frozen=True)
class Met:
    """A setting, its run, what was promised before and what was measured."""

    setting: Setting
    run: Run
    promised: Account
    measured: Account
    requests: int


def run_of(folder: Path, setting: Setting) -> Run:
    """The model in `folder` as a run of this machine that is served so."""
    from curbcut.model.config import shape_of
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json

    config = read_json(folder / CONFIG)
    shape = shape_of(config, where=str(folder))
    dtype = config.get("dtype") or config.get("torch_dtype")
    values = {f"model.{key}": value for key, value in codec.plain(shape).items()}
    values |= {"name": setting.name.replace(" ", "-").replace("%", "-percent"),
               "recipe.precision": {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "fp32"),
               "serve.max_batch": max(8, setting.users), "serve.weight_precision": setting.weights,
               "serve.max_tokens": shape.context_tokens}
    return to_serve(Draft().with_values(values, str(folder)), here.machine())


def asked_of(folder: Path, setting: Setting, context: int) -> Asking:
    """Prompts of tokens, as long as the model's context lets them be."""
    from curbcut.serve.engine import text

    output = min(setting.output_tokens, context // 6)
    prompt = min(setting.prompt_tokens, (context - 2 * output) * 2 // 3)
    tokenizer = text.load(folder).tokenizer
    special = set(tokenizer.get_added_tokens_decoder())
    pool = tuple(token for token in range(tokenizer.get_vocab_size()) if token not in special)
    asked, answered = (f"{max(1, mean // 2)}..{mean + mean // 2}" for mean in (prompt, output))
    return Asking(0, lengths(asked, "prompt"), lengths(answered, "output"), setting.shared,
                  pool=pool)


def met(folder: Path, setting: Setting, seconds: float, ledger: Ledger) -> Met:
    """Serves, asks and records one setting. Raises CurbcutError."""
    run = run_of(folder, setting)
    asking, load = asked_of(folder, setting, run.model.context_tokens), Closed(setting.users)
    asked = as_asked(run, asking, load)
    promised = forecast(asked, load)
    words = ["--max-batch", str(run.serve.max_batch), "--weights", setting.weights]
    with started(folder, words) as server:
        found = drive(Address.of(server.url), Bench(
            asking=asking, loads=(load,), seconds=seconds, warmup=2 + setting.users),
            model=server.model, meter=lambda: metering(run.machine, run.place)).results[0]
    if found.errors or not found.requests:
        raise CurbcutError(f"requests failed: {dict(found.errors)}", where=setting.name)
    ledger.record_run(Resolved(run, {}))
    record(ledger, run, [(asked, promised)], [found])
    return Met(setting, asked, promised, account(found), found.requests)


def shown(one: Met, pairs: Sequence[Pair]) -> dict[str, Any]:
    """A setting's figures for programs: measured, and each promise with its interval."""
    others = [pair for pair in pairs if pair[0].get("name") != one.run.name]
    load = Closed(one.setting.users)
    plans = {"before": one.promised, "others": forecast(one.run, load, others),
             "after": forecast(one.run, load, pairs)}
    figures: dict[str, Any] = {}
    for name, (section, kind, scale) in FIGURES.items():
        real = one.measured.get(section, kind)
        value = real.value * scale if real and real.value else None
        figures[name] = {"measured": value} | {
            plan: _promise(found.get(section, kind), scale, value)
            for plan, found in plans.items()}
    return {"setting": one.setting.name, "users": one.setting.users, "requests": one.requests,
            "weights": one.setting.weights, "precision": one.run.recipe.precision,
            "parameters": one.run.model.parameters,
            "prompt_tokens": one.run.serve.prompt_tokens,
            "output_tokens": one.run.serve.output_tokens, "shared": one.setting.shared,
            "figures": figures}


def _promise(found: Estimate | None, scale: float, value: float | None) -> dict[str, Any]:
    if found is None or found.value is None:
        return {"value": None, "why": found.source if found else "not promised"}
    low, high = ((found.value if end is None else end) * scale for end in (found.low, found.high))
    middle = found.value * scale
    return {"value": middle, "low": low, "high": high,
            "inside": value is not None and low <= value <= high,
            "off": None if value is None else value / middle}


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table for people."""
    yield (f"{'setting':14} {'figure':9} {'measured':>9}   {'promised (interval)':26} "
           f"{'by the others':26} {'after':26}")
    for row in rows:
        for name, figure in row["figures"].items():
            value = figure["measured"]
            yield (f"{row['setting']:14} {name:9} "
                   f"{'-' if value is None else f'{value:9.4g}':>9}   "
                   + " ".join(f"{_words(figure[plan]):26}"
                              for plan in ("before", "others", "after"))).rstrip()
    for plan in ("before", "others", "after"):
        known = [figure[plan] for row in rows for figure in row["figures"].values()
                 if figure[plan]["value"] is not None and figure["measured"] is not None]
        if known:
            far = max(max(one["off"], 1 / one["off"]) for one in known)
            yield (f"{plan}: {sum(one['inside'] for one in known)} of {len(known)} inside, "
                   f"at most {far:.2f} times off")


def _words(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "-"
    mark = "in " if one.get("inside") else "OUT"
    return f"{one['value']:.3g} ({one['low']:.3g} to {one['high']:.3g}) {mark}"


def newest(runs: Path) -> Path | None:
    """The model of the newest run, if there is one."""
    found = sorted(runs.glob("*/model/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def folder_of(given: str, runs: Path) -> Path:
    """The model of a run by name, or in a folder. Raises CurbcutError."""
    from curbcut.cli.served import find

    return find(given, runs)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all settings; prints, writes; returns 1 where none could be met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", default="")
    parser.add_argument("--larger", default="", help=f"{', '.join(SHAPES)}, or a folder")
    parser.add_argument("--seconds", type=float, default=8.0, help="of requests a setting")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", default="", help="settings by name")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    began, skipped, done = time.perf_counter(), {}, []
    wanted = [name.strip() for name in args.only.split(",") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="curbcut-promise-") as aside, \
            open_ledger(Path(aside) / "ledger.sqlite") as ledger:
        for setting in SETTINGS:
            if wanted and setting.name not in wanted:
                skipped[setting.name] = "not asked for"
                continue
            if time.perf_counter() - began > LAST_SECONDS:
                skipped[setting.name] = f"{LAST_SECONDS:.0f} s were over"
                continue
            try:
                folder = _folder(setting, args, Path(aside))
                if isinstance(folder, str):
                    skipped[setting.name] = folder
                    continue
                done.append(met(folder, setting, args.seconds, ledger))
            except (CurbcutError, OSError, ValueError) as error:
                skipped[setting.name] = str(error).replace("\n", " ")
            print(f"{setting.name}: {skipped.get(setting.name, 'measured')}, "
                  f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
        pairs = ledger.pairs(step="bench")
        rows = [shown(one, pairs) for one in done]
    print("\n".join(lines(rows)))
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    if args.json:
        args.json.write_text(json.dumps({
            "machine": codec.plain(here.machine()), "rows": rows, "skipped": skipped}, indent=1))
    return 0 if rows else 1


def _folder(setting: Setting, args: argparse.Namespace, aside: Path) -> Path | str:
    """Where the setting's model is, or why there is none."""
    if not setting.larger:
        if args.model:
            return folder_of(args.model, args.runs)
        return newest(args.runs) or f"no run with a model in {args.runs}; name one with --model"
    if not args.larger:
        return "no --larger model was given"
    if args.larger not in SHAPES:
        return folder_of(args.larger, args.runs)
    folder = aside / args.larger / "model"
    with suppress(FileExistsError):
        build(args.larger, folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
