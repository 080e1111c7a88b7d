"""Expected held-out loss of a run, with its interval, and as lines of a sheet.

`law` has the formulas (polymorphic), `text` what tokens are and teach, `learned` what own runs say
of a text, `downstream` the benchmarks that a loss goes with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from curbcut.accounts.sheet import Sheet
from curbcut.facts import loss_constants, loss_laws
from curbcut.facts.loss_laws import LossLaw
from curbcut.plan.calibration import Pair
from curbcut.plan.loss import law as laws
from curbcut.plan.loss import learned
from curbcut.plan.loss.law import additive_nats, effective_tokens, kaplan_nats, nats
from curbcut.plan.loss.text import GENERAL, PYTHON, bytes_per_token, meant
from curbcut.spec.estimate import Estimate, given, modelled
from curbcut.spec.nouns import ModelShape

__all__ = ["GENERAL", "PYTHON", "Asked", "Expected", "additive_nats", "bytes_per_token",
           "effective_tokens", "expected", "kaplan_nats", "meant", "nats", "ranking", "write"]

LAW_SPREAD = 1.1
"""Factor either way of the reducible loss within the law's runs: up to 3% of the whole. Hoffmann's
and Besiroglu's fits differ by up to 2% of the whole there, and published runs scatter by 1.7%
(`facts/loss_runs.csv`)."""
SPREAD_PER_E_FOLD = 0.1
"""Growth of that interval (in log) for each factor e outside the law's runs."""


@dataclass(frozen=True)
class Expected:
    """Expected loss on held-out text."""

    nats_per_token: Estimate
    bits_per_byte: Estimate


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the loss is asked of, beside the shape and its tokens."""

    unique_tokens: float | None = None
    """Different tokens of the text at hand; None where it is not short."""
    known_bytes_per_token: float | None = None
    """Of the run's own tokenizer on this text; None takes the vocabulary's usual."""
    text: str = GENERAL
    """The run's text (`meant`): one that has been trained on here before is known better."""
    optimiser: str = "adamw"
    token_worth: float = 1.0
    """What a token of this text teaches, in tokens of the law's text (`TrainJob.token_worth`)."""
    pairs: Iterable[Pair] = ()
    """Measured runs of the ledger to learn from."""
    law: LossLaw | None = None
    """None takes the default law."""

    def own_bytes(self, vocab: int) -> float:
        """Bytes a token of the run's tokenizer."""
        return self.known_bytes_per_token or bytes_per_token(vocab, self.text)


def expected(shape: ModelShape, tokens: float, *, unique_tokens: float | None = None,
             known_bytes_per_token: float | None = None, text: str = GENERAL,
             optimiser: str = "adamw", token_worth: float = 1.0,
             pairs: Iterable[Pair] = ()) -> Expected:
    """Expected loss of `shape` after `tokens` (repeats counted) of text with so many new ones; for
    the rest see `Asked`.
    """
    sheet = Sheet()
    write(sheet, shape, tokens, Asked(
        unique_tokens=unique_tokens, known_bytes_per_token=known_bytes_per_token, text=text,
        optimiser=optimiser, token_worth=token_worth, pairs=pairs))
    found = sheet.estimates()
    return Expected(found["loss.nats_per_token"], found["loss.bits_per_byte"])


def ranking(shape: ModelShape, tokens: float, unique_tokens: float | None = None) -> float:
    """Nats to compare plans of one tokenizer by; without what is the same for all of them."""
    own = bytes_per_token(shape.vocab)
    unique = None if not unique_tokens else float(laws.law_tokens(unique_tokens, own))
    return float(nats(shape.active_parameters, laws.law_tokens(tokens, own), unique_tokens=unique,
                      expanded=laws.expansion(shape)))


def write(sheet: Sheet, shape: ModelShape, tokens: float, asked: Asked | None = None) -> None:
    """Writes loss.nats_per_token and loss.bits_per_byte, and what they follow from (law.*)."""
    asked = asked or Asked()
    law = asked.law or loss_laws.law()
    taught = float(laws.law_tokens(tokens, asked.own_bytes(shape.vocab)))
    size = float(shape.active_parameters)
    found = learned.readings(asked.pairs, asked.text, asked.optimiser, _unique(shape, asked))
    _write_given(sheet, shape, asked, taught, law)
    sheet.leaf("law.text", learned.factor(learned.prior(asked.text), found, size, taught))
    _write_terms(sheet, shape, asked, law)
    spread, beyond = _law_spread(shape, taught, asked, learned.apart(found, size, taught))
    source = f"{law.name} ({law.source}){beyond}"
    sheet.leaf("law.spread", modelled(1.0, spread, f"of the law's reducible loss{beyond}"))
    sheet.formula("law.reducible", "x / sqrt(1 + (x / S)^2) x spread of the law, x = capacity + "
                  f"data, S = {loss_constants.value('bend'):g}",
                  ["law.capacity", "law.data", "law.spread"],
                  lambda capacity, data, spread: laws.bent(capacity + data) * spread)
    sheet.formula("loss.bits_per_byte", "(E + reducible) x factor of the text / ln 2 / bytes a "
                  "token of the law", ["law.irreducible", "law.reducible", "law.text"],
                  lambda floor, rest, factor: laws.bits_per_byte((floor + rest) * factor),
                  source=f"{source}; {sheet['law.text'].estimate.source}", basis="modelled")
    assumed = "" if asked.known_bytes_per_token else (
        f"; {asked.own_bytes(shape.vocab):.2f} bytes a token assumed")
    sheet.formula("loss.nats_per_token", "bits a byte x ln 2 x bytes a token",
                  ["loss.bits_per_byte", "law.own_bytes_per_token"],
                  lambda bits, own: bits * math.log(2) * own, source=source + assumed,
                  basis="modelled")
    _write_kaplan(sheet, shape, taught)


