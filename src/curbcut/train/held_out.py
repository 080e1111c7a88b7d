"""Held-out bits per byte of a session on any layout of ranks: all of them share the windows."""

from __future__ import annotations

import torch

from curbcut.evaluate.bits import BitsPerByte, Share, scored
from curbcut.plan import rules
from curbcut.train import faults
from curbcut.train.rehearsal import is_rehearsal
from curbcut.train.session import Session

ROWS = 8
"""Windows that one pass scores, at least."""


def held_out(session: Session) -> BitsPerByte:
    """Bits per byte on held-out text: a glance while training, all of it at the end. Collective."""
    ended = (session.stop is not None or session.step >= session.run.steps) \
        and not is_rehearsal(session.run)
    tokens = session.run.recipe.sequence_tokens

    def nats(rows: torch.Tensor, targets: torch.Tensor) -> float:
        faults.reach("evaluation: in pass", session.world.rank, session.step)
        return session.passes.nats(rows.to(session.device), targets.to(session.device))

    return scored(nats, session.corpus, tokens, None if ended else rules.GLANCE_TOKENS,
                  rows_a_pass(session), final_stride(tokens) if ended else None, share(session))


def final_stride(sequence_tokens: int) -> int:
    """Windows of the last evaluation overlap by half: each token sees at least that much."""
    return max(1, sequence_tokens // 2)


def rows_a_pass(session: Session) -> int:
    """Rows of one pass on a rank: whole micro-batches, and as many as a step's on a pipeline."""
    recipe = session.run.recipe
    if session.world.degree("pp") > 1:
        return recipe.micro_batch * recipe.accumulation
    return recipe.micro_batch * max(1, ROWS // recipe.micro_batch)


def share(session: Session) -> Share:
    """The data ranks take windows in turn. Tensor-parallel ranks all say the same sum; of a
    pipeline the last stage says it, and ranks that cut a sequence each say their own part.
    """
    world = session.world
    if world.alone:
        return Share()

    def sums(values: list[float]) -> list[float]:
        return [value / world.degree("tp") for value in world.sums(values)]

    return Share(world.data_rank, world.data_ranks, sums, whole_batches=True)
