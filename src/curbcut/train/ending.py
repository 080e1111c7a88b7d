"""What evaluations and saves take: as measured on the way, else as the plan has it."""

from __future__ import annotations

from curbcut.plan import rules
from curbcut.train.rehearsal import is_rehearsal
from curbcut.train.session import Session

MARGIN = 1.25
"""On what is reserved: the last of each may take longer than those before it."""


def reserve_seconds(session: Session, step_seconds: float) -> float:
    """Seconds to end in order: the last checkpoint, the evaluation of all held-out text and the
    export, which writes less than a checkpoint and takes about as long.
    """
    return MARGIN * (last_evaluation(session, step_seconds) + 2 * save(session))


def last_evaluation(session: Session, step_seconds: float) -> float:
    """Seconds of the evaluation of all held-out text."""
    if is_rehearsal(session.run):
        return glance(session, step_seconds)
    tokens = rules.LAST_PASSES * session.corpus.validation_tokens
    return tokens * _a_token(session, step_seconds)


def glance(session: Session, step_seconds: float) -> float:
    """Seconds of an evaluation on the way."""
    tokens = min(rules.GLANCE_TOKENS, session.corpus.validation_tokens)
    return tokens * _a_token(session, step_seconds)


def _a_token(session: Session, step_seconds: float) -> float:
    recipe = session.run.recipe
    glances = session.step // recipe.evaluate_every_steps
    if glances and session.seconds.get("evaluation"):
        seen = glances * min(rules.GLANCE_TOKENS, session.corpus.validation_tokens)
        return session.seconds["evaluation"] / max(1, seen)
    return step_seconds * rules.FORWARD_SHARE / recipe.step_tokens


def save(session: Session) -> float:
    """Seconds of one checkpoint."""
    recipe = session.run.recipe
    saves = session.step // recipe.checkpoint_every_steps
    if saves and session.seconds.get("checkpoint"):
        return session.seconds["checkpoint"] / saves
    return rules.save_seconds(session.run.model, recipe)
