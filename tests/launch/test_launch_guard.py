"""Ranks that something else started watch each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from curbcut.launch import guard, pulse, watch
from curbcut.launch.environment import Seat
from curbcut.launch.pulse import ENDING, Beat
from curbcut.launch.watch import Patience
from curbcut.train import launches
from launch_text import TOML, write_text

HERE = socket.gethostname()
PATIENCE = Patience(silent_seconds=10.0, stuck_seconds=60.0)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(watch.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def write(folder, rank, at, *, step=5, phase="steps", host=HERE, pid=1 << 30, attempt=1):
    path = pulse.path_of(folder / launches.RANKS, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(Beat(rank, host, pid, attempt, step, phase, step, at, at))))


def watching(folder, seat, seconds, alter=lambda now: None):
    """The fault that a guard finds first, and when, while it looks once a second."""
    now = [0.0]
    one = guard.Guard(folder, seat, PATIENCE, clock=lambda: now[0])
    while now[0] < seconds:
        alter(now[0])
        if (fault := one.look()) is not None:
            return fault, now[0]
        now[0] += 1.0
    return None


def test_each_rank_is_watched_by_another_however_many_there_are():
    for size, local in ((2, 1), (8, 8), (64, 8), (512, 8), (64, 1)):
        seen = set()
        for rank in range(size):
            found = guard.watched_by(Seat(rank, size, rank % local, local, "a", 1))
            assert rank not in found and len(found) <= max(guard.ALL_WATCH_ALL, local)
            seen |= set(found)
        assert seen == set(range(size))


def test_silent_rank_is_found_by_its_pulse_alone_whatever_its_clock_says(tmp_path):
    def alter(now):
        write(tmp_path, 0, now)
        write(tmp_path, 1, 1e9 + min(now, 7.0))

    fault, when = watching(tmp_path, Seat(0, 2, 0, 2, "a", 1), 100, alter)
    assert (fault.kind, fault.rank) == ("hung", 1) and 37 <= when <= 40
    assert watching(tmp_path, Seat(0, 2, 0, 2, "a", 1), 30, alter) is None


def test_rank_of_another_node_is_given_longer(tmp_path):
    def alter(now):
        write(tmp_path, 0, now, step=int(now))
        write(tmp_path, 1, min(now, 5.0), host="another")

    fault, when = watching(tmp_path, Seat(0, 2, 0, 1, "a", 1), 300, alter)
    assert fault.host == "another" and when >= watch.NOT_SURE * guard.FAR_SECONDS


def test_ranks_that_live_and_do_not_move_are_stuck_and_the_one_behind_is_named(tmp_path):
    def alter(now):
        write(tmp_path, 0, now, step=5)
        write(tmp_path, 1, now, step=4)

    fault, when = watching(tmp_path, Seat(0, 2, 0, 2, "a", 1), 100, alter)
    assert fault.rank == 1 and "has not moved" in fault.what and 60 <= when <= 62


def test_who_has_not_come_yet_or_is_leaving_is_no_fault(tmp_path):
    def alter(now):
        write(tmp_path, 0, now)
        write(tmp_path, 1, 0.0, phase=ENDING)
        write(tmp_path, 2, 0.0, attempt=9)

    assert watching(tmp_path, Seat(0, 4, 0, 4, "a", 1), 200, alter) is None


def test_crowded_computer_is_waited_for_longer(monkeypatch):
    monkeypatch.setattr(watch.os, "cpu_count", lambda: 2)
    for load, times in ((0.5, 1.0), (4.0, 2.0), (100.0, watch.CROWD)):
        monkeypatch.setattr(watch.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert watch.crowding() == times
    beats = {0: Beat(0, HERE, 1, 1, 5, "steps", 5, 0.0, 0.0)}
    told = [watch.hangs(beats, {}, {}, 31.0, 0.0, PATIENCE, HERE, crowded) for crowded in (1, 2)]
    assert told[0] is not None and told[1] is None


@pytest.mark.slow
def test_stopped_rank_under_another_launcher_ends_the_others_resumable(tmp_path):
    write_text(tmp_path)
    path = tmp_path / "many.toml"
    path.write_text(TOML.format(machine="2xhere", recipe="dp_replicate = 2",
                                text=tmp_path / "text"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    plain = os.environ | {
        "CURBCUT_HOME": str(tmp_path / "home"), "CURBCUT_SENSORS": "off", "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "CURBCUT_FAULT": "step: end;hang;1;4"}
    started = [subprocess.Popen(
        [sys.executable, "-m", "curbcut", "train", str(path), "--runs", str(tmp_path / "runs")],
        env=plain | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    try:
        told = started[0].communicate(timeout=240)[0]
        assert started[0].returncode == 75, told
        assert "rank 1" in told and "SIGSTOP" in told
    finally:
        for process in started:
            process.kill()
            process.wait()
    (alert,) = launches.alerts(tmp_path / "runs" / "many")
    assert (alert["kind"], alert["rank"]) == ("hung", 1)
    assert time.time() - alert["time"] < 240
