"""Data reduction: better text, and less of the same. Literature alone can tell; it acts on tokens.

Equal loss is held by construction: the run's tokens fall by what each of them teaches more
(`train.token_worth`), so that tokens x worth stays what it was.
"""

from __future__ import annotations

from curbcut.plan.levers.case import Aim, Case, Refusal, published


def quality(case: Case, _: Aim) -> Case | Refusal:
    """Text filtered and mixed by what it teaches."""
    if case.run.train.token_worth > 1.0:
        return Refusal(f"already on: train.token_worth = {case.run.train.token_worth:g}")
    return case.with_factor(published("data-quality"))


def reduction(case: Case, _: Aim) -> Case | Refusal:
    """Near-duplicates out, the rest diversified."""
    if case.run.train.token_worth > 1.0:
        return Refusal(f"already on: train.token_worth = {case.run.train.token_worth:g}")
    return case.with_factor(published("data-reduction"))
