"""What sensors count, and which of them count for requests."""

import pytest

from curbcut.meter.rapl import SensorLost
from curbcut.serve.metering.counter import Counter


class Sensor:
    def __init__(self, boundary, count=0.0):
        self.name, self.boundary, self.count = f"a {boundary}", boundary, count

    def joules(self):
        if self.count is None:
            raise SensorLost("gone", where=self.name, mend="")
        return self.count


def test_gpus_count_for_requests_where_there_are_any():
    gpus, cpu = [Sensor("device", 5.0), Sensor("device", 7.0)], Sensor("cpu", 1.0)
    counter = Counter([*gpus, cpu])
    gpus[0].count, gpus[1].count, cpu.count = 15.0, 8.0, 101.0
    assert counter.read() == 11.0 and counter.read() == 0.0
    assert counter.totals() == {"cpu": 100.0, "device": 11.0}


def test_without_gpus_packages_and_memory_count():
    cpu, memory = Sensor("cpu"), Sensor("memory")
    counter = Counter([cpu, memory])
    cpu.count, memory.count = 3.0, 1.0
    assert counter.read() == 4.0


def test_a_lost_sensor_is_none_for_as_long_as_it_was_lost_and_never_zero():
    gpu = Sensor("device")
    counter = Counter([gpu])
    found = []
    for count in (2.0, None, 9.0, 10.0):
        gpu.count = count
        found.append(counter.read())
    assert found == [2.0, None, None, 1.0]
    assert counter.totals() == {"device": None} and "lost" in counter.reason


def test_another_boundarys_loss_harms_no_request():
    gpu, cpu = Sensor("device"), Sensor("cpu")
    counter = Counter([gpu, cpu])
    gpu.count, cpu.count = 2.0, None
    assert counter.read() == pytest.approx(2.0) and counter.totals()["cpu"] is None


def test_no_sensor_is_no_joules():
    counter = Counter([])
    assert counter.read() is None and not counter.there and counter.totals() == {}
    assert counter.reason == "no energy sensor"
