"""Connections that ask for nothing."""

from types import SimpleNamespace

from curbcut.serve.sweep import HEADER_SECONDS, Sweep


class Connection:
    """As much of uvicorn's as is looked at."""

    def __init__(self, cycle=None):
        self.cycle, self.closed, self.closing = cycle, False, False
        self.transport = SimpleNamespace(abort=lambda: setattr(self, "closed", True),
                                         is_closing=lambda: self.closing)


def request(done):
    return SimpleNamespace(response_complete=done)


def test_what_has_no_request_in_time_is_closed_and_what_has_is_not():
    silent, answered, running = Connection(), Connection(request(True)), Connection(request(False))
    sweep = Sweep()
    assert sweep.close_idle([silent, answered, running], 0.0) == 0
    assert sweep.close_idle([silent, answered, running], HEADER_SECONDS - 0.1) == 0
    assert sweep.close_idle([silent, answered, running], HEADER_SECONDS) == 2
    assert silent.closed and answered.closed and not running.closed


def test_a_request_in_between_begins_the_time_anew():
    one, sweep = Connection(), Sweep()
    sweep.close_idle([one], 0.0)
    one.cycle = request(False)
    sweep.close_idle([one], 5.0)
    one.cycle = request(True)
    assert sweep.close_idle([one], HEADER_SECONDS) == 0
    assert sweep.close_idle([one], 2 * HEADER_SECONDS) == 1


def test_a_request_between_two_looks_begins_the_time_anew():
    one, sweep = Connection(request(True)), Sweep()
    for second in range(3 * int(HEADER_SECONDS)):
        one.cycle = request(True)  # each second another one, over before anybody looks
        assert sweep.close_idle([one], float(second)) == 0
    assert sweep.close_idle([one], 4 * HEADER_SECONDS) == 1


def test_who_does_not_read_what_is_left_is_not_waited_for():
    one, sweep = Connection(request(False)), Sweep()
    sweep.close_idle([one], 0.0)
    one.closing = True
    assert sweep.close_idle([one], 1.0) == 0
    assert sweep.close_idle([one], 1.0 + HEADER_SECONDS) == 1 and one.closed


def test_connections_that_are_gone_are_forgotten():
    sweep = Sweep()
    sweep.close_idle([Connection() for _ in range(5)], 0.0)
    assert sweep.close_idle([], HEADER_SECONDS) == 0
