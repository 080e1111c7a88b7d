from __future__ import annotations

import pytest

from curbcut.meter.clock import FakeClock
from curbcut.meter.energy import EnergyMeter
from curbcut.meter.rapl import SensorLost
from curbcut.train import loop
from curbcut.train.account import measured_account
from curbcut.train.observers.energy import Energy
from ranks import spawn
from slow import SlowPasses
from tiny import tiny_run


class Counter:
    """Counts 2.5 J a reading; is gone from reading `lost_from` to `lost_to`."""

    name, boundary = "counter", "device"

    def __init__(self, lost_from=99, lost_to=99):
        self.count, self.readings = 0.0, 0
        self.lost = range(lost_from, lost_to)

    def joules(self):
        self.readings += 1
        if self.readings in self.lost:
            raise SensorLost("gone", where=self.name, mend="")
        self.count += 2.5
        return self.count


def after(opened, counter, steps=4):
    clock = FakeClock()
    session = opened(tiny_run(steps=steps), clock=clock)
    session.passes = SlowPasses(session, lambda step: 1.0)
    sensors = [] if counter is None else [counter]
    loop.train(session, [Energy(EnergyMeter(sensors, clock), every_steps=2)])
    return session


def test_energy_is_what_the_sensors_counted(opened):
    assert after(opened, Counter()).joules == pytest.approx(2.5 * 3)


def test_without_a_sensor_energy_is_null_and_never_zero(opened):
    session = after(opened, None)
    assert session.joules is None
    assert session.unmetered_seconds == 0


def test_a_stretch_that_a_sensor_missed_is_unmetered_and_never_filled_with_a_model(opened):
    session = after(opened, Counter(3, 4), steps=8)
    assert session.joules is None
    # Both laps that have an end where the sensor was gone.
    assert session.unmetered_seconds == pytest.approx(4.0)
    account = measured_account(session)
    assert account.kwh["device"].value is None
    assert "missed 4 of 8 s" in account.kwh["device"].source
    assert account.kwh_modelled["device"].value == pytest.approx(10 * 8 / 3.6e6)
    assert account.kwh_modelled["device"].basis == "modelled"


def summed(world, corpus, folder):
    from curbcut.spec import Account
    from curbcut.train.session import open_session

    clock = FakeClock()
    run = tiny_run(recipe={"dp_replicate": 2})
    session = open_session(run, folder, corpus, clock, Account(), world=world)
    # Two nodes of one rank: each has a meter of its own.
    observer = Energy(EnergyMeter([Counter()], clock))
    observer.start(session)
    observer.finish(session)
    alone = Energy(EnergyMeter([Counter()], clock) if world.main else None)
    both = session.joules
    alone.start(session)
    alone.finish(session)
    account = measured_account(session)
    return both, session.joules, account.memory_bytes["peak"].value


def test_the_energy_of_all_nodes_is_added_and_memory_is_the_fullest_ranks(tiny_corpus, tmp_path):
    first, second = spawn(summed, tiny_run(recipe={"dp_replicate": 2}).recipe, tiny_corpus,
                          tmp_path)
    assert first == second
    assert first[:2] == (5.0, 2.5)
