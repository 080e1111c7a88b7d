from __future__ import annotations

import math

import pytest

from curbcut.meter.clock import FakeClock
from curbcut.train import loop
from curbcut.train.account import goodput, measured_account
from curbcut.train.observers.attempt import Attempt
from curbcut.train.observers.attribution import Attribution
from curbcut.train.session import Silent
from slow import SlowPasses, SlowSaves
from tiny import tiny_run


def train(opened, seconds, steps=20, observers=(), **recipe):
    clock = FakeClock()
    session = opened(tiny_run(steps=steps, recipe=recipe), clock=clock)
    began = clock.seconds()
    session.passes = SlowPasses(session, seconds)
    loop.train(session, [Attribution(), *observers])
    session.watch.lap()
    assert sum(session.seconds.values()) == pytest.approx(clock.seconds() - began)
    return session


def test_the_excess_of_the_first_steps_is_the_start(opened):
    session = train(opened, lambda step: 9.0 if step == 0 else 1.0)
    assert session.seconds["start"] == pytest.approx(8.0)
    assert session.seconds["steps"] == pytest.approx(20.0)


def test_of_a_compiled_model_it_is_compiling(opened):
    session = opened(tiny_run(steps=3), clock=FakeClock())
    object.__setattr__(session.run.recipe, "compile", True)
    session.passes = SlowPasses(session, lambda step: 9.0 if step == 0 else 1.0)
    loop.train(session, [Attribution()])
    assert session.seconds["compile"] == pytest.approx(8.0)


def test_a_step_that_was_held_up_is_a_hang_beyond_the_usual(opened):
    # A process stopped for a minute: the steady clock runs on.
    session = train(opened, lambda step: 61.0 if step == 12 else 1.0)
    assert session.seconds["hang"] == pytest.approx(60.0)
    assert session.seconds["steps"] == pytest.approx(20.0)


def test_what_all_wait_for_a_slow_rank_is_a_straggler_and_not_the_steps(opened):
    class Named(Silent):
        def agreed(self, session):
            session.slowed = 4.0 if session.step >= 10 else 1.0

    session = train(opened, lambda step: 2.0 if step >= 10 else 0.5, observers=[Named()])
    assert session.seconds["straggler"] == pytest.approx(10 * 1.5)
    assert session.seconds["steps"] == pytest.approx(20 * 0.5)
    assert goodput(session)["ettr"].value == pytest.approx(10 / 25, rel=0.05)


def test_jitter_is_no_hang(opened):
    session = train(opened, lambda step: 0.9 if step % 7 == 6 else 0.1)
    assert "hang" not in session.seconds


def test_a_step_that_was_not_applied_is_skipped(opened, monkeypatch):
    real = loop.agreed_loss_and_norm

    def once(session, loss):
        found = real(session, loss)
        return (math.nan, found[1]) if session.step == 9 else found

    monkeypatch.setattr(loop, "agreed_loss_and_norm", once)
    session = train(opened, lambda step: 1.0)
    assert session.seconds["skipped"] == pytest.approx(1.0)
    assert session.seconds["steps"] == pytest.approx(19.0)


def test_goodput_and_ettr_say_what_was_lost_to_what(opened):
    saves = SlowSaves(FakeClock(), 0.0)
    session = train(opened, lambda step: 11.0 if step == 0 else 1.0, observers=[saves])
    session.seconds |= {"down": 20.0, "replay": 10.0, "evaluation": 40.0}
    found = goodput(session)
    assert found["run"].value == pytest.approx(20 / 100)
    assert found["ettr"].value == pytest.approx(60 / 100)
    account = measured_account(session)
    kinds = {kind: one.value for kind, one in account.seconds.items() if kind != "total"}
    assert account.seconds["total"].value == pytest.approx(sum(kinds.values()))


def test_each_second_an_attempt_leaves_what_it_has_used(opened, tmp_path):
    from curbcut.train import attempts

    train(opened, lambda step: 0.4, steps=10, observers=[Attempt(tmp_path)])
    left = attempts.read(tmp_path)
    assert left.step == 10
    assert left.ended
    assert sum(left.seconds.values()) == pytest.approx(4.0)


def test_an_attempt_that_dies_leaves_its_last_file(opened, tmp_path):
    from curbcut.train import attempts

    def die(step):
        if step == 7:
            raise RuntimeError("power cut")
        return 1.0

    session = opened(tiny_run(steps=10), clock=FakeClock())
    session.passes = SlowPasses(session, die)
    with pytest.raises(RuntimeError):
        loop.train(session, [Attribution(), Attempt(tmp_path)])
    left = attempts.read(tmp_path)
    assert not left.ended
    assert 1 <= left.step <= 7
