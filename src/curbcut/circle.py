"""The circle: plan, data, train, eval, serve, report; each step picks up where the last stopped.

The recipe that is priced is the very object that is trained, and what was measured goes into
the ledger, from where it corrects the next plan.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.accounts.development import ledger_ratio
from curbcut.data import prepare
from curbcut.data.corpus import Corpus
from curbcut.errors import InputError, Resumable
from curbcut.evaluate.bits import BitsPerByte
from curbcut.evaluate.compressors import of_corpus
from curbcut.ledger import FILE_NAME, kept_pairs, open_ledger
from curbcut.ledger.inbox import FOLDER, Writer, import_folder
from curbcut.meter import detect, forked, here, probe
from curbcut.meter.clock import SystemClock
from curbcut.meter.detect import Detected
from curbcut.meter.energy import EnergyMeter, Lap
from curbcut.meter.sensors import open_sensors
from curbcut.plan.calibration import Correction, Pair, correction
from curbcut.plan.forecast import forecast as price
from curbcut.plan.machines import HERE, is_here, ranks_here
from curbcut.plan.resolve import resolve
from curbcut.plan.serving import forecast_serving
from curbcut.spec import Account, Draft, Estimate, Machine, Resolved, Run
from curbcut.train import folder as run_folders
from curbcut.train import layouts

if TYPE_CHECKING:
    from rich.console import Console

    from curbcut.evaluate.samples import Sample
    from curbcut.launch.environment import Seat
    from curbcut.ledger.store import Ledger
    from curbcut.serve.engine.interface import Stats
    from curbcut.train.start import Trained

DATA = ".data"
DEFAULT_NAME = "first"
QUESTION = 'def read_file(path):\n    """'
ANSWER_TOKENS = 64
SAMPLE_TOKENS = 40
LARGE = 300_000_000
"""Parameters from which samples are short: they are written without a cache."""
BAR = 48
"""Columns of the longest bar."""
MOST_WINDOW = 1024
"""Tokens of a window on which a model of any folder is scored."""


@dataclass(frozen=True)
class Settled:
    """A run that is fixed: what is trained, what was promised, and the text."""

    resolved: Resolved
    forecast: Account
    corpus: Corpus
    folder: Path
    began: float | None = None
    """Since when, on `SystemClock`, seconds are training's: of a run that stood, the command's."""


def settle(draft: Draft, runs: Path, console: Console, *, began: float | None = None) -> Settled:
    """Steps 1 and 2: plans the run, prepares its text, probes the real step, and fixes the recipe.

    A run that stands already under the draft's name is taken as it stands; raises InputError
    where the draft says otherwise than it. `began` is when the command began, on `SystemClock`.
    """
    draft = draft.with_values({"name": DEFAULT_NAME}, "default")
    folder = run_folders.run_folder(runs, draft.get("name"))
    # A damaged ledger is told before hours of training, not after.
    pairs, project = kept_pairs(runs / FILE_NAME), ledger_ratio(runs / FILE_NAME)
    if (folder / "run.toml").exists():
        return replace(_standing(draft, folder, console, pairs, project), began=began)

    from curbcut.report.account import print_plan

    heading(console, 1, "plan", "what this budget buys on this machine")
    asked, draft = draft, _with_version(draft)
    machine = _machine(console, ranks_here(draft.get("machine.name", HERE)))
    first = resolve(draft, here=machine, pairs=pairs)
    print_plan(first, price(first.run, pairs, project=project), console=console)

    heading(console, 2, "data", f"text: {first.run.train.text}")
    corpus = _corpus(first, runs, console)
    # A step on several ranks is no step of one, and a micro-batch that was asked for is not
    # chosen: there the plan's own figures hold, and training begins seconds earlier.
    to_choose = first.run.recipe.ranks == 1 and not draft.has("recipe.micro_batch")
    rates = _probe_step(first, console) if to_choose else None
    settled = resolve(_with_shape(draft, first), here=machine, corpus=corpus, step_rates=rates,
                      pairs=pairs)
    forecast = price(settled.run, pairs, step_rates=rates, corpus=corpus, project=project)
    run_folders.claim(folder, settled, forecast, asked=asked)
    _print_settled(console, settled, forecast, folder)
    return Settled(settled, forecast, corpus, folder, time.perf_counter())


