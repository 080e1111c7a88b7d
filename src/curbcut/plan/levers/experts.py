"""Mixture of experts: a sparse model of the loss that the dense one would reach, by the law."""

from __future__ import annotations

from dataclasses import replace

from curbcut.errors import InputError
from curbcut.plan.layout import lay_out
from curbcut.plan.levers.case import (
    Aim,
    Case,
    Factor,
    Refusal,
    as_ruled,
    differences,
    step_seconds,
)
from curbcut.plan.levers.partition import fastest_run
from curbcut.plan.loss import law
from curbcut.plan.loss.text import bytes_per_token, meant, worth
from curbcut.spec.nouns import ModelShape, Run

EXPERTS = (4, 8, 16)
"""Experts tried, of which each token meets one: the joint law's own kind (arXiv:2502.05172)."""
NARROWER = (1, 2, 4)
"""An expert is as wide as the dense feed-forward, or these times narrower."""
MOST_FEWER = 16.0
"""Tokens fall at most by this."""
HALVINGS = 40
TAKEN = (0.5, 1.5)
"""Ends of what the experts may be worth: the law's number of them to these powers. It was fitted to
small models; the allowance is ours."""


def sparse_experts(case: Case, _: Aim) -> Case | Refusal:
    """Of nine sparse models, each with the tokens at which the law expects the dense model's loss,
    the fastest as the plan's rules lay it out, then with the best layout. It must fit as a whole.
    """
    if case.run.model.experts:
        return Refusal("already on")
    run = case.realised()
    target = _nats(run, run.model, 1.0, 1.0)
    tried = [found for many in EXPERTS for thin in NARROWER
             if (found := _case(case, run, _sparse(run.model, many, thin), target)) is not None]
    best = min(tried, key=lambda one: step_seconds(one.run) * one.realised().steps, default=None)
    if best is None:
        return Refusal("no sparse model of this loss fits", fits=False)
    found = _cut(best)
    sparse = found.run.model
    return replace(found, changed=(
        f"model: {sparse.experts} experts of {sparse.expert_ffn}, one a token",
        *differences(replace(case.run, model=sparse), found.run), best.changed[-1]))


def _cut(case: Case) -> Case:
    """The case with the layout that a search finds: experts on ranks of their own are the point of
    it.
    """
    run, found = case.run, fastest_run(case)
    return case if found is None else case.with_run(as_ruled(run, found))


def _sparse(dense: ModelShape, experts: int, narrower: int) -> ModelShape:
    width = max(64, dense.ffn // narrower // 64 * 64)
    return replace(dense, preset="", experts=experts, experts_per_token=1, expert_ffn=width)


def _case(case: Case, run: Run, shape: ModelShape, target: float) -> Case | None:
    """The case with a sparse model, laid out anew; None where it cannot reach the loss or fit."""
    fewer = _fewer_tokens(run, shape, target, law.expansion(shape))
    if fewer is None:
        return None
    names = ("sequence_tokens", "global_batch", "precision", "attention", "optimiser",
             "learning_rate", "schedule", "compile", "chunked_loss", "power_limit",
             "checkpoint_every_steps", "evaluate_every_steps", "warmup_fraction",
             "decay_fraction")
    kept = {name: getattr(run.recipe, name) for name in names}
    try:
        recipe = lay_out(shape, run.machine, run.train.tokens, kept,
                         memory_factor=case.memory_factor).recipe
    except InputError:
        return None
    changed = case.with_run(as_ruled(case.run, replace(case.run, model=shape, recipe=recipe)))
    ends = [_fewer_tokens(run, shape, target, law.expansion(shape) ** power, 1 / MOST_FEWER)
            or 1 / MOST_FEWER for power in TAKEN]
    return changed.with_factor(Factor("sparse-experts", "tokens", fewer, min(fewer, ends[0]),
                                      max(fewer, ends[1]), known_to_law=fewer))


def _fewer_tokens(run: Run, shape: ModelShape, target: float, expanded: float,
                  least: float = 1.0) -> float | None:
    """How many times fewer tokens bring the sparse model to the loss; None where more than the
    `least` would.
    """
    low, high = least, MOST_FEWER
    if _nats(run, shape, low, expanded) > target:
        return None
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        reached = _nats(run, shape, middle, expanded) <= target
        low, high = (middle, high) if reached else (low, middle)
    return low


def _nats(run: Run, shape: ModelShape, fewer: float, expanded: float) -> float:
    """Expected loss of a shape after the run's tokens over `fewer`, nats a token of the law."""
    own = bytes_per_token(shape.vocab, meant(run, prepared=False))
    tokens = law.law_tokens(run.train.tokens / fewer, own)
    taught = worth(run.recipe.optimiser, shape.active_parameters, run.train.token_worth).value
    return float(law.nats(shape.active_parameters, tokens, worth=taught, expanded=expanded))
