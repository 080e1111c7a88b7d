from __future__ import annotations

import threading

import pytest

from curbcut.train.later import Later


def test_work_is_done_in_order_and_nothing_is_lost():
    done, later = [], Later("test")
    for n in range(500):
        later.do(lambda n=n: done.append(n))
    later.finish()
    assert done == list(range(500))
    later.do(lambda: done.append("again"))
    later.finish()
    assert done[-1] == "again"


def test_who_gives_work_does_not_wait_for_it():
    gate, later, done = threading.Event(), Later("test"), []
    later.do(gate.wait)
    for _ in range(5):
        later.do(lambda: done.append(1))
    assert not done  # nothing was waited for: the gate is shut
    assert later.waiting >= 4
    gate.set()
    later.finish()
    assert len(done) == 5


def test_an_error_is_told_by_the_next_call():
    later = Later("test")

    def fail():
        raise OSError("disk")

    later.do(fail)
    with pytest.raises(OSError, match="disk"):
        later.finish()
    later.finish()