def _with_version(draft: Draft) -> Draft:
    """The draft with the release of the software that will run it: what is measured teaches plans
    with that release.
    """
    if draft.get("recipe.stack", "torch") != "torch":
        return draft
    release = metadata.version("torch").partition("+")[0]
    return draft.with_values({"recipe.stack_version": release}, "installed")


def _standing(draft: Draft, folder: Path, console: Console, pairs: Sequence[Pair],
              project: Estimate | None) -> Settled:
    """The run that is in `folder`, under the layout that the draft asks for; raises InputError
    where the draft asks for another run.
    """
    resolved, forecast = run_folders.read_plan(folder)
    changed = layouts.changes(resolved.run, draft, folder)
    as_it_is = not changed or run_folders.ended(folder) is not None
    heading(console, 1, "plan", f"{folder}/run.toml stands; "
            f"{'it is taken as it is' if as_it_is else 'it goes on under another layout'}")
    heading(console, 2, "data", f"text: {resolved.run.train.text}")
    corpus = _corpus(resolved, folder.parent, console)
    if not as_it_is:
        resolved, forecast = _relaid(draft, folder, changed, corpus, console, pairs, project)
    return Settled(resolved, forecast, corpus, folder)


def _relaid(draft: Draft, folder: Path, changed: Mapping[str, tuple[Any, Any]], corpus: Corpus,
            console: Console, pairs: Sequence[Pair],
            project: Estimate | None) -> tuple[Resolved, Account]:
    from curbcut.launch import relaid

    found = relaid.propose(folder, draft, changed, corpus, pairs=pairs, project=project,
                           machine=lambda ranks: _machine(console, ranks))
    resolved, forecast, step = relaid.take(folder, found, draft)
    console.print(f"  {relaid.said(changed)}; from step {step} on. The layouts before are kept in "
                  f"{folder}/{layouts.KEPT}; the forecast is of the whole run, each part of it "
                  "under its own layout", highlight=False)
    _print_settled(console, resolved, forecast, folder)
    return resolved, forecast


def train(settled: Settled, console: Console, *, relaunch_slow: bool = False) -> Account:
    """Step 3: trains to the end, or finds that this was done; returns what was measured.

    A run on several ranks has them started, watched and started again here; with `relaunch_slow`
    also where one of them is slow. Raises Resumable when it was stopped before the end, at a
    verified checkpoint.
    """
    ending = run_folders.ended(settled.folder)
    run = settled.resolved.run
    if ending is not None:
        heading(console, 3, "train", f"done before ({ending.reason}); a new run needs a new --name")
        return ending.measured
    ranks = f" on {run.recipe.ranks} ranks" if run.recipe.ranks > 1 else ""
    heading(console, 3, "train", f"{run.steps} steps of {run.recipe.step_tokens:,} tokens "
            f"in {run.recipe.precision}{ranks}")
    if run.recipe.ranks > 1:
        return _train_ranks(settled, console, relaunch_slow)
    from curbcut.train.start import train_run

    trained: Trained = train_run(settled.resolved, settled.forecast, settled.corpus,
                                 settled.folder, console, began=settled.began)
    if trained.stop.resumable:
        raise Resumable(f"{trained.stop.reason}; saved at step {trained.steps} of {run.steps}",
                        where=str(settled.folder),
                        mend=f"`curbcut train {run.name}` goes on from there")
    return trained.account


def _train_ranks(settled: Settled, console: Console, relaunch_slow: bool) -> Account:
    from curbcut.launch import local
    from curbcut.launch.ranks import Task

    run = settled.resolved.run
    done = local.train(Task(settled.resolved, settled.forecast, settled.corpus, settled.folder,
                            leave_slow=relaunch_slow, began=settled.began), console)
    if done.resumable or done.account is None:
        raise Resumable(f"{done.reason}; saved at step {done.steps} of {run.steps}",
                        where=str(settled.folder),
                        mend=f"`curbcut train {run.name}` goes on from there")
    return done.account


