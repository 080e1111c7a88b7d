"""Steps, evaluations and saves that take as long as a test says, on a fake clock."""

from __future__ import annotations

from curbcut.evaluate.bits import BitsPerByte
from curbcut.train.session import Silent


class SlowPasses:
    """Passes that compute nothing and move a fake clock on: `seconds(step)` each."""

    def __init__(self, session, seconds):
        self.session, self.seconds, self.real = session, seconds, session.passes

    def gradients(self, inputs, targets):
        self.session.clock.advance(self.seconds(self.session.step))
        return 1.0

    def nats(self, inputs, targets):
        return self.real.nats(inputs, targets)


def slow_evaluation(clock, glance, last):
    def evaluate(session):
        ended = session.stop is not None or session.step >= session.run.steps
        clock.advance(last if ended else glance)
        return BitsPerByte(1.0, 2.0, 10, 20)

    return evaluate


class SlowSaves(Silent):
    """Saves nothing, slowly."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.last = clock, seconds, -1

    def _save(self, session):
        with session.timed("checkpoint"):
            self.clock.advance(self.seconds)
        self.last = session.step

    def after_step(self, session, report):
        if report.step % session.run.recipe.checkpoint_every_steps == 0:
            self._save(session)

    def finish(self, session):
        if self.last != session.step:
            self._save(session)
