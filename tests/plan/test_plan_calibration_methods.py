"""Runs by other methods move a plan less than runs by its own."""

from __future__ import annotations

from dataclasses import replace

from curbcut.physics import time
from curbcut.plan.calibration import correction
from curbcut.spec import Account, codec, measured
from tiny import tiny_run


def pair(run, slower):
    """A measured run that took `slower` times what today's physics says."""
    step = time.step_seconds(run.model, run.recipe, run.machine).value
    account = Account(seconds={"steps": measured(slower * step * run.steps, "test")},
                      tokens={"trained": measured(run.steps * run.recipe.step_tokens, "test")})
    return codec.plain(run), Account(), account


def learned(pairs, run):
    return correction(run.machine, run.recipe.precision, pairs, run.recipe).time


def test_a_run_by_another_method_does_not_move_what_a_plain_one_taught():
    plain = tiny_run()
    compiled = replace(plain, recipe=replace(plain.recipe, compile=True))
    again = replace(plain, recipe=replace(plain.recipe, recompute="full"))
    found = learned([pair(compiled, 3.0), pair(again, 0.3), pair(plain, 1.2)], plain)
    assert abs(found.value - 1.2) < 1e-9
    assert abs(learned([pair(compiled, 3.0), pair(plain, 1.2)], compiled).value - 3.0) < 1e-9


def test_alone_it_is_believed_less():
    plain = tiny_run()
    compiled = replace(plain, recipe=replace(plain.recipe, compile=True))
    other, own = learned([pair(compiled, 2.0)], plain), learned([pair(plain, 2.0)], plain)
    assert other.value == own.value
    assert other.high > own.high
    assert other.low < own.low
    assert "by other methods" in other.source