def train_seat(draft: Draft, runs: Path, seat: Seat, console: Console, *,
               then: Callable[[Settled, Account], None] | None = None,
               began: float | None = None) -> int:
    """Plan, data and training as one rank of several that something else started (torchrun).

    Rank 0 plans and prepares, the others read what it wrote. `then` is done on rank 0 at the end
    of the run, instead of telling what was measured. `began` is as in `settle`. Returns the exit
    code. Collective.
    """
    from curbcut.launch import together

    draft = draft.with_values({"name": DEFAULT_NAME}, "default")
    folder = run_folders.run_folder(runs, draft.get("name"))
    stands = (folder / "run.toml").exists()

    def last(resolved: Resolved, forecast: Account, corpus: Corpus, measured: Account) -> None:
        settled = Settled(resolved, forecast, corpus, folder)
        if then is not None:
            then(settled, measured)
        else:
            show_samples(settled, console)
            tell(settled, measured, console)

    return together.train(
        seat, runs, draft.get("name"), console,
        settle=lambda: _parts(settle(_seated(draft, folder, seat), runs, console)),
        prepared=lambda resolved, quiet: _corpus(resolved, runs, quiet), tell=last,
        began=began if stands else None)


def _seated(draft: Draft, folder: Path, seat: Seat) -> Draft:
    """`draft` for the machine that the launcher made of this computer and others, where nobody
    says one and no run stands that is for as many ranks on as many nodes.
    """
    if (folder / "run.toml").exists():
        run = run_folders.read_plan(folder)[0].run
        if (run.recipe.ranks, run.machine.nodes) == (seat.size, seat.nodes):
            return draft
    asked = draft.get("machine.name", "")
    if is_here(asked) and ranks_here(asked) != seat.size:
        raise InputError(f"machine.name = \"{asked}\" is {ranks_here(asked)} ranks and {seat.size} "
                         "were started", where="machine.name",
                         mend=f"start {ranks_here(asked)} processes, or leave it out")
    return draft.with_values({"machine.name": f"{seat.size}x{HERE}", "machine.nodes": seat.nodes},
                             "launcher")


def _parts(settled: Settled) -> tuple[Resolved, Account, Corpus]:
    return settled.resolved, settled.forecast, settled.corpus


def rehearse(draft: Draft, runs: Path, console: Console) -> tuple[Account, Account]:
    """A minute of the run, made small, through the same code; the plan before it and after it.

    The run itself is neither claimed nor begun. Its rehearsal is a run of its own beside it, and
    takes the place of an earlier one.
    """
    from curbcut.report.rehearsal import print_change
    from curbcut.train import lock, rehearsal

    draft = draft.with_values({"name": DEFAULT_NAME}, "default")
    pairs, project = kept_pairs(runs / FILE_NAME), ledger_ratio(runs / FILE_NAME)
    resolved, corpus = _planned(draft, runs, console, pairs)
    small = rehearsal.of(resolved.run)
    heading(console, 2, "rehearsal", small.shrunk)
    folder = run_folders.run_folder(runs, small.run.name)
    if folder.exists():
        with lock.held(folder):
            shutil.rmtree(folder)
    settled = Settled(Resolved(small.run, resolved.origins),
                      price(small.run, pairs, corpus=corpus), corpus, folder)
    run_folders.claim(folder, settled.resolved, settled.forecast)
    train(settled, console)
    with _ledger_with(settled):
        pass  # opening it took in what the rehearsal left
    before, after = (price(resolved.run, known, corpus=corpus, project=project)
                     for known in (pairs, kept_pairs(runs / FILE_NAME)))
    heading(console, 4, "plan", f"{resolved.run.name}, before and after its rehearsal")
    print_change(before, after, console)
    return before, after


