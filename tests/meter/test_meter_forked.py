"""Work in forked processes, and the link between forked ranks."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from curbcut.errors import CurbcutError
from curbcut.meter import forked, here, link, probe
from curbcut.meter.probe import Probe


def test_each_process_answers_for_its_rank_from_a_process_of_its_own():
    told = forked.run(lambda rank: {"rank": rank, "pid": os.getpid(), "text": "x" * 200_000}, 3)
    assert [one["rank"] for one in told] == [0, 1, 2]
    assert len({one["pid"] for one in told} | {os.getpid()}) == 4
    assert all(len(one["text"]) == 200_000 for one in told)


def test_failure_is_told_with_its_last_line():
    with pytest.raises(CurbcutError, match="process 0 of 1 failed: ZeroDivisionError"):
        forked.run(lambda rank: 1 // rank)


def test_process_that_never_answers_is_ended():
    with pytest.raises(CurbcutError, match="it said nothing"):
        forked.run(lambda rank: time.sleep(60), timeout_seconds=0.3)


def test_link_between_two_ranks_is_measured():
    found = link.probe(2)
    assert found.ranks == 2
    assert 1e6 < found.bytes_per_second < 1e12 and 1e-7 < found.latency_seconds < 1.0


@pytest.fixture
def kept():
    return Probe(fingerprint="x", date="2026-01-01", seconds=1.0, library="torch", version="2.6",
                 device="cpu", threads=2, flops={"fp32": 1e12}, bytes_per_second=1e10)


def test_link_is_timed_once_and_kept_with_the_probe(kept, monkeypatch, tmp_path):
    from curbcut.meter import detect

    asked = []
    monkeypatch.setattr(link, "probe", lambda ranks: asked.append(ranks) or link.Link(
        ranks, 5e8, 1e-4))
    detected = detect.machine()
    kept = replace(kept, fingerprint=probe.fingerprint(detected))
    path = tmp_path / "probe.json"
    more = probe.with_link(detected, kept, 2, path)
    assert probe.with_link(detected, more, 2, path) is more and asked == [2]
    assert probe.load(detected, path).links == {"2": {"bytes_per_second": 5e8,
                                                      "latency_seconds": 1e-4}}
    no_gpu = replace(detected, gpus=())
    assert here.machine(no_gpu, more, ranks=2).link_bytes_per_second == 5 * 10**8
    assert here.machine(no_gpu, more).link_bytes_per_second == 0
    assert here.machine(no_gpu, more, ranks=4).link_bytes_per_second == 0
