"""The meter: each request's share, and lines that add up to the counter."""

import json
from dataclasses import replace

import pytest

from curbcut.ledger import open_ledger
from curbcut.ledger.meterings import record_meterings, sum_meterings
from curbcut.meter.rapl import SensorLost
from curbcut.serve.engine.interface import StepRecord
from curbcut.serve.metering import meter as metering
from curbcut.serve.metering import open_meter, rates
from curbcut.serve.metering.meter import Metered, StepMeter
from curbcut.serve.metering.shares import Share
from curbcut.serve.metering.work import plain
from curbcut.serve.server import serving
from curbcut.spec import Place
from tiny import tiny_machine, tiny_run

RUN = tiny_run()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Sensor:
    """Counts so many watts of a clock; lost while `lost`."""

    name, boundary, watts, lost = "a counter", "device", 200.0, False

    def __init__(self, clock):
        self.clock = clock

    def joules(self):
        if self.lost:
            raise SensorLost("gone", where=self.name, mend="")
        return 7.0 + self.watts * self.clock.now


def meter_of(clock, sensors=(), run=RUN, **how):
    machine = run.machine
    return StepMeter({"m": Metered(metering.work.of_run(run))}, rates.of(machine, run.place),
                     idle_watts=metering.work.idle(machine), sensors=sensors, clock=clock, **how)


def work_for(clock, meter, seconds=10, tickets=(1, 2)):
    """A second of steps for each of so many seconds, each read at its end."""
    for second in range(seconds):
        for _ in range(4):
            clock.now += 0.25
            record = StepRecord(0.25, {}, dict.fromkeys(tickets, 1)) if second else (
                StepRecord(0.25, dict.fromkeys(tickets, 8), {}))
            meter.on_step("m", record)
        meter.read()


def test_shares_and_lines_add_up_to_the_counter():
    clock, told = Clock(), []
    meter = meter_of(clock, [Sensor(clock)], server="s1", record=told.extend)
    work_for(clock, meter)
    first = meter.take("m:adapter", [1])
    assert first.basis == "measured" and first.engine_seconds == pytest.approx(5.0)
    assert first.millijoules == pytest.approx(1_000_000, rel=0.02)
    clock.now += 7.0
    meter.read()
    meter.flush()
    work_for(clock, meter, 3, (3,))
    second = meter.take("m", [2, 3])
    work_for(clock, meter, 1, (4,))
    meter.close()
    by_kind = {kind: [line for line in told if line.kind == kind]
               for kind in ("requests", "idle", "lost", "correction")}
    counted = sum(line.millijoules for line in told)
    assert counted == 200 * 21 * 1000  # exactly: whole millijoules of the counter
    assert sum(line.millijoules for line in by_kind["requests"]) == (
        first.millijoules + second.millijoules)
    assert sum(line.cost_nanousd for line in by_kind["requests"]) == (
        first.cost_nanousd + second.cost_nanousd)
    assert sum(line.seconds for line in told) == pytest.approx(21)
    assert {line.model for line in by_kind["lost"]} == {"m"}  # ticket 4 was never settled
    assert sum(line.seconds for line in by_kind["idle"]) == pytest.approx(7.0)
    assert {line.basis for line in told} == {"measured"} and {line.server for line in told} == {
        "s1"}
    assert meter.take("m", [1]) == Share()
    where = meter.where()
    assert sum(one.millijoules for one in where.sums.values()) == where.counted.millijoules


def test_every_line_is_money_and_carbon_too():
    clock, told = Clock(), []
    place = Place(zone="FRA", pue=1.5, tenure="rent", usd_per_accelerator_hour=3.6)
    meter = meter_of(clock, [Sensor(clock)], tiny_run(place=place), record=told.extend)
    work_for(clock, meter)
    meter.close()
    assert sum(line.cost_nanousd for line in told) == pytest.approx(10 * 0.001 * 1e9, abs=5)
    kwh = 200 * 10 * 1.5 / 3.6e6
    assert sum(line.kgco2e for line in told) == pytest.approx(
        kwh * meter.rates.kgco2e_per_kwh)
    assert "counter of device" in told[0].source and "PUE 1.5" in told[0].source


def test_without_a_sensor_joules_are_modelled_and_say_so():
    clock, told = Clock(), []
    meter = meter_of(clock, record=told.extend)
    work_for(clock, meter)
    share = meter.take("m", [1])
    assert share.basis == "modelled" and share.millijoules == pytest.approx(50_000, rel=0.01)
    meter.close()
    assert {line.basis for line in told} == {"modelled"}
    assert "no energy sensor" in told[0].source
    assert meter.total().joules is None and meter.total().reason == "no energy sensor"


def test_without_sensor_and_power_joules_are_null_and_time_is_not():
    clock, told = Clock(), []
    run = tiny_run(machine=tiny_machine(watts={}, cores=0))
    meter = meter_of(clock, run=run, record=told.extend)
    work_for(clock, meter)
    share = meter.take("m", [1])
    assert (share.millijoules, share.basis, share.cost_nanousd) == (None, "", None)
    assert share.engine_seconds == pytest.approx(5.0)
    meter.close()
    assert {(line.millijoules, line.kgco2e, line.basis) for line in told} == {(None, None, "")}
    assert sum(line.seconds for line in told) == pytest.approx(10)


