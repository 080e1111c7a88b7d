"""A complete run becomes an account: what it will take and give, each figure with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from curbcut.accounts import carbon, development, energy, hours, money
from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.physics import flops, goodput, memory, power, power_cap, rates, time
from curbcut.physics.numbers import smaller
from curbcut.plan import loss, rules
from curbcut.plan.calibration import Correction, Pair, corrected, correction
from curbcut.spec.account import Account
from curbcut.spec.estimate import Estimate, given, modelled
from curbcut.spec.nouns import Run

PROBED_SPREAD = 1.18
"""Factor either way on tokens/s that a probe of a few steps measured just now: clocks and
neighbours change over minutes."""


KINDS = ("steps", "evaluation", "data", "checkpoint", "other")
"""Of wall-clock time: together the total, with "compile" where blocks are compiled."""
FAULT_SPREAD = 3.0
"""Factor either way on the time lost to faults: the interval of the published rate."""


class CorpusFacts(Protocol):
    """What a plan can use of a prepared text."""

    @property
    def train_tokens(self) -> int:
        """Tokens to train on."""

    @property
    def train_bytes(self) -> int:
        """Bytes of the text to train on."""

    @property
    def validation_tokens(self) -> int:
        """Tokens held out."""

    @property
    def vocab(self) -> int:
        """Entries of the tokenizer."""


def forecast(run: Run, pairs: Iterable[Pair] = (), step_rates: Mapping[int, float] | None = None,
             corpus: CorpusFacts | None = None, *, project: Estimate | None = None,
             samples: int = 0, seed: int = 0) -> Account:
    """Prices `run`. `pairs` are measured runs to learn from, `step_rates` tokens/s measured just
    now by micro-batch, `corpus` the prepared text, `project` the ledger's own ratio of all runs to
    finished ones. The same arguments give the same account.

    Intervals are first-order, or with `samples` quantiles of so many seeded draws.
    """
    sheet = sheet_of(run, pairs, step_rates, corpus, project)
    return sheet.account(sheet.sampled_estimates(samples, seed) if samples else None)


def sheet_of(run: Run, pairs: Iterable[Pair] = (), step_rates: Mapping[int, float] | None = None,
             corpus: CorpusFacts | None = None, project: Estimate | None = None,
             learned: Correction | None = None, *, ways: bool = True) -> Sheet:
    """Every figure of the forecast of `run`, and all that it follows from. `learned` stands for
    what `pairs` teach of the machine. Without `ways`, what others would pay is left out: for who
    prices many runs and shows none.
    """
    pairs = list(pairs)
    learned = learned or correction(run.machine, run.recipe.precision, pairs, run.recipe)
    sheet = Sheet()
    write_seconds(sheet, run, step_seconds(run, learned, step_rates), corpus)
    _write_use(sheet, run)
    for kind, estimate in memory_by_kind(run, learned).items():
        sheet.leaf(f"memory_bytes.{kind}", estimate, "bytes")
    _write_energy(sheet, run)
    money.write(sheet, run.machine, run.place, ways=ways)
    carbon.write(sheet, run.machine, run.place)
    development.write(sheet, development.multiplier(run.train.development, project))
    money.write_with_staff(sheet)
    loss.write(sheet, run.model, run.steps * run.recipe.step_tokens, _asked(run, corpus, pairs))
    return sheet


def _asked(run: Run, corpus: CorpusFacts | None, pairs: list[Pair]) -> loss.Asked:
    """What the loss is asked of: the text as far as it is known, and who has learned from it."""
    known_bytes = corpus.train_bytes / corpus.train_tokens if corpus else None
    unique = float(corpus.train_tokens) if corpus else None
    text = loss.meant(run, corpus is not None)
    if unique is None and run.train.text_bytes:
        unique = run.train.text_bytes / loss.bytes_per_token(run.model.vocab, text)
    return loss.Asked(unique_tokens=unique, known_bytes_per_token=known_bytes, text=text,
                      optimiser=run.recipe.optimiser, token_worth=run.train.token_worth,
                      pairs=pairs)


def _write_energy(sheet: Sheet, run: Run) -> None:
    """Watts of what the steps keep busy, kWh at the three boundaries, joules a token."""
    energy.write(sheet, run.machine, run.place, run.recipe, power.of_run(run))
    for boundary in ("device", "node", "facility"):
        sheet.formula(f"kwh_modelled.{boundary}", "modelled watts x time", (f"kwh.{boundary}",),
                      lambda kwh: kwh, "kwh", source=sheet[f"kwh.{boundary}"].estimate.source)
    sheet.formula("joules_per_token.training", "facility energy over tokens trained",
                  ("kwh.facility", "tokens.trained"),
                  lambda kwh, tokens: kwh * energy.JOULES_PER_KWH / tokens, "joules")


def step_seconds(run: Run, learned: Correction,
                 step_rates: Mapping[int, float] | None = None) -> Estimate:
    """Seconds of one optimiser step: measured just now, else corrected by runs, else modelled."""
    measured = (step_rates or {}).get(run.recipe.micro_batch)
    if measured:
        return modelled(run.recipe.step_tokens / measured, PROBED_SPREAD,
                        f"{measured:,.0f} tokens/s measured just now at this micro-batch")
    step = time.step_seconds(run.model, run.recipe, run.machine)
    if run.recipe.power_limit < 1:
        step = power_cap.stretched(step, run.recipe, run.machine,
                                   energy.drawn_share(run.machine, power.of_run(run)))
    return corrected(step, learned.of_step(run.model, run.recipe, run.machine))


def seconds_by_kind(run: Run, step: Estimate,
                    corpus: CorpusFacts | None = None) -> dict[str, Estimate]:
    """Wall-clock seconds of training: steps, evaluation, data, checkpoint, other, total."""
    sheet = Sheet()
    write_seconds(sheet, run, step, corpus)
    return dict(sheet.account().seconds)


def write_seconds(sheet: Sheet, run: Run, step: Estimate,
                  corpus: CorpusFacts | None = None) -> None:
    """Writes step.seconds and seconds.{steps, evaluation, data, checkpoint, other, total}, and
    seconds.compile where blocks are compiled.
    """
    sheet.leaf("step.seconds", step, "seconds")
    sheet.leaf("run.steps", given(run.steps, "tokens over tokens a step"), "count")
    sheet.formula("seconds.steps", "steps x seconds a step", ("run.steps", "step.seconds"),
                  lambda steps, each: steps * each, "seconds", source=step.source)
    glances, passes = _evaluations(run, corpus)
    sheet.leaf("evaluation.steps", passes, "count")
    sheet.formula("seconds.evaluation", "evaluations, in steps' worth x seconds a step",
                  ("evaluation.steps", "step.seconds"), lambda worth, each: worth * each,
                  "seconds", source=glances, basis="modelled")
    sheet.leaf("seconds.data", modelled(
        run.steps * run.recipe.step_tokens / run.recipe.ranks * rules.BATCH_SECONDS_PER_TOKEN,
        3.0, "drawing batches"), "seconds")
    sheet.leaf("seconds.checkpoint", checkpoint_seconds(run, step), "seconds")
    sheet.leaf("start.seconds", modelled(
        rules.START_SECONDS, 5.0, "start and bookkeeping: assumed"), "seconds")
    sheet.leaf("faults.lost_share", _lost_share(run, step), "fraction")
    sheet.formula("seconds.other", "start + share lost to faults x seconds of steps",
                  ("start.seconds", "faults.lost_share", "seconds.steps"),
                  lambda start, share, steps: start + share * steps, "seconds",
                  source=sheet["faults.lost_share"].estimate.source
                  or sheet["start.seconds"].estimate.source, basis="modelled")
    kinds: tuple[str, ...] = KINDS
    if run.recipe.compile:
        sheet.leaf("seconds.compile", modelled(
            rules.COMPILE_SECONDS, rules.COMPILE_SPREAD, "the first compiled steps: as a "
            "CPU took for a 30M decoder"), "seconds")
        kinds = (*KINDS, "compile")
    sheet.formula("seconds.total", " + ".join(kinds),
                  [f"seconds.{kind}" for kind in kinds], lambda *each: sum(each), "seconds",
                  source=step.source)
    if run.place.hours:
        share = hours.stretch(run.place)
        sheet.formula("seconds.calendar", f"total, in the hours {run.place.hours} of each day",
                      ("seconds.total",), lambda total: total * share, "seconds",
                      source=f"only in the hours {run.place.hours}")


def _evaluations(run: Run, corpus: CorpusFacts | None) -> tuple[str, Estimate]:
    """Glances on the way, and one evaluation of all held-out text at the end, in steps' worth."""
    held_out = corpus.validation_tokens if corpus else rules.HELD_OUT_TOKENS
    glances = (run.steps - 1) // run.recipe.evaluate_every_steps
    tokens = glances * min(rules.GLANCE_TOKENS, held_out) + rules.LAST_PASSES * held_out
    return (f"{glances} glances, and {held_out:,} held-out tokens at the end",
            modelled(rules.FORWARD_SHARE * tokens / run.recipe.step_tokens, 1.3 if corpus else 2.0,
                     "forward passes, as a share of a step"))


