from __future__ import annotations

import json
import os
import signal

import pytest

from curbcut.evaluate.bits import BitsPerByte
from curbcut.ledger.inbox import Writer
from curbcut.meter.clock import FakeClock
from curbcut.physics.flops import model_flops_per_token
from curbcut.spec import Limits
from curbcut.train import loop
from curbcut.train.observers.checkpointer import Checkpointer
from curbcut.train.observers.console import status
from curbcut.train.observers.evaluation import Evaluation
from curbcut.train.observers.limits import LimitKeeper
from curbcut.train.observers.recorder import Recorder
from curbcut.train.observers.signals import Signals
from curbcut.train.session import Silent, StepReport
from tiny import tiny_run


def test_without_limits_the_run_ends_by_itself(opened):
    assert loop.train(opened(tiny_run(steps=3)), [LimitKeeper()]).reason == "all tokens trained"


def test_a_signal_ends_the_run_resumable_at_a_checkpoint(opened, tmp_path):
    class SendTerm(Silent):
        def after_step(self, session, report):
            if report.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    saved = []
    stop = loop.train(opened(tiny_run(steps=50)), [
        SendTerm(), Signals(), Checkpointer(tmp_path, lambda s, p: saved.append(p.name), print)])
    assert stop.resumable
    assert "SIGTERM" in stop.reason
    assert saved == ["step-00000002", "step-00000003"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_checkpoints_come_by_the_recipe_and_at_the_end(opened, tmp_path):
    saved = []
    loop.train(opened(tiny_run(steps=5)), [
        Checkpointer(tmp_path, lambda s, p: saved.append(s.step), print)])
    assert saved == [2, 4, 5]


def test_evaluation_by_the_recipe_and_at_the_end(opened):
    heard = []
    session = opened(tiny_run(steps=5))
    observer = Evaluation(lambda s: BitsPerByte(1.0, 9.0 - s.step, 10, 20), 2,
                          lambda s, r: heard.append((s.step, r.bits_per_byte)))
    loop.train(session, [observer])
    assert heard == [(2, 7.0), (4, 5.0), (5, 4.0)]
    assert session.bits_per_byte == 4.0


def test_a_target_loss_ends_the_run(opened):
    session = opened(tiny_run(steps=50, limits=Limits(loss=5.0)))
    observer = Evaluation(lambda s: BitsPerByte(1.0, 9.0 - s.step, 10, 20), 2, lambda s, r: None)
    stop = loop.train(session, [observer])
    assert session.step == 4
    assert "5 bits per byte" in stop.reason


def test_the_record_is_complete(opened, tmp_path):
    writer = Writer(tmp_path, "tiny", "train")
    loop.train(opened(tiny_run(steps=4)), [Recorder(writer, every_steps=2)])
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "step", "step", "end"]
    assert lines[-1]["body"]["reason"] == "all tokens trained"
    assert lines[-1]["body"]["joules"] is None
    assert lines[2]["body"]["tokens"] == 4 * 4 * 32


def test_the_line_a_person_sees_divides_by_durations(opened):
    # A fake clock: 128 tokens in half a second must read 256 tok/s, and MFU follows from it.
    session = opened(tiny_run(steps=10), clock=FakeClock())
    session.seconds["steps"] = 5.0
    session.run.machine.measured_flops["fp32"] = 5e8
    line = status(session, StepReport(5, 2.0, 1.0, 1e-3, 128, 0.5), recent_seconds=0.5)
    assert "256 tok/s" in line
    assert "~10 W modelled" in line
    assert "planned" in line
    run = session.run
    flops_a_token = model_flops_per_token(run.model, run.recipe.sequence_tokens)
    assert f"MFU {flops_a_token * 256 / 5e8:.0%}" in line
    assert "MFU 0%" not in line
    assert "\n" not in line


def test_mfu_counts_every_accelerator(opened):
    from tiny import tiny_machine

    def line(**machine):
        session = opened(tiny_run(machine=tiny_machine(measured_flops={"fp32": 5e8}, **machine)))
        return status(session, StepReport(1, 2.0, 1.0, 1e-3, 128, 0.5), 0.5)

    def percent(text):
        return int(text.split("MFU ")[1].split("%")[0])

    assert percent(line()) == pytest.approx(2 * percent(line(accelerators_per_node=2)), abs=1)


def test_mfu_is_not_available_without_a_peak(opened):
    from tiny import tiny_machine

    session = opened(tiny_run(machine=tiny_machine(measured_flops={})))
    line = status(session, StepReport(1, 2.0, 1.0, 1e-3, 128, 0.5), 0.5)
    assert "MFU n/a" in line