def _planned(draft: Draft, runs: Path, console: Console,
             pairs: Sequence[Pair]) -> tuple[Resolved, Corpus]:
    """The run of a draft and its text, without claiming it; one that stands as it stands."""
    folder = run_folders.run_folder(runs, draft.get("name"))
    if (folder / "run.toml").exists():
        standing, _ = run_folders.read_plan(folder)
        changed, corpus = (layouts.changes(standing.run, draft, folder),
                           _corpus(standing, runs, console))
        if not changed:
            return standing, corpus
        from curbcut.launch import relaid

        return relaid.propose(folder, draft, changed, corpus, pairs=pairs,
                              machine=lambda ranks: _machine(console, ranks)).resolved, corpus
    heading(console, 1, "plan", "to be rehearsed")
    machine = _machine(console, ranks_here(draft.get("machine.name", HERE)))
    first = resolve(draft, here=machine, pairs=pairs)
    corpus = _corpus(first, runs, console)
    return resolve(_with_shape(draft, first), here=machine, corpus=corpus, pairs=pairs), corpus


def judge(settled: Settled, console: Console) -> BitsPerByte:
    """Step 4: how well the model knows the held-out text, beside gzip and xz."""
    from curbcut.evaluate.bits import evaluate
    from curbcut.model.weights import load
    from curbcut.train.held_out import final_stride

    heading(console, 4, "eval", "held-out bits per byte: lower is better, and zip files are a bar")
    result = run_folders.read_evaluation(settled.folder)
    tokens = settled.resolved.run.recipe.sequence_tokens
    if result is None:
        model, _ = load(settled.folder / "model")
        result = evaluate(model.eval(), settled.corpus, tokens, stride=final_stride(tokens))
        run_folders.write_evaluation(settled.folder, result)
    print_judgement(console, result, of_corpus(settled.corpus))
    show_samples(settled, console)
    return result


def show_samples(settled: Settled, console: Console) -> list[Sample]:
    """What the trained model writes after the beginnings of a few held-out documents: made once,
    and kept in the run's folder and record.
    """
    samples = run_folders.read_samples(settled.folder)
    if samples is None:
        samples = _made_samples(settled)
        run_folders.write_samples(settled.folder, samples)
        with Writer(settled.folder / FOLDER, settled.resolved.run.name, "samples") as writer:
            writer.write("samples", {"samples": [vars(one) for one in samples]})
    for one in samples:
        for line in f"{one.prompt}▸{one.written}".splitlines():
            console.print(f"  │ {line}", highlight=False, markup=False, style="dim")
        console.print()
    return samples


def _made_samples(settled: Settled) -> list[Sample]:
    from curbcut.evaluate.samples import of_held_out
    from curbcut.model.weights import load

    run = settled.resolved.run
    model, shape = load(settled.folder / "model")
    count = SAMPLE_TOKENS if shape.parameters < LARGE else SAMPLE_TOKENS // 5
    return of_held_out(model.eval(), settled.corpus, tokens=count,
                       sequence_tokens=run.recipe.sequence_tokens)


def judge_folder(model_folder: Path, text: str, console: Console) -> BitsPerByte:
    """How well the model of a folder in Hugging Face's format knows the text of another."""
    from curbcut.evaluate import text as texts
    from curbcut.evaluate.bits import evaluate
    from curbcut.evaluate.compressors import reference
    from curbcut.model.weights import load
    from curbcut.train.held_out import final_stride

    model, shape = load(model_folder)
    held = texts.read(text, model_folder)
    tokens = min(shape.context_tokens, MOST_WINDOW)
    result = evaluate(model.eval(), held, tokens, stride=final_stride(tokens))
    print_judgement(console, result, reference(held.text))
    return result


def print_judgement(console: Console, result: BitsPerByte,
                    compressors: Mapping[str, float]) -> None:
    """The model's bits per byte in one short table with what compressors need."""
    rows = {"this model": result.bits_per_byte, **compressors}
    scale = min(16.0, BAR / max(rows.values()))
    for name, bits in sorted(rows.items(), key=lambda row: row[1]):
        bar = "█" * round(scale * bits)
        style = "bold green" if name == "this model" else "dim"
        console.print(f"  {name:<12} {bits:6.3f} bits/byte  {bar}", style=style, highlight=False)
    console.print(f"  perplexity {result.perplexity:,.1f} a token", style="dim", highlight=False)
    console.print(f"  on {result.bytes_:,} bytes of text that training never saw; the compressors "
                  "read the same text as one file", style="dim", highlight=False)