def test_a_sensor_that_is_lost_makes_a_stretch_modelled():
    clock = Clock()
    sensor = Sensor(clock)
    meter = meter_of(clock, [sensor])
    work_for(clock, meter, 5, (1,))
    sensor.lost = True
    work_for(clock, meter, 5, (2,))
    sensor.lost = False
    work_for(clock, meter, 1, (4,))  # since when it counts again is not known
    work_for(clock, meter, 5, (3,))
    found = {ticket: meter.take("m", [ticket]) for ticket in (1, 2, 3)}
    assert {ticket: one.basis for ticket, one in found.items()} == {
        1: "measured", 2: "modelled", 3: "measured"}
    assert found[2].millijoules == pytest.approx(1_000_000, rel=0.1)  # as learned from the counter
    assert meter.where().basis == "modelled"
    assert meter.joules() == {"device": None} and "lost" in meter.total().reason


def test_an_engine_without_steps_is_metered_by_its_tokens():
    clock = Clock()
    meter = meter_of(clock)
    clock.now += 5.0
    few = meter.take("m", [9], prompt_tokens=10, output_tokens=5, seconds=2.0)
    many = meter.take("m", [9], prompt_tokens=10, output_tokens=50, seconds=2.0)
    assert few.basis == many.basis == "modelled"
    assert 0 < few.engine_seconds < many.engine_seconds <= 2.0
    bare = StepMeter({"m": Metered(plain())}, meter.rates, clock=clock)
    assert bare.take("m", [1], output_tokens=5, seconds=2.0) == Share(
        None, "", None, pytest.approx(2.0))


def test_of_a_model_that_answers_elsewhere_nothing_is_known():
    clock = Clock()
    meter = meter_of(clock)
    meter.on_step("elsewhere", StepRecord(1.0, {1: 5}, {}))
    assert meter.take("elsewhere", [1], prompt_tokens=5, output_tokens=5, seconds=1.0) == Share()


def test_what_nobody_settles_is_given_up_and_memory_stays_flat():
    clock = Clock()
    meter = meter_of(clock)
    for ticket in range(50):
        clock.now += metering.LOST_SECONDS / 10
        meter.on_step("m", StepRecord(0.1, {ticket: 5}, {}))
        meter.read()
        meter.flush()
    assert len(meter._split.live) <= 11 and len(meter._split._stretches) <= 3
    assert meter.where().sums["m", "lost"].millijoules > 0


def test_without_keys_nobody_settles_and_nothing_is_lost():
    clock, told = Clock(), []
    meter = meter_of(clock, settles=False, record=told.extend)
    work_for(clock, meter)
    clock.now += metering.FLUSH_SECONDS + 1
    meter.flush()
    meter.close()
    assert {line.kind for line in told if line.model} == {"requests"}


def test_a_ledger_that_cannot_be_written_ends_nothing(caplog):
    def record(lines):
        raise OSError("disk is full")

    clock = Clock()
    meter = meter_of(clock, record=record)
    work_for(clock, meter, 2)
    meter.take("m", [1])
    meter.flush()
    assert "lines of metering were not recorded" in caplog.text
    assert meter.take("m", [2]).millijoules > 0


def test_lines_go_into_the_ledger(tmp_path):
    clock = Clock()
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        meter = meter_of(clock, server="s1", record=lambda lines: record_meterings(ledger, lines))
        work_for(clock, meter)
        meter.take("m", [1, 2])
        meter.close()
        meter.close()
        kept = sum_meterings(ledger)
    assert {(line.model, line.kind) for line in kept} >= {("m", "requests")}
    assert sum(line.millijoules for line in kept) == meter.where().counted.millijoules


def test_a_machine_that_is_not_known_is_this_one():
    meter = open_meter({"a": None})
    assert meter.rates.pue == 1.0 and "a" in meter._models
    other = open_meter({"a": None, "b": replace(RUN, place=Place(pue=1.25))})
    assert other.rates.pue == 1.25


def test_a_real_engine_tells_all_its_steps_before_the_answer(folder):
    import urllib.request

    seen = []
    meter = open_meter({"tiny": RUN})

    def on_step(record):
        seen.append(record)
        meter.on_step("tiny", record)

    with meter, serving(folder, name="tiny", on_step=on_step) as session:
        body = {"model": "tiny", "prompt": "abcdef", "max_tokens": 9, "ignore_eos": True}
        request = urllib.request.Request(
            f"{session.url}/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            answered = json.load(response)["usage"]["completion_tokens"]
        ticket = next(iter(seen[0].prefill))
        share = meter.take("tiny", [ticket])
    assert sum(len(record.decode) for record in seen) == answered - 1
    assert share.engine_seconds == pytest.approx(sum(record.seconds for record in seen))
    assert share.basis == "modelled" and share.millijoules > 0
