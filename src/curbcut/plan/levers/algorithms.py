"""Training algorithms: the optimiser, its learning rate, growth, experts, and what search costs."""

from __future__ import annotations

from curbcut.plan import rules
from curbcut.plan.levers.case import Aim, Case, Factor, Refusal, published
from curbcut.plan.loss.text import worth

NEAR_RATE = 2.0
"""Factor either way of the Step Law within which a learning rate counts as tuned."""
STUDY = (0.25, 0.5, 0.75, 1.0)
"""Lengths, over the whole run's, of a study of how loss falls with tokens: an assumption."""


def muon(case: Case, _: Aim) -> Case | Refusal:
    """Muon in AdamW's place: its own matmuls by the physics, its tokens by the fair comparison,
    which says less for larger models.
    """
    if case.run.recipe.optimiser == "muon":
        return Refusal("already on")
    fair = worth("muon", case.run.model.active_parameters)
    assert fair.value is not None and fair.low is not None and fair.high is not None
    changed = case.with_recipe(optimiser="muon")
    if not changed.fits():
        return Refusal("its step does not fit into memory", fits=False)
    return changed.with_factor(Factor("muon", "tokens", fair.value, fair.low, fair.high,
                                      known_to_law=fair.value))


def tuned_learning_rate(case: Case, _: Aim) -> Case | Refusal:
    """The learning rate of the Step Law, where the run's is far from it."""
    wanted = rules.learning_rate(case.run.model, case.run.train.tokens)
    ratio = case.run.recipe.learning_rate / wanted
    if 1 / NEAR_RATE <= ratio <= NEAR_RATE:
        return Refusal("already on: within a factor of two of the Step Law's")
    return case.with_recipe(learning_rate=wanted).with_factor(published("tuned-learning-rate"))


def modern_recipe(_: Case, __: Aim) -> Case | Refusal:
    """The speedruns' changes together: evidence, no lever of this run."""
    return Refusal("tuned to one benchmark of 124M parameters: shown, not priced")


def growth(case: Case, _: Aim) -> Case | Refusal:
    """A deep model stacked from a shallow one."""
    if case.run.model.layers < 8:
        return Refusal(f"{case.run.model.layers} layers leave nothing to stack")
    return case.with_factor(published("growth"))


def hyperparameter_transfer(case: Case, _: Aim) -> Case | Refusal:
    """Tuning on a small model: experiments cost less."""
    return case.with_factor(published("hyperparameter-transfer", "search"))


def early_stopping(case: Case, _: Aim) -> Case | Refusal:
    """Experiments that lag end early."""
    return case.with_factor(published("early-stopping", "search"))


def wsd(case: Case, _: Aim) -> Case | Refusal:
    """One long run with a short decay at each length, in the place of a cosine a length.

    By counting steps: a study of lengths l of the whole costs their sum with a cosine, and the
    longest plus a decay of d x l for each shorter one with warm-up, stable, decay.
    """
    recipe = case.run.recipe
    if recipe.schedule == "wsd":
        return Refusal("already on")
    cosine = sum(STUDY)
    reused = max(STUDY) + recipe.decay_fraction * sum(one for one in STUDY if one < max(STUDY))
    gain = cosine / reused
    changed = case.with_recipe(schedule="wsd")
    return changed.with_factor(Factor("wsd-schedule", "search", gain, 1.0, gain))
