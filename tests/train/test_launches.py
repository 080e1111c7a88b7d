"""The record of launches and alerts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.train import launches
from curbcut.train.launches import Fault, Launch

FAULT = Fault("died", 1, "host", 42, 7, "killed by SIGKILL")


def test_launches_come_back_as_they_were_written(tmp_path):
    told = [Launch(1, 10.0, 20.0, 0, 7, 4, "fault", FAULT, 1.5), Launch(2, 21.0, 30.0, 4, 9, 9,
                                                                       "done", down_seconds=1.0)]
    assert launches.read(tmp_path) == []
    launches.record(tmp_path, told)
    assert launches.read(tmp_path) == told
    (tmp_path / launches.FILE).write_text('{"launches": [{"number": 1}]}')
    assert launches.read(tmp_path) == []


@pytest.mark.parametrize(("kind", "seconds"), [("hung", 1.5), ("died", 0.0)])
def test_only_of_a_hang_it_took_time_to_notice(tmp_path, kind, seconds):
    assert launches.hung_seconds(tmp_path) == 0
    launches.record(tmp_path, [Launch(1, 10.0, 20.0, 0, 7, 4, "fault", replace(FAULT, kind=kind),
                                      1.5)])
    assert launches.hung_seconds(tmp_path) == seconds


def test_alerts_are_lines_and_a_cut_one_is_left_out(tmp_path):
    assert launches.alerts(tmp_path) == []
    launches.alert(tmp_path, FAULT)
    with (tmp_path / launches.RANKS / launches.ALERTS).open("a") as file:
        file.write('{"kind": "sl')
    (found,) = launches.alerts(tmp_path)
    assert found["rank"] == 1 and found["time"] > 0


def test_alert_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / launches.RANKS).write_text("a file")
    launches.alert(tmp_path, FAULT)
