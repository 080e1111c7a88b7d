"""Which shape, and how many tokens, for the lowest expected loss within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from curbcut import units
from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import energy
from curbcut.accounts.money import money, to_usd
from curbcut.errors import InputError
from curbcut.physics import flops, power, rates
from curbcut.plan import loss, rules, shapes
from curbcut.plan.calibration import Correction
from curbcut.plan.forecast import CorpusFacts, seconds_by_kind, step_seconds
from curbcut.plan.layout import Layout, lay_out
from curbcut.spec import checks
from curbcut.spec.estimate import given
from curbcut.spec.nouns import Limits, Machine, ModelShape, Place, Run, TrainJob


@dataclass(frozen=True)
class Question:
    """What a search must answer, and what it has to keep."""

    machine: Machine
    place: Place
    limits: Limits
    tokens: int | None
    shape: ModelShape | None
    """The whole shape, when it was given."""
    model_fields: Mapping[str, Any]
    """Single dimensions that were given."""
    recipe_fields: Mapping[str, Any]
    shape_was_planned: bool = False
    """The shape is an earlier search's: its tokens are what the limits allow, as they were then."""
    corpus: CorpusFacts | None = None
    learned: Correction = field(default_factory=Correction)
    step_rates: Mapping[int, float] | None = None
    text_bytes: float = 0.0
    """Different text at hand, where none is prepared; 0 for no end of it."""
    text: str = loss.GENERAL

    def unique_tokens(self, shape: ModelShape) -> float | None:
        """Different tokens to train on; None for no end of them."""
        if self.corpus:
            return float(self.corpus.train_tokens)
        if not self.text_bytes:
            return None
        return self.text_bytes / loss.bytes_per_token(shape.vocab, self.text)


@dataclass(frozen=True)
class Answer:
    """A shape, its recipe and its tokens (whole steps), and what set the tokens."""

    shape: ModelShape
    layout: Layout
    tokens: int
    reason: str


def allowed_seconds(question: Question, run: Run | None = None) -> tuple[float, str]:
    """Seconds of training that every limit allows, and the name of the tightest; inf without any.

    Money, energy and carbon all grow in proportion to time, so each limit is a time. With `run`
    the accelerators draw what its operations keep busy, else what training draws in general.
    """
    limits, machine, place = question.limits, question.machine, question.place
    hour = given(3600.0, "one hour")
    drawn = (run.recipe, power.of_run(run)) if run else ()
    kwh = energy(machine, place, hour, *drawn)["facility"]
    usd = money(machine, place, hour, kwh)["total"].value
    kilograms = carbon(machine, place, hour, kwh)["total"].value
    bounds = [(float("inf"), "")]
    if limits.seconds is not None:
        bounds.append((limits.seconds, f"time limit of {units.show(limits.seconds, 'seconds')}"))
    for limit, rate, name in (
            (to_usd(limits.money) if limits.money else None, usd, f"money limit of {limits.money}"),
            (limits.kwh, kwh.value, f"energy limit of {limits.kwh} kWh"),
            (limits.kgco2e, kilograms, f"carbon limit of {limits.kgco2e} kg")):
        if limit is None:
            continue
        if rate is None:
            raise InputError(f"the {name} cannot be planned for: its rate here is not known",
                             where="limits", mend="set place.usd_per_accelerator_hour, or "
                             "machine.watts = { typical = ... }, or limit the time instead")
        if rate > 0:
            bounds.append((3600.0 * limit / rate, name))
    seconds, name = min(bounds)
    return rules.LIMIT_MARGIN * seconds, name


def answer(question: Question) -> Answer:
    """The best plan. Raises InputError when nothing fits in memory or in the limits."""
    seconds, name = allowed_seconds(question)
    best: tuple[float, Answer] | None = None
    failure: InputError | None = None
    for shape in _candidates(question, seconds):
        try:
            found = _within(question, shape, *_by_its_power(question, shape, seconds, name))
        except InputError as error:
            failure = failure or error
            continue
        score = loss.ranking(shape, found.tokens, question.unique_tokens(shape))
        if best is None or score < best[0]:
            best = (score, found)
    if best is None:
        raise failure or InputError("no shape of the family has these dimensions", where="model",
                                    mend="give all of the model's dimensions, or a preset")
    return best[1]


