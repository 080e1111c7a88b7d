from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curbcut.meter.clock import FakeClock
from curbcut.spec import Limits
from curbcut.train import charges, loop
from curbcut.train.observers.evaluation import Evaluation
from curbcut.train.observers.limits import LimitKeeper
from curbcut.units import Money
from slow import SlowPasses, SlowSaves, slow_evaluation
from tiny import tiny_run

WATTS = 10.0


def limited(opened, limits, step, glance=0.0, last=0.0, save=0.0, **run):
    """Trains under limits where everything takes as long as is said; the session, after its end."""
    clock = FakeClock()
    recipe = {"checkpoint_every_steps": 5, "evaluate_every_steps": 5}
    session = opened(tiny_run(steps=100, limits=limits, recipe=recipe, **run), clock=clock)
    session.passes = SlowPasses(session, step if callable(step) else lambda _: step)
    evaluation = Evaluation(slow_evaluation(clock, glance, last), 5, lambda s, r: None)
    stop = loop.train(session, [evaluation, LimitKeeper(), SlowSaves(clock, save)])
    session.watch.lap()
    with session.timed("other"):
        clock.advance(save)  # the export
    return session, stop


# 10 W modelled: a kWh takes 360,000 s; the grid emits 481 g a kWh; electricity costs $0.20.
@pytest.mark.parametrize(("limits", "name"), [
    (Limits(seconds=60.0), "time"), (Limits(kwh=WATTS * 60 / 3.6e6), "energy"),
    (Limits(money=Money(0.2 * WATTS * 60 / 3.6e6, "USD")), "money")])
@pytest.mark.parametrize("step", [1.0, 7.0])
def test_a_limit_ends_the_run_before_it_is_overshot(opened, limits, name, step):
    session, stop = limited(opened, limits, step)
    assert stop.reason == f"the limit of {name} is reached"
    assert not stop.resumable
    assert 60 - 4 * step < session.total_seconds <= 60


def test_a_limit_of_carbon_counts_what_was_emitted_to_make_the_machine(opened):
    session, stop = limited(opened, Limits(kgco2e=1e-4), 1.0)
    assert stop.reason == "the limit of carbon is reached"
    assert 0.8e-4 < charges.kgco2e(session) <= 1e-4
    assert charges.kgco2e(session) > 0.481 * charges.kwh(session)


def test_what_the_end_takes_is_reserved(opened):
    glance, save = 3.0, 2.0
    # The tiny text is one glance long: the last evaluation reads it twice.
    session, stop = limited(opened, Limits(seconds=100.0), 1.0, glance, 2 * glance, save)
    assert "limit of time" in stop.reason
    assert 80 < session.total_seconds <= 100
    assert session.seconds["checkpoint"] >= save


def test_a_step_that_takes_much_longer_than_those_before_it_is_reckoned_with_from_then_on(opened):
    session, _ = limited(opened, Limits(seconds=100.0), lambda step: 12.0 if step > 30 else 1.0)
    assert session.total_seconds <= 100


@settings(max_examples=6, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.floats(1.0, 9.0), glance=st.floats(0.0, 3.0), save=st.floats(0.0, 3.0))
def test_nothing_overshoots_whatever_takes_how_long(opened, step, glance, save):
    seconds = 60 + 3 * (step + 3 * glance + 3 * save)
    session, stop = limited(opened, Limits(seconds=seconds), step, glance, 2 * glance, save)
    assert session.total_seconds <= seconds + 1e-6
    assert "limit of time" in stop.reason or session.step == 100


def test_time_that_the_machine_was_down_is_no_training_time_unless_it_is_rented(opened):
    from curbcut.spec import Place

    session = opened(tiny_run(), clock=FakeClock())
    session.seconds = {"steps": 10.0, "down": 90.0}
    assert charges.charged_seconds(session) == 10
    rented = opened(tiny_run(place=Place(tenure="rent", usd_per_accelerator_hour=3.6)),
                    clock=FakeClock())
    rented.seconds = dict(session.seconds)
    assert charges.charged_seconds(rented) == 100
    assert charges.usd(rented) == pytest.approx(0.1)


def test_what_is_charged_so_far_is_what_the_account_says_in_the_end(opened):
    from curbcut.train.account import measured_account

    session = opened(tiny_run(), clock=FakeClock())
    session.seconds, session.tokens = {"steps": 5000.0, "evaluation": 300.0}, 1000
    account = measured_account(session)
    assert charges.usd(session) == pytest.approx(account.usd["total"].value)
    assert charges.kgco2e(session) == pytest.approx(account.kgco2e["total"].value)
    assert charges.kwh(session) == pytest.approx(account.kwh_modelled["facility"].value)
