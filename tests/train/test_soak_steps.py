"""Thousands of steps leave no memory, file or line behind."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from curbcut.ledger.inbox import Writer
from curbcut.train import loop
from curbcut.train.observers.attempt import Attempt
from curbcut.train.observers.attribution import Attribution
from curbcut.train.observers.console import ConsoleLine
from curbcut.train.observers.recorder import Recorder
from curbcut.train.session import Silent
from tiny import tiny_run

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def held():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


class Watch(Silent):
    def __init__(self, warm):
        self.warm, self.first, self.last = warm, (0, 0), (0, 0)

    def after_step(self, session, report):
        if report.step == self.warm:
            self.first = held()
        self.last = held() if report.step % 100 == 0 else self.last


def soak(opened, folder, steps, warm):
    shape = {"layers": 1, "width": 16, "heads": 1, "kv_heads": 1, "ffn": 16}
    recipe = {"sequence_tokens": 8, "micro_batch": 1, "global_batch": 1}
    session, watch = opened(tiny_run(steps=steps, model=shape, recipe=recipe)), Watch(warm)
    writer = Writer(folder, "tiny", "train")
    console = ConsoleLine(Console(file=io.StringIO()), plain_every_seconds=1e9)
    loop.train(session, [Attribution(), Recorder(writer), Attempt(folder), console, watch])
    grown = watch.last[0] / watch.first[0] - 1
    return grown, watch.last[1] - watch.first[1], writer.path.stat().st_size


def test_hundreds_of_steps_leave_nothing_behind(opened, tmp_path):
    grown, files, size = soak(opened, tmp_path, 600, 200)
    assert grown < 0.05
    assert files <= 0
    assert size < 1e6


@pytest.mark.soak
def test_a_hundred_thousand_steps_leave_nothing_behind(opened, tmp_path):
    grown, files, size = soak(opened, tmp_path, 100_000, 2_000)
    assert grown < 0.05
    assert files <= 0
    assert size < 50e6
