from __future__ import annotations

import json
import threading

from curbcut.ledger.inbox import Writer
from curbcut.meter.clock import FakeClock
from curbcut.train import loop
from curbcut.train.observers.beat import LEAST_SECONDS, MOST_SECONDS, Beat, period_seconds
from curbcut.train.observers.recorder import Recorder
from curbcut.train.session import Silent
from tiny import tiny_run


def test_a_long_run_gives_fewer_signs_and_none_is_endless():
    assert period_seconds(None) == period_seconds(0.0) == period_seconds(60.0) == LEAST_SECONDS
    assert LEAST_SECONDS < period_seconds(20_000 * 30.0) == 30.0 < MOST_SECONDS
    assert period_seconds(1e12) == MOST_SECONDS


def test_who_is_silent_is_told_of_and_who_speaks_is_not():
    told = threading.Event()
    beat = Beat(told.set, 0.001)
    beat.start()
    assert told.wait(10)
    beat.close()
    told.clear()
    assert not beat._thread.is_alive()
    assert not told.is_set()


def test_who_said_something_in_a_period_is_not_told_of():
    told, turns = [], iter([False, False, False, True])
    beat = Beat(lambda: told.append(beat._spoke.is_set()), 1.0)

    class Turns:
        def wait(self, _seconds):
            over = next(turns)
            if not over and len(told) == 1 and not said:
                said.append(1)
                beat.heard()  # within the second period
            return over
    said = []
    beat._over = Turns()
    beat._go()
    assert len(told) == 2  # the first and the third


def test_a_process_that_takes_one_long_step_leaves_signs_with_their_period(opened, tmp_path,
                                                                           monkeypatch):
    from curbcut.train.observers import recorder as module

    class Slow(Silent):
        def after_step(self, session, report):
            if report.step == 2:
                while '"beat","body":{"step":1,' not in writer.path.read_text():
                    threading.Event().wait(0.005)

    monkeypatch.setattr(module, "period_seconds", lambda promised: 0.01)
    writer = Writer(tmp_path, "tiny", "train")
    loop.train(opened(tiny_run(steps=4)), [Slow(), Recorder(writer, every_steps=2)])
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert lines[0]["body"]["period_seconds"] == 0.01
    beats = [line["body"] for line in lines if line["kind"] == "beat"]
    assert {"step": 1, "period_seconds": 0.01} in beats
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    assert lines[-1]["kind"] == "end"


def test_a_step_says_what_it_took_so_far_and_how_busy_it_was(opened, tmp_path):
    writer = Writer(tmp_path, "tiny", "train")
    loop.train(opened(tiny_run(steps=2)), [Recorder(writer, every_steps=1)])
    steps = [json.loads(line)["body"] for line in writer.path.read_text().splitlines()
             if '"step_seconds"' in line]
    assert 0 < steps[0]["usd"] < steps[1]["usd"]
    assert 0 < steps[0]["kwh"] < steps[1]["kwh"]
    assert all(0 < one["mfu"] < 1 and one["memory_bytes"] > 1e6 for one in steps)


def test_a_record_that_cannot_take_a_sign_fails_with_its_next_line_only(tmp_path):
    from curbcut.errors import CurbcutError

    class Full(Writer):
        def write(self, kind, body=None):
            raise CurbcutError("full")
    recorder = Recorder(Full(tmp_path, "tiny", "train"))
    recorder._tell()
    assert recorder._beat is None


def test_slow_steps_are_each_recorded(opened, tmp_path):
    class Slow(Silent):
        def after_step(self, session, report):
            session.clock.advance(20.0 if report.step < 4 else 0.0)

    writer = Writer(tmp_path, "tiny", "train")
    loop.train(opened(tiny_run(steps=8), clock=FakeClock()),
               [Slow(), Recorder(writer, every_steps=10)])
    steps = [json.loads(line)["body"]["step"] for line in writer.path.read_text().splitlines()
             if '"step_seconds"' in line]
    assert steps == [1, 2, 3, 8]