def ask(settled: Settled, console: Console, question: str = QUESTION) -> str:
    """Step 5: serves the model on a free local port, asks it one question over HTTP, and records
    what that was to take and what it took.
    """
    from curbcut.serve.engine import text
    from curbcut.serve.opening import Way
    from curbcut.serve.server import serving

    heading(console, 5, "serve", "one question over HTTP")
    run, model = settled.resolved.run, settled.folder / "model"
    promised = forecast_serving(run, 1, max(1, len(text.load(model).encode(question))),
                                ANSWER_TOKENS)
    with serving(model, way=Way.of(run.serve)) as session, \
            EnergyMeter(open_sensors()) as meter:
        console.print(f"  POST {session.url}/v1/completions", style="dim", highlight=False)
        answer = _post_completion(session.url, session.model, question)
        meter.lap()
        measured = _measured_answer(run, session.stats(), meter.total())
    _record_serving(settled, promised, measured)
    for line in (question + answer).splitlines():
        console.print(f"  │ {line}", highlight=False, markup=False)
    return answer


def _measured_answer(run: Run, stats: Stats, lap: Lap) -> Account:
    from curbcut.serve.measure import account

    return account(stats, lap.seconds, run=run, joules=lap.joules, energy_source=lap.reason,
                   peak_source="served by the process that trained: its peak is not serving's")


def _record_serving(settled: Settled, promised: Account, measured: Account) -> None:
    """Into the ledger, behind what training left there."""
    name = settled.resolved.run.name
    with _ledger_with(settled) as ledger:
        ledger.record_account(name, "serve", "forecast", promised)
        ledger.record_account(name, "serve", "measured", measured)


@contextmanager
def _ledger_with(settled: Settled) -> Iterator[Ledger]:
    """The ledger of the run's folder, with all that its processes have left."""
    with open_ledger(settled.folder.parent / FILE_NAME) as ledger:
        ledger.record_run(settled.resolved)
        import_folder(ledger, settled.folder)
        yield ledger


