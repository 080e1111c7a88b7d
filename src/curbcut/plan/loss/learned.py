"""What runs of one's own on a text teach about its loss: a factor, with its interval.

The factor is on all of the loss (bits a byte measured over bits a byte of the law, for general
text). Its log is an offset and a slope in the log of tokens, each with a normal prior, and each
measured run is a reading of them: runs of like length teach the offset, runs of different length
the slope too. A run of another size is a weaker reading, as its own offset may differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from curbcut.facts import own_runs
from curbcut.physics.numbers import Number, larger, log2, smaller
from curbcut.plan.calibration import MOST_RUNS, Pair, rebuilt
from curbcut.plan.loss import law, text
from curbcut.spec.account import Account
from curbcut.spec.estimate import Z90, Estimate
from curbcut.spec.nouns import Run

TEXT_SPREAD = 1.2
"""Factor either way, nine in ten, of text that nobody here has trained on: C4 in other tokens came
out 1.09 times the law (`facts/loss_runs.csv`)."""
RUN_SPREAD = 1.06
"""Factor either way that one run says no more about: its seed, its batches, its schedule."""
FAR_SPREAD = 1.05
"""Further factor of a reading for each e-fold between the size of its model and the planned one."""
SLOPE_SPREAD = 1.1
"""Factor either way by which the text's factor may move for each e-fold of tokens: the law's own
slope may be that wrong for a text (on Python's library it is too flat)."""
REACH = math.e
"""Beyond so many times the longest measured run, or so much less than the shortest, the slope that
was measured is taken no further: the law's own holds on, and the interval widens."""
MOST_BEYOND = 2.0
"""E-folds beyond that reach over which the interval widens: no text is further from the law."""


@dataclass(frozen=True)
class Reading:
    """One measured run of the text."""

    log_ratio: float
    """ln of measured bits a byte over what the law said of it, without any factor."""
    parameters: float
    tokens: float
    """Of the law."""


def prior(of_text: str) -> Estimate:
    """The factor of a text before any run."""
    return Estimate(1.0, 1 / TEXT_SPREAD, TEXT_SPREAD, "modelled", "general text"
                    if of_text == text.GENERAL else "no own run on this text yet")


def readings(pairs: Iterable[Pair], of_text: str, optimiser: str,
             unique_tokens: float | None = None) -> list[Reading]:
    """What measured runs say of a text: this project's own (`facts.own_runs`) and the newest of
    the ledger, those trained on it with the same optimiser. `unique_tokens` (of the law) are those
    of the text now; a run does not keep its own.
    """
    found = [_read(one.parameters, one.vocab, one.tokens, one.bits_per_byte, of_text, optimiser,
                   unique_tokens) for one in own_runs.runs(of_text, optimiser)]
    for plain, _, measured in itertools.islice(pairs, MOST_RUNS):
        run = rebuilt(plain)
        if run is None or run.train.text != of_text or run.recipe.optimiser != optimiser:
            continue
        found += _reading(run, measured, unique_tokens)
    return found


def _reading(run: Run, measured: Account, unique_tokens: float | None) -> Sequence[Reading]:
    bits, tokens = measured.get("loss", "bits_per_byte"), measured.get("tokens", "trained")
    if not (bits and bits.value and tokens and tokens.value):
        return []
    return [_read(float(run.model.active_parameters), run.model.vocab, tokens.value, bits.value,
                  run.train.text, run.recipe.optimiser, unique_tokens,
                  expanded=law.expansion(run.model), token_worth=run.train.token_worth)]


def _read(size: float, vocab: int, tokens: float, bits: float, of_text: str, optimiser: str,
          unique_tokens: float | None, *, expanded: Number = 1.0,
          token_worth: float = 1.0) -> Reading:
    taught = float(law.law_tokens(tokens, text.bytes_per_token(vocab, of_text)))
    said = law.bits_per_byte(law.nats(
        size, taught, unique_tokens=unique_tokens, expanded=expanded,
        worth=taught_worth(of_text, optimiser, size, token_worth).value))
    return Reading(math.log(bits / float(said)), size, taught)


def taught_worth(of_text: str, optimiser: str, parameters: float,
                 token_worth: float = 1.0) -> Estimate:
    """`text.worth`, but for a text whose learned factor is of this optimiser already."""
    if of_text == text.PYTHON:
        return Estimate(token_worth, token_worth, token_worth, "given",
                        "the optimiser is in the text's factor")
    return text.worth(optimiser, parameters, token_worth)


def factor(before: Estimate, found: Sequence[Reading], parameters: float,
           tokens: float) -> Estimate:
    """The factor for a run of `parameters` and `tokens` (of the law): the least squares of the
    priors and all readings, each over its variance. One run moves it, several narrow it.
    """
    if not found:
        return before
    offset, variance = _solved(before, found, parameters, tokens)
    value = math.exp(offset)
    # A run yet to come differs from the mean of those measured by its own seed, too.
    width = math.exp(math.hypot(Z90 * float(variance) ** 0.5, math.log(RUN_SPREAD)))
    runs = f"{len(found)} own run{'s' if len(found) > 1 else ''} on this text"
    return Estimate(value, value / width, value * width, "modelled", f"x {value:.3g}: {runs}")


def factors(before: Estimate, found: Sequence[Reading], parameters: Number,
            tokens: Number) -> Number:
    """The middle of `factor`, for many runs at once (columns)."""
    if not found:
        assert before.value is not None
        return before.value
    return math.e ** _solved(before, found, parameters, tokens)[0]


def _solved(before: Estimate, found: Sequence[Reading], parameters: Number,
            tokens: Number) -> tuple[Number, Number]:
    """The factor's log and its variance. Offset and slope are taken at the readings' mean log of
    tokens, where they do not touch each other; the prior speaks of the offset there.
    """
    assert before.value is not None and before.high is not None
    weights: list[Number] = []
    for one in found:
        bigger = math.log(2) * log2(parameters / one.parameters) * math.log(FAR_SPREAD)
        weights.append(Z90 ** 2 / (math.log(RUN_SPREAD) ** 2 + bigger ** 2))
    all_ = sum(weights)
    middle = sum(weight * math.log(one.tokens)
                 for weight, one in zip(weights, found, strict=True)) / all_
    certain = (Z90 / math.log(before.high / before.value)) ** 2
    offset: Number = certain * math.log(before.value)
    slope: Number = 0.0
    flat: Number = (Z90 / math.log(SLOPE_SPREAD)) ** 2
    for weight, one in zip(weights, found, strict=True):
        longer = math.log(one.tokens) - middle
        offset = offset + weight * one.log_ratio
        slope = slope + weight * longer * one.log_ratio
        flat = flat + weight * longer ** 2
    seen = [one.tokens for one in found]
    near = larger(min(seen) / REACH, smaller(max(seen) * REACH, tokens))
    away = math.log(2) * log2(near) - middle
    further = smaller(abs(math.log(2) * log2(tokens / near)), MOST_BEYOND)
    beyond = further * math.log(SLOPE_SPREAD) / Z90
    return (offset / (certain + all_) + away * slope / flat,
            1 / (certain + all_) + away ** 2 / flat + beyond ** 2)


def apart(found: Sequence[Reading], parameters: float, tokens: float) -> float:
    """E-folds of size and tokens between a run and the nearest measured one; infinite for none."""
    return min((math.hypot(math.log(parameters / one.parameters), math.log(tokens / one.tokens))
                for one in found), default=math.inf)