def _by_its_power(question: Question, shape: ModelShape, seconds: float,
                  name: str) -> tuple[float, str]:
    """`allowed_seconds` of this shape, where a limit depends on what accelerators draw: that is
    known once there is a recipe.
    """
    limits = question.limits
    owned = limits.money is not None and question.place.tenure != "rent"
    limited = limits.kwh is not None or limits.kgco2e is not None or owned
    if not limited or question.machine.kind != "gpu":
        return seconds, name
    tokens = question.tokens or _within(question, shape, seconds, name).tokens
    layout = _checked(question, shape, tokens)
    return allowed_seconds(question, provisional(question, shape, layout, tokens))


def _candidates(question: Question, seconds: float) -> Iterator[ModelShape]:
    if question.shape is not None:
        yield question.shape
        return
    vocab = question.corpus.vocab if question.corpus else rules.vocab(_budget(question, seconds))
    vocab = question.model_fields.get("vocab") or vocab
    context = max(question.model_fields.get("context_tokens") or 1024,
                  question.recipe_fields.get("sequence_tokens") or 0)
    if question.machine.kind != "cpu":
        context = max(context, rules.SEQUENCE)
    given_fields = {k: v for k, v in question.model_fields.items() if k != "preset"}
    known = {one.name for one in fields(ModelShape)}
    family = [replace(one, **{k: v for k, v in given_fields.items() if k in known})
              for one in shapes.family(vocab, context)]
    family = valid([one for one in dict.fromkeys(family)
                     if one.parameters >= rules.LEAST_PARAMETERS])
    if question.tokens is not None and seconds == float("inf"):
        wanted = question.tokens / rules.TOKENS_PER_PARAMETER
        family = sorted(family, key=lambda one: abs(one.parameters / wanted - 1))[:1]
    yield from family


def valid(family: list[ModelShape]) -> list[ModelShape]:
    """Shapes that can be; raises the first one's InputError where given dimensions leave none."""
    kept: list[ModelShape] = []
    failure: InputError | None = None
    for one in family:
        try:
            checks.shape(one)
        except InputError as error:
            failure = failure or error
        else:
            kept.append(one)
    if failure is not None and not kept:
        raise failure
    return kept


def _budget(question: Question, seconds: float) -> float:
    """Training FLOPs to expect, to choose a vocabulary by: a third of the peak, or 6 N D."""
    if seconds == float("inf"):
        tokens = float(question.tokens or 0)
        return 6 * tokens * tokens / rules.TOKENS_PER_PARAMETER
    precision, _ = rules.precision(question.machine)
    peak = rates.matmul_peak(question.machine, precision).value or 1e11
    return seconds * peak * question.machine.accelerators / 3