def checkpoint_seconds(run: Run, step: Estimate) -> Estimate:
    """What checkpoints on the way keep waiting, and a whole one at the end."""
    saves = (run.steps - 1) // _steps_apart(run, step) + 1
    many = "checkpoint" if saves == 1 else "checkpoints"
    each = rules.saved_bytes(run.model, run.recipe) * run.recipe.ranks / run.model.parameters
    waited = (saves - 1) * rules.stall_seconds(run.model, run.recipe)
    how = ", written while training goes on" if run.recipe.checkpoint_async else ""
    return modelled(waited + rules.save_seconds(run.model, run.recipe), 3.0,
                    f"{saves:,} {many} of {each:.3g} bytes a parameter{how}, disk assumed")


def _steps_apart(run: Run, step: Estimate) -> int:
    return rules.steps_apart(run.model, run.recipe, step.value or 0.0, run.machine.accelerators)


def _lost_share(run: Run, step: Estimate) -> Estimate:
    """Work done again and restarts after faults, over the steps' own time (`goodput`). Published
    runs lost more than faults explain: their median loss is the high end where that is higher.
    """
    if run.machine.nodes == 1 or not step.value:
        return given(0.0, "")
    apart = _steps_apart(run, step) * step.value
    shares = goodput.goodput(rules.stall_seconds(run.model, run.recipe), run.machine.accelerators,
                             apart)
    again = (shares.lost + shares.restarts) / shares.productive
    published = known("goodput")
    assert published.value is not None
    return Estimate(again, again / FAULT_SPREAD,
                    max(FAULT_SPREAD * again, 1 / published.value - 1), "modelled",
                    "faults of so many accelerators (arXiv:2407.21783); high end: median of "
                    "published runs")