def _post_completion(url: str, model: str, question: str) -> str:
    import urllib.request

    # A small model repeats itself when it always takes the likeliest token.
    body = json.dumps({"model": model, "prompt": question, "max_tokens": ANSWER_TOKENS,
                       "temperature": 0.7, "seed": 0})
    request = urllib.request.Request(f"{url}/v1/completions", body.encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        text: str = json.load(response)["choices"][0]["text"]
    return text


def go(draft: Draft, runs: Path, console: Console, question: str = QUESTION, *,
       began: float | None = None) -> None:
    """The whole circle on the machine at hand; `began` is as in `settle`."""
    from curbcut.serve.ways import refuse_unknown_ways

    settled = settle(draft, runs, console, began=began)
    refuse_unknown_ways(settled.resolved.run.serve)
    measured = train(settled, console)
    judge(settled, console)
    ask(settled, console, question)
    tell(settled, measured, console)


def go_seat(draft: Draft, runs: Path, seat: Seat, console: Console, question: str, *,
            began: float | None = None) -> int:
    """The whole circle where something else started the ranks (torchrun): all train, rank 0 does
    the rest. `began` is as in `settle`. Returns the exit code. Collective.
    """
    def rest(settled: Settled, measured: Account) -> None:
        judge(settled, console)
        ask(settled, console, question)
        tell(settled, measured, console)

    return train_seat(draft, runs, seat, console, then=rest, began=began)


def tell(settled: Settled, measured: Account, console: Console) -> None:
    """Step 6: brings the ledger up to date and shows promised against measured."""
    from curbcut.report.comparison import print_comparison
    from curbcut.report.learned import print_learned

    heading(console, 6, "report", "promised against measured")
    with _ledger_with(settled):
        pass  # opening it took in what training left
    print_comparison(settled.forecast, measured, currency=settled.resolved.run.place.currency,
                     console=console)
    print_learned(settled.resolved.run, _learned(settled), console)
    name = settled.resolved.run.name
    for command, why in ((f"curbcut serve {name}", "serve it, OpenAI-compatible"),
                         (f"curbcut chat {name}", "write with it, here in the terminal"),
                         (f"curbcut bench {name}", "what users meet under load"),
                         (f"curbcut report {name}", "this table again, and serving's"),
                         ("curbcut go --name next", "a second run: this one corrects its plan")):
        console.print(f"  {command:<24} {why}", highlight=False)


def _learned(settled: Settled) -> Correction:
    """What the runs of the ledger teach of the settled one's machine and software."""
    run = settled.resolved.run
    return correction(run.machine, run.recipe.precision,
                      kept_pairs(settled.folder.parent / FILE_NAME), run.recipe)


def heading(console: Console, number: int, step: str, text: str) -> None:
    """One line that says which of the steps begins."""
    console.print(f"\n[bold]{number} {step}[/bold]  [dim]{text}[/dim]", highlight=False)


def _print_settled(console: Console, settled: Resolved, forecast: Account, folder: Path) -> None:
    from curbcut.units import show

    run = settled.run
    seconds = forecast.get("seconds", "total")
    expected = f", about {show(seconds.value, 'seconds')}" if seconds and seconds.value else ""
    console.print(f"  settled: {run.recipe.global_batch} sequences a step in micro-batches of "
                  f"{run.recipe.micro_batch}, {show(run.train.tokens, 'count')} tokens{expected}; "
                  f"written to {folder}/run.toml", highlight=False)


def _machine(console: Console, ranks: int = 1) -> Machine:
    detected = detect.machine(ask_torch=True)
    if probe.kept(detected).probe is None:
        console.print("  probing this machine once (under 5 s) ...", style="dim")
    if ranks > 1:
        return _machine_of_ranks(detected, ranks, console)
    return here.machine(detected, probe.fresh(detected).probe)


def _machine_of_ranks(detected: Detected, ranks: int, console: Console) -> Machine:
    """The same, and how fast its ranks are to each other; probed in processes of their own, for
    ranks will be forked from this one.
    """
    import torch  # noqa: F401  (once, before the forks)

    if probe.kept(detected).probe is None:
        forked.run(lambda _: bool(probe.fresh(detected)))
    found = probe.kept(detected).probe
    if found is not None and str(ranks) not in found.links and not detected.gpus:
        console.print(f"  timing what {ranks} ranks here pass to each other, once ...",
                      style="dim")
        found = probe.with_link(detected, found, ranks)
    return here.machine(detected, found, ranks=ranks)


def _corpus(resolved: Resolved, runs: Path, console: Console) -> Corpus:
    run = resolved.run
    with console.status("  preparing the text") as line:
        corpus = prepare(run.train, run.model.vocab, runs / DATA,
                         lambda stage, share: line.update(f"  {stage} {share:.0%}"))
    console.print(f"  {corpus.train_tokens:,} tokens to train on, {corpus.validation_tokens:,} "
                  f"held out, {corpus.bytes_per_token:.2f} bytes a token", highlight=False)
    for remark in corpus.remarks():
        console.print(f"  {remark}", style="dim", highlight=False)
    return corpus


def _probe_step(resolved: Resolved, console: Console) -> dict[int, float]:
    from curbcut.train.probe import step_rates

    console.print("  timing a real step to choose the micro-batch ...", style="dim")
    rates = step_rates(resolved.run, SystemClock())
    said = ", ".join(f"{micro}: {rate:,.0f}" for micro, rate in sorted(rates.items()))
    console.print(f"  tokens/s by micro-batch: {said}", highlight=False)
    return rates


def _with_shape(draft: Draft, first: Resolved) -> Draft:
    """The draft with the first plan's model fixed: the probe timed that one."""
    from curbcut.spec import codec

    shape = {f"model.{k}": v for k, v in codec.plain(first.run.model).items()}
    return Draft({**shape, **draft.values},
                 {**{k: first.origins.get(k, "plan") for k in shape}, **draft.origins})
