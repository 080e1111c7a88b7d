"""The training loop. Everything that is not in these few lines is an observer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from curbcut.train import faults, norm, policy, precision
from curbcut.train.schedule import learning_rate
from curbcut.train.session import Observer, Session, StepReport, Stop


def train(session: Session, observers: Sequence[Observer]) -> Stop:
    """Takes steps until the run's last one, or until an observer asks to stop; says why.

    On several ranks all of them take the same steps: what an observer asks for on one rank is
    agreed on by all after each step.
    """
    try:
        for observer in observers:
            observer.start(session)
        while session.step < session.run.steps and session.stop is None:
            report = take_step(session)
            for observer in observers:
                observer.after_step(session, report)
            session.agree()
            for observer in observers:
                observer.agreed(session)
        for observer in observers:
            observer.finish(session)
    finally:
        for observer in observers:
            observer.close()
    return session.stop or Stop("all tokens trained")


def take_step(session: Session) -> StepReport:
    """One optimiser step: data, gradients, judgement, update."""
    recipe, started = session.run.recipe, session.clock.seconds()
    faults.reach("step: begin", session.world.rank, session.step)

    # 1. The sequences of this step: a pure function of (seed, step), so resume needs no state.
    with session.timed("data"), session.on_its_own():
        inputs, targets = (torch.from_numpy(a).to(session.device) for a in session.batches.batch(
            session.step, session.world.data_rank, session.world.data_ranks))

    with session.timed("steps"):
        # 2. Gradients of the mean loss, one micro-batch at a time, added up in fp32, then over
        #    the ranks that read other sequences.
        loss = session.passes.gradients(inputs, targets)
        precision.reduce_gradients(session.weights)
        loss, gradient_norm = agreed_loss_and_norm(session, loss)

        # 3. A step that is not finite never reaches the weights; a spike follows the recipe.
        trouble = policy.find_trouble(loss, gradient_norm, session.recent_losses, recipe)
        verdict = policy.judge(trouble, session.skips_in_a_row, recipe)

        # 4. The optimiser moves the fp32 masters; the matmuls' copies are rounded from them once.
        rate = learning_rate(session.step, session.run.steps, recipe)
        if verdict == "apply":
            with session.on_its_own():
                norm.scale(session.weights.masters, gradient_norm, recipe.clip_norm)
                session.updater.step(rate)
            precision.publish_masters(session.weights)
            if session.averages:
                session.averages.follow(session.step)
        forget_gradients(session)

    session.step += 1
    session.tokens += recipe.step_tokens
    faults.reach("step: end", session.world.rank, session.step)
    session.skips_in_a_row = 0 if verdict == "apply" else session.skips_in_a_row + 1
    if not trouble:
        session.recent_losses.append(loss)
    return StepReport(session.step, loss, gradient_norm, rate, recipe.step_tokens,
                      session.clock.seconds() - started, trouble, verdict == "apply")


def agreed_loss_and_norm(session: Session, loss: float) -> tuple[float, float]:
    """Mean loss of the step and norm of its gradient over all ranks: the same on each."""
    world, weights = session.world, session.weights
    square = norm.square_sum(weights.masters, world, weights.owners, weights.twice)
    # Ranks that read the same tokens say the same loss, a pipeline's last stage says it alone.
    tellers = world.size // world.degree("pp")
    loss, square = world.sums([loss / tellers, square])
    return loss, math.sqrt(square) if math.isfinite(square) else math.nan


def forget_gradients(session: Session) -> None:
    """Clears gradients. Split masters keep the buffers: the next step overwrites them."""
    if not session.weights.split:
        session.updater.forget_gradients()
