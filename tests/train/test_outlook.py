from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.meter.clock import FakeClock
from curbcut.spec import Account, modelled
from curbcut.train import loop, outlook
from curbcut.train.observers import forecast
from curbcut.train.observers.forecast import ForecastCorrector
from slow import SlowPasses
from tiny import tiny_run


def promised(seconds):
    return Account(seconds={"total": modelled(seconds, 1.1, "test")},
                   usd={"total": modelled(1e-4, 1.1, "test")})


@pytest.fixture
def heard(opened, monkeypatch):
    """What is said and recorded of a run of 200 steps that take `seconds(step)` each."""
    def hear(seconds, promise, steps=200):
        monkeypatch.setattr(forecast, "mends", lambda run: ["compile (-12%)", "fp8 (-5%)"])
        session = opened(tiny_run(steps=steps), clock=FakeClock())
        object.__setattr__(session.run.recipe, "checkpoint_every_steps", 100)
        session.forecast = promised(promise)
        session.passes = SlowPasses(session, seconds)
        said, recorded = [], []
        loop.train(session, [ForecastCorrector(said.append, recorded.append)])
        return said, recorded, session
    return hear


def test_nothing_is_said_while_the_promise_holds(heard):
    said, recorded, session = heard(lambda step: 1.0, 205.0)
    assert said == []
    assert all(one["inside"] for one in recorded)
    assert recorded[0]["step"] == 20
    assert recorded[0]["seconds"] == pytest.approx(session.total_seconds, rel=0.1)


def test_a_run_that_will_end_late_says_by_how_much_and_what_mends_it(heard):
    said, recorded, session = heard(lambda step: 1.5, 205.0)
    assert len(said) == 1
    over = recorded[0]["seconds"] / 205 - 1
    assert f"will end {over:.0%} over" in said[0]
    assert "these levers mend it in another run: compile (-12%), fp8 (-5%)" in said[0]
    assert recorded[0]["usd"] > recorded[0]["promised_usd"]
    # It foretold its own end.
    assert recorded[0]["seconds"] == pytest.approx(session.total_seconds, rel=0.15)


def test_it_is_said_again_when_it_moves(heard):
    said, _, _ = heard(lambda step: 1.5 if step < 60 else 4.0, 205.0)
    assert len(said) >= 2
    assert "times the plan" in said[-1]


def test_a_run_that_will_end_early_says_that(heard):
    said, _, _ = heard(lambda step: 0.5, 205.0)
    assert "under" in said[0]
    assert "lever" not in said[0]


def test_without_a_promise_there_is_nothing_to_correct(opened):
    session = opened(tiny_run(), clock=FakeClock())
    session.forecast = Account()
    assert outlook.outlook(session, 1.0) is None


def test_levers_are_those_of_the_recipe_by_what_they_save():
    found = outlook.mends(tiny_run(steps=1000))
    assert len(found) <= outlook.MOST_LEVERS
    assert all(text.endswith("%)") and "(-" in text for text in found)


def test_a_lever_that_fails_ends_no_run(opened, monkeypatch):
    def fail(run):
        raise RuntimeError("no such fact")

    monkeypatch.setattr(forecast, "mends", fail)
    session = opened(tiny_run(steps=60), clock=FakeClock())
    session.forecast = promised(1.0)
    session.passes = SlowPasses(session, lambda step: 1.0)
    said = []
    loop.train(session, [ForecastCorrector(said.append, lambda body: None)])
    assert "no lever of the recipe" in said[0]


def test_a_promise_without_a_price_is_of_time_alone(opened):
    session = opened(tiny_run(), clock=FakeClock())
    found = outlook.outlook(session, 1.0)
    assert found is not None
    assert "$" not in outlook.said(replace(found, usd=None), []).split("mends")[0]
