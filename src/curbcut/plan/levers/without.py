"""Levers that a run has already: the same run without one, so that what it saves can be said."""

from __future__ import annotations

from dataclasses import replace

from curbcut.plan.levers.algorithms import STUDY
from curbcut.plan.levers.case import Case, Factor, published
from curbcut.plan.loss.text import worth
from curbcut.spec import checks


def muon(case: Case) -> Case:
    """AdamW, and the tokens that it needs more."""
    fair = worth("muon", case.run.model.active_parameters)
    assert fair.value is not None and fair.low is not None and fair.high is not None
    more = Factor("muon", "tokens", 1 / fair.value, 1 / fair.high, 1 / fair.low,
                  known_to_law=1 / fair.value)
    return case.with_recipe(optimiser="adamw").with_factor(more)


def wide(case: Case) -> Case:
    """fp32 matmuls, where the machine's rate of them is known."""
    known = checks.precisions(case.run.machine)
    return case.with_recipe(precision="fp32") if "fp32" in known else case


def narrow(case: Case) -> Case:
    """bf16 in a narrower format's place, whose tokens teach more."""
    gain = published(case.run.recipe.precision)
    back = Factor(gain.lever, "tokens", 1 / gain.value, 1 / gain.high, 1 / gain.low)
    return case.with_recipe(precision="bf16").with_factor(back)


def compiled(case: Case) -> Case:
    """No compilation."""
    return case.with_recipe(compile=False)


def fused_attention(case: Case) -> Case:
    """Scores in memory."""
    return case.with_recipe(attention="math")


def wsd(case: Case) -> Case:
    """A cosine a length of a study."""
    decay = case.run.recipe.decay_fraction
    reused = max(STUDY) + decay * sum(one for one in STUDY if one < max(STUDY))
    gain = sum(STUDY) / reused
    back = Factor("wsd-schedule", "search", 1 / gain, 1 / gain, 1.0)
    return case.with_recipe(schedule="cosine").with_factor(back)


def on_demand(case: Case) -> Case:
    """The price by the hour."""
    return case.with_place(contract="on-demand")


def data_quality(case: Case) -> Case:
    """Text whose tokens teach as those of the law, and as many more of them."""
    train = case.run.train
    plain = replace(train, token_worth=1.0, tokens=round(train.tokens * train.token_worth))
    return case.with_run(replace(case.run, train=plain))
