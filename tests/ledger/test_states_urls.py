"""Where runs stand, read from SQLite and from PostgreSQL alike."""

from __future__ import annotations

import pytest

from curbcut.ledger.inbox import FOLDER, Writer, import_folder
from curbcut.report.states import plain, states
from curbcut.spec import Account, Resolved, measured, modelled, unknown
from tiny import tiny_run

PROMISED = Account(seconds={"total": modelled(100, 2, "plan")}, usd={"total": modelled(1, 2, "p")},
                   kwh={"facility": modelled(0.5, 2, "p")}, mfu={"run": modelled(0.4, 2, "p")},
                   tokens_per_second={"steps": modelled(1000, 2, "p")})


class Left:
    """What processes of one run leave, by a clock that the test moves."""

    def __init__(self, place, ledger):
        self.place, self.ledger, self.now = place, ledger, 1000.0

    def __call__(self, *lines, account=None, finished=True):
        """A process that starts with the run, then writes `lines` a second apart."""
        with Writer(self.place / FOLDER, self.place.name, "train",
                    clock=lambda: self.now) as writer:
            writer.write_run(Resolved(tiny_run(self.place.name), {}))
            writer.write_account("train", "forecast", PROMISED)
            for kind, body in lines:
                self.now += 1
                writer.write(kind, body)
            if account is not None:
                writer.write_account("train", "measured", account, finished=finished)
        import_folder(self.ledger, self.place)

    def state(self, later=0.0):
        [found] = states(self.ledger, self.now + later)
        return found


@pytest.fixture
def left(tmp_path, ledger):
    return Left(tmp_path / "runs/mine", ledger)


START = ("start", {"step": 0, "steps": 40, "period_seconds": 10})


def step(at, **more):
    return ("step", {"step": at, "tokens": at * 100, "loss": 5 - at / 10, "step_seconds": 0.5,
                     "seconds": {"steps": at / 2, "data": 0.0}} | more)


def test_a_run_from_plan_to_end(left):
    left()
    found = left.state()
    assert (found.state, found.step, found.usd.now) == ("planned", None, None)
    assert (found.usd.promised, found.usd.low, found.usd.high) == (1, 0.5, 2)
    left(START, step(10))
    found = left.state()
    assert (found.state, found.step, found.steps, found.progress) == ("training", 10, 40, 0.25)
    assert (found.loss, found.tokens, found.tokens_per_second) == (4, 1000, 200)
    assert found.mfu == pytest.approx(0.4 * 200 / 1000)  # of the promise, for the line tells none
    assert (found.usd.now, found.usd.basis) == (0.05, "modelled")
    assert found.began == found.updated - 1
    left(("start", {"step": 10, "steps": 40}), step(20, usd=0.3, kwh=0.2, mfu=0.1, joules=7.0),
         ("evaluation", {"step": 20, "bits_per_byte": 2.5}),
         ("end", {"step": 40, "reason": "all tokens trained", "resumable": False}),
         account=Account(usd={"total": measured(0.6, "clock")}, kwh={"facility": unknown("none")},
                         kwh_modelled={"facility": modelled(0.4, 2, "watts")},
                         seconds={"total": measured(33, "clock")}))
    found = left.state()
    assert (found.state, found.reason, found.step) == ("done", "all tokens trained", 40)
    assert (found.usd.now, found.usd.basis, found.seconds) == (0.6, "measured", 33)
    assert (found.kwh.now, found.kwh.basis, found.kwh.promised) == (0.4, "modelled", 0.5)
    assert (found.bits_per_byte, found.mfu) == (2.5, 0.1)
    assert plain(found)["progress"] == 1.0 and plain(found)["usd"]["now"] == 0.6
    assert states(left.ledger, 0, names=["mine"]) != [] == states(left.ledger, 0, names=["other"])


def test_silence_is_a_crash_and_a_sign_of_life_is_none(left):
    left(START, step(10))
    assert left.state(later=34).state == "training"
    crashed = left.state(later=3600)
    assert (crashed.state, crashed.age_seconds) == ("crashed", 3600)
    assert crashed.reason == "no sign of life since 1970-01-01 00:16:42 UTC"
    left.now += 3600
    left(("start", {"step": 5, "steps": 40, "period_seconds": 10}))
    found = left.state()
    assert (found.state, found.step, found.reason) == ("training", 5, "")
    assert found.loss == 4  # the newest that is known
    left.now += 40
    assert left.state().state == "crashed"


def test_beats_keep_a_slow_run_alive(left):
    left(START, step(10), ("beat", {"step": 10, "period_seconds": 100}))
    assert left.state(later=300).state == "training"
    assert left.state(later=310).state == "crashed"


def test_a_record_without_beats_is_given_time(left):
    left(("start", {"step": 0, "steps": 40}))
    assert left.state(later=600).state == "training"
    assert left.state(later=3600).state == "crashed"


def test_a_stopped_run_goes_on_later_and_its_old_sums_do_not_count_then(left):
    left(START, step(20), ("end", {"step": 20, "reason": "SIGTERM", "resumable": True}),
         account=Account(usd={"total": measured(0.5, "clock")}), finished=False)
    found = left.state(later=1e6)
    assert (found.state, found.reason, found.usd.now) == ("stopped", "SIGTERM", 0.5)
    left.now += 100
    left(("start", {"step": 20, "steps": 40}), step(30))
    found = left.state()
    assert (found.state, found.step, found.usd.now) == ("training", 30, 0.15)
    left(("start", {"step": 30, "steps": 40}), ("end", {"step": 40, "reason": "", "resumable": 0}))
    assert (left.state().state, left.state().usd.now) == ("done", 0.15)


def test_what_a_damaged_line_says_is_not_known(left):
    left(START, ("step", {"step": "x", "tokens": None, "loss": "nan", "seconds": 3}))
    found = left.state()
    assert (found.step, found.loss, found.tokens, found.seconds, found.usd.now) == (None,) * 5
    assert found.usd.basis == "" and found.progress is None


def test_accounts_without_events_are_of_a_finished_run(ledger):
    ledger.record_run(Resolved(tiny_run("old"), {}))
    ledger.record_account("old", "train", "measured", Account(usd={"total": measured(2, "x")}))
    [found] = states(ledger, 0)
    assert (found.state, found.usd.now, found.model) == ("done", 2, "28.2 k")