def _within(question: Question, shape: ModelShape, seconds: float, name: str) -> Answer:
    """This shape with as many tokens as asked for or allowed, in whole steps."""
    wanted, reason = _wanted_tokens(question, shape, seconds)
    tokens = wanted
    for _ in range(3):  # the batch depends on the tokens, and the tokens a little on the batch
        layout = _checked(question, shape, tokens)
        most = _most_tokens(question, shape, layout, tokens, seconds)
        if question.tokens is not None:
            _hold(question, shape, layout, tokens, seconds, name)
            break
        if most >= wanted:
            tokens = wanted
            break
        tokens, reason = most, f"as many as the {name} allows"
    step = layout.recipe.step_tokens
    whole = -(-tokens // step) if question.tokens is not None else max(1, round(tokens / step))
    if question.tokens is None and whole * step > most:
        whole = most // step
    if whole < 1:
        raise _too_small(shape, layout, name)
    return Answer(shape, layout, whole * step, reason)


def _wanted_tokens(question: Question, shape: ModelShape, seconds: float) -> tuple[int, str]:
    if question.tokens is not None:
        return question.tokens, ""
    wanted, reason = float("inf"), ""
    if question.shape is not None and not question.shape_was_planned:
        wanted = float(rules.TOKENS_PER_PARAMETER * shape.parameters)
        reason = f"{rules.TOKENS_PER_PARAMETER} a parameter (arXiv:2203.15556)"
    unique = question.unique_tokens(shape)
    if unique and rules.MAX_EPOCHS * unique < wanted:
        wanted = rules.MAX_EPOCHS * unique
        reason = f"{rules.MAX_EPOCHS} times the text: more repeats teach little"
    if wanted == float("inf"):
        peak = rates.matmul_peak(question.machine, rules.precision(question.machine)[0]).value
        each = flops.model_flops_per_token(shape, 1)
        wanted = max(1.0, seconds * (peak or 1e12) * question.machine.accelerators / each)
    return max(1, int(min(wanted, 1e16))), reason


def _checked(question: Question, shape: ModelShape, tokens: int) -> Layout:
    return lay_out(shape, question.machine, tokens, question.recipe_fields, question.step_rates,
                   question.learned.memory_factor)


def provisional(question: Question, shape: ModelShape, layout: Layout, tokens: int) -> Run:
    """A run to price while the plan is still being made."""
    steps = -(-tokens // layout.recipe.step_tokens)
    recipe = layout.recipe
    if "evaluate_every_steps" not in question.recipe_fields:
        recipe = replace(recipe, evaluate_every_steps=max(1, -(-steps // rules.EVALUATIONS)))
    return Run(name="provisional", model=shape, machine=question.machine, recipe=recipe,
               train=TrainJob(tokens=tokens), place=question.place, limits=question.limits)


def _most_tokens(question: Question, shape: ModelShape, layout: Layout, tokens: int,
                 seconds: float) -> int:
    """Tokens that `seconds` pay for, evaluations, checkpoints and start included."""
    if seconds == float("inf"):
        return int(1e16)
    run = provisional(question, shape, layout, tokens)
    step = step_seconds(run, question.learned, question.step_rates)
    if step.value is None:
        raise InputError(step.source, where="limits",
                         mend="run `curbcut doctor` to probe this machine, or give the tokens")
    steps = seconds / step.value
    sized = replace(run, train=TrainJob(tokens=max(1, int(steps) * run.recipe.step_tokens)))
    if "checkpoint_every_steps" not in question.recipe_fields:
        every = rules.checkpoint_steps(
            sized.steps, step.value, rules.stall_seconds(sized.model, sized.recipe),
            sized.machine.accelerators)
        sized = replace(sized, recipe=replace(sized.recipe, checkpoint_every_steps=every))
    if "evaluate_every_steps" not in question.recipe_fields:
        every = max(1, -(-sized.steps // rules.EVALUATIONS))
        sized = replace(sized, recipe=replace(sized.recipe, evaluate_every_steps=every))
    kinds = seconds_by_kind(sized, step, question.corpus)
    total, own = kinds["total"].value, kinds["steps"].value
    assert total is not None and own is not None
    return int(max(0.0, steps - max(0.0, total - own) / step.value)) * run.recipe.step_tokens


def _hold(question: Question, shape: ModelShape, layout: Layout, tokens: int, seconds: float,
          name: str) -> None:
    """Raises InputError when even the low end of the forecast exceeds a limit."""
    run = provisional(question, shape, layout, tokens)
    step = step_seconds(run, question.learned, question.step_rates)
    total = seconds_by_kind(run, step, question.corpus)["total"]
    limit = seconds / rules.LIMIT_MARGIN
    if total.low is not None and total.low > limit:
        most = _most_tokens(question, shape, layout, tokens, seconds)
        raise InputError(
            f"{units.show(tokens, 'count')} tokens take at least "
            f"{units.show(total.low, 'seconds')}, and the {name} allows "
            f"{units.show(limit, 'seconds')}", where="limits",
            mend=f"ask for {units.show(most, 'count')} tokens, or raise the limit")


def _too_small(shape: ModelShape, layout: Layout, name: str) -> InputError:
    return InputError(
        f"the {name} is too small for one step of {layout.recipe.step_tokens:,} tokens of a model "
        f"of {units.show(shape.parameters, 'count')} parameters", where="limits",
        mend="raise the limit, or set a smaller model or recipe.global_batch")