def _write_use(sheet: Sheet, run: Run) -> None:
    """Tokens, FLOPs and speed; MFU, HFU and goodput, never above 1."""
    tokens = run.steps * run.recipe.step_tokens
    counted = {
        "model": flops.model_flops_per_token(run.model, run.recipe.sequence_tokens),
        "hardware": flops.hardware_flops_per_token(run.model, run.recipe),
    }
    sheet.leaf("tokens.trained", given(tokens, "the run's steps x tokens a step"), "count")
    for kind, each in counted.items():
        sheet.leaf(f"flops.{kind}", given(each * tokens, f"exact count of {kind} FLOPs"), "flops")
    sheet.formula("tokens_per_second.steps", "tokens over seconds of steps",
                  ("tokens.trained", "seconds.steps"), lambda all_, seconds: all_ / seconds,
                  "tokens/s", source=sheet["step.seconds"].estimate.source, basis="modelled")
    peak = rates.matmul_peak(run.machine, run.recipe.precision).scaled(run.machine.accelerators)
    sheet.leaf("machine.peak_flops", peak, "flops/s")
    for section, kind in (("mfu", "model"), ("hfu", "hardware")):
        sheet.formula(f"{section}.run", f"{kind} FLOPs over seconds of steps and peak",
                      (f"flops.{kind}", "seconds.steps", "machine.peak_flops"),
                      lambda done, seconds, most: smaller(done / seconds / most, 1.0), "fraction",
                      source=f"of the {peak.source}", basis="modelled")
    sheet.formula("goodput.run", "seconds of steps over all seconds",
                  ("seconds.steps", "seconds.total"), lambda part, whole: part / whole,
                  "fraction", source="steps over wall-clock time", basis="modelled")


def memory_by_kind(run: Run, learned: Correction) -> dict[str, Estimate]:
    """Bytes on the fullest rank by kind, and their peak."""
    parts = rules.held_bytes(run.model, run.recipe, run.machine.kind)
    exact = ("parameters", "gradients", "optimiser")
    spread = memory.MEMORY_SPREAD.get(run.machine.kind, memory.MEMORY_SPREAD["gpu"])
    found = {kind: given(value, "bytes a parameter x parameters") if kind in exact
             else modelled(value, spread ** 2, "closed form") for kind, value in parts.items()}
    peak = modelled(parts["peak"], spread, "sum of the kinds")
    factor = learned.of_peak(run.model, run.recipe, run.machine.kind)
    return found | {"peak": corrected(peak, factor)}