def _law_spread(shape: ModelShape, taught: float, asked: Asked,
                apart: float) -> tuple[float, str]:
    """Factor either way of the reducible loss, and words for a run beyond the law's. A measured run
    `apart` e-folds away stands for the law there: only the way from it is the law's word.
    """
    size = shape.active_parameters
    beyond = math.hypot(laws.outside(size, taught),
                        laws.outside_experts(size, taught, laws.expansion(shape)))
    e_folds = min(beyond, apart)
    within = min(math.log(LAW_SPREAD), SPREAD_PER_E_FOLD * apart)
    words = f", outside its range by x{math.exp(e_folds):.1f}: widened" if e_folds else ""
    return math.exp(math.hypot(within, SPREAD_PER_E_FOLD * e_folds)), words


def _write_kaplan(sheet: Sheet, shape: ModelShape, taught: float) -> None:
    """Kaplan's law beside ours where the run is as small as its runs; nothing follows from it."""
    inner = max(1.0, float(shape.active_parameters - shape.embedding_parameters))
    if inner > laws.KAPLAN_PARAMETERS or taught > laws.KAPLAN_TOKENS:
        return
    sheet.leaf("law.inner_parameters", given(inner, "active parameters without embeddings"),
               "count")
    sheet.formula("law.kaplan_bits_per_byte", "((Nc/N)^(aN/aD) + Dc/D)^aD / ln 2 / bytes a token, "
                  "general text", ["law.inner_parameters", "law.learned_tokens"],
                  laws.kaplan_bits_per_byte, basis="modelled",
                  source="Kaplan et al. (arXiv 2001.08361), table 2: beside the law, not in it")


def _write_given(sheet: Sheet, shape: ModelShape, asked: Asked, taught: float,
                 law: LossLaw) -> None:
    """The leaves: size, tokens, what they are worth, and the law's floor."""
    size = float(shape.active_parameters)
    own = asked.own_bytes(shape.vocab)
    sheet.leaf("law.parameters", given(size, "active parameters, with embeddings"), "count")
    sheet.leaf("law.tokens", given(
        taught, f"tokens trained x {own:.2f} bytes a token / "
        f"{loss_constants.value('law_bytes_per_token'):g} of the law"), "count")
    sheet.leaf("law.own_bytes_per_token", given(own, "the prepared text")
               if asked.known_bytes_per_token else Estimate(
                   own, basis="default", source="usual for the vocabulary"))
    sheet.leaf("law.worth", learned.taught_worth(asked.text, asked.optimiser, size,
                                                 asked.token_worth))
    sheet.leaf("law.irreducible", Estimate(law.E, basis="modelled", source=f"E of {law.name}"))


def _write_terms(sheet: Sheet, shape: ModelShape, asked: Asked, law: LossLaw) -> None:
    """What size and tokens each leave to learn."""
    unique, expanded = _unique(shape, asked), laws.expansion(shape)
    repeated = "" if unique is None else (
        f", repeats of {unique:.3g} new ones decayed (arXiv:2305.16264)")
    fed = "" if unique is None else ", N beyond what the text feeds decayed (arXiv:2305.16264)"
    experts = "" if expanded == 1 else (
        f", x the gain of {expanded:.3g} experts for each met (arXiv:2502.05172)")
    sheet.formula("law.learned_tokens", f"worth a token x tokens{repeated}",
                  ["law.worth", "law.tokens"],
                  lambda worth, tokens: worth * laws.effective_tokens(tokens, unique), "count")

    def both(parameters: float, tokens: float, worth: float) -> tuple[float, float]:
        return laws.terms(parameters, tokens, unique_tokens=unique, worth=worth,
                          expanded=expanded, law=law)

    inputs = ["law.parameters", "law.tokens", "law.worth"]
    sheet.formula("law.capacity", f"A / N^alpha = {law.A:g} / N^{law.alpha:g}{fed}{experts}",
                  inputs, lambda *given: both(*given)[0], source=f"{law.name} ({law.source})")
    sheet.formula("law.data", f"B / D^beta = {law.B:g} / learned tokens^{law.beta:g}{experts}",
                  inputs, lambda *given: both(*given)[1], source=f"{law.name} ({law.source})")


def _unique(shape: ModelShape, asked: Asked) -> float | None:
    """New tokens of the text, of the law; None where it is not short."""
    if not asked.unique_tokens:
        return None
    return float(laws.law_tokens(asked.unique_tokens, asked.own_bytes(shape.vocab)))
