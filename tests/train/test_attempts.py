from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.meter.clock import FakeClock
from curbcut.train import attempts
from curbcut.train.attempts import Left, Moment
from curbcut.train.checkpoint import Progress
from tiny import tiny_run

DAY = 86_400.0
THEN = Moment("boot", 100.0, 1e9)
SAVED = {"start": 2.0, "steps": 10.0, "data": 0.5, "checkpoint": 1.0}
LEFT = Left("digest", 14, {"start": 2.0, "steps": 17.0, "data": 0.75, "checkpoint": 1.0,
                           "evaluation": 3.0}, 70.0, 0.0, THEN)


@pytest.fixture
def resumed(opened):
    """A session that took up a checkpoint of step 10, five seconds after its attempt began."""
    session = opened(tiny_run(), clock=FakeClock())
    session.run_digest, session.step = "digest", 10
    session.taken_up, session.seconds = dict(SAVED), SAVED | {"start": 7.0}
    return session


def later(seconds, **changes):
    return replace(THEN, uptime_seconds=100 + seconds, date_seconds=1e9 + seconds, **changes)


def test_steps_done_again_are_replay_and_the_gap_is_down(resumed):
    replay = attempts.take_up(resumed, LEFT, later(65.0), 5.0)
    assert replay == pytest.approx(7.25)
    assert resumed.seconds == pytest.approx({"start": 7.0, "steps": 10.0, "data": 0.5,
                                             "checkpoint": 1.0, "replay": 7.25,
                                             "evaluation": 3.0, "down": 60.0})
    assert resumed.joules == 70.0
    # Every second from the beginning of the first attempt to now has its kind.
    assert resumed.total_seconds == pytest.approx(sum(LEFT.seconds.values()) + 65.0)


def test_so_long_as_a_hang_went_unnoticed_is_hang_and_the_rest_down(resumed):
    attempts.take_up(resumed, LEFT, later(65.0), 5.0, hung_seconds=45.0)
    assert resumed.seconds["hang"] == pytest.approx(45.0)
    assert resumed.seconds["down"] == pytest.approx(15.0)
    assert resumed.total_seconds == pytest.approx(sum(LEFT.seconds.values()) + 65.0)


def test_a_hang_is_never_longer_than_the_gap(resumed):
    attempts.take_up(resumed, LEFT, later(65.0), 5.0, hung_seconds=1e6)
    assert (resumed.seconds["hang"], resumed.seconds["down"]) == pytest.approx((60.0, 0.0))


def test_an_attempt_that_ended_in_order_leaves_nothing_to_replay_and_was_not_down(resumed):
    left = replace(LEFT, ended=True, step=10, seconds=SAVED | {"other": 0.5})
    assert attempts.take_up(resumed, left, later(DAY), 5.0) == 0
    assert resumed.seconds == SAVED | {"start": 7.0, "other": 0.5}


def test_without_a_checkpoint_all_steps_are_done_again(opened):
    session = opened(tiny_run(), clock=FakeClock())
    session.run_digest = "digest"
    attempts.take_up(session, LEFT, later(10.0), 0.0)
    assert session.seconds["replay"] == 17.75
    assert "steps" not in session.seconds


@pytest.mark.parametrize("jump", [DAY, -DAY, 3600.0, -3600.0])
def test_a_jump_of_the_date_does_not_reach_the_durations(resumed, jump):
    now = replace(later(65.0), date_seconds=1e9 + 65 + jump)
    attempts.take_up(resumed, LEFT, now, 5.0)
    assert resumed.seconds["down"] == 60.0


@pytest.mark.parametrize(("jump", "down"), [(0.0, 60.0), (-DAY, 0.0)])
def test_on_another_computer_the_date_has_to_do_and_never_runs_back(resumed, jump, down):
    now = Moment("other boot", 3.0, 1e9 + 65 + jump)
    attempts.take_up(resumed, LEFT, now, 5.0)
    assert resumed.seconds["down"] == down


def test_what_another_run_left_is_not_believed(resumed):
    before = dict(resumed.seconds)
    attempts.take_up(resumed, replace(LEFT, run_digest="other"), later(9.0), 0.0)
    attempts.take_up(resumed, None, later(9.0), 0.0)
    assert resumed.seconds == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 3}', '{"moment": 3, "seconds": {}}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / attempts.FILE).write_text(text)
    assert attempts.read(tmp_path) is None


def test_what_is_written_is_read(tmp_path):
    attempts.write(tmp_path / "metrics", LEFT)
    assert attempts.read(tmp_path / "metrics") == LEFT
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == [attempts.FILE]


def test_a_folder_that_cannot_be_written_costs_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    attempts.write(tmp_path / "file", LEFT)


def test_moments_of_one_computer_are_measured_by_its_own_count():
    one = attempts.moment()
    assert 0 <= one.until(attempts.moment()) < 10


def test_a_session_that_takes_up_a_checkpoint_keeps_its_own_start(opened):
    session = opened(tiny_run(), clock=FakeClock())
    session.book("start", 4.0)
    session.restore(Progress(step=0, tokens=0, seconds={"steps": 9.0, "start": 1.0}),
                    session.tensors())
    assert session.seconds == {"steps": 9.0, "start": 5.0}
    assert session.taken_up == {"steps": 9.0, "start": 1.0}
