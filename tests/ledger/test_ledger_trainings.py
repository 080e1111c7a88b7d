from __future__ import annotations

import pytest

from curbcut.accounts.development import ledger_ratio
from curbcut.errors import DamagedFile
from curbcut.ledger import kept_trainings
from curbcut.ledger.inbox import Writer, import_folder
from ledger.samples import make_run, measurement


@pytest.fixture
def ledger(file_ledger):
    """What is tested is read from a file, without SQLAlchemy."""
    return file_ledger


def path_of(ledger, tmp_path):
    return tmp_path / "ledger.sqlite"


def put(ledger, name, seconds=None, finished=True, **changes):
    ledger.record_run(make_run(name=name, **changes))
    if seconds is not None:
        ledger.record_account(name, "train", "measured", measurement(seconds), finished=finished)


def session(ledger, folder, name, lasted, end=True):
    """A training process that worked `lasted` seconds; killed without an end when not `end`."""
    times = iter([1000.0, 1001.0, 1000.0 + lasted, 1000.0 + lasted])
    with Writer(folder / name / "metrics", name, "train", clock=lambda: next(times)) as writer:
        writer.write_run(make_run(name=name))
        writer.write("start", {"step": 0})
        writer.write("end" if end else "step", {"step": 10})
    import_folder(ledger, folder / name)


def test_finished_and_stopped_runs_are_told_apart(ledger, tmp_path):
    put(ledger, "good", 100.0)
    put(ledger, "bad", 40.0, finished=False)
    put(ledger, "never")
    good, bad = sorted(kept_trainings(path_of(ledger, tmp_path)), key=lambda one: one.run,
                       reverse=True)
    assert (good.run, good.finished, good.kept_seconds, good.all_seconds) == (
        "good", True, 100.0, 100.0)
    assert (bad.run, bad.finished, bad.kept_seconds, bad.all_seconds) == ("bad", False, 0.0, 40.0)


def test_attempts_of_a_run_are_counted_once_in_its_account(ledger, tmp_path):
    """An account adds up all attempts so far: the last one holds the first."""
    put(ledger, "again", 40.0, finished=False)
    ledger.record_account("again", "train", "measured", measurement(100.0))
    [found] = kept_trainings(path_of(ledger, tmp_path))
    assert (found.kept_seconds, found.all_seconds) == (100.0, 100.0)


def test_a_killed_session_counts_by_its_events(ledger, tmp_path):
    session(ledger, tmp_path, "killed", 70.0, end=False)
    session(ledger, tmp_path, "killed", 100.0)
    ledger.record_account("killed", "train", "measured", measurement(110.0))
    [found] = kept_trainings(path_of(ledger, tmp_path))
    assert found.kept_seconds == 110.0 and found.all_seconds == 170.0


def test_a_run_that_only_ever_crashed_still_counts(ledger, tmp_path):
    session(ledger, tmp_path, "crashed", 25.0, end=False)
    [found] = kept_trainings(path_of(ledger, tmp_path))
    assert not found.finished and found.all_seconds == 25.0


def test_seconds_are_of_all_accelerators(ledger, tmp_path):
    put(ledger, "wide", 10.0, machine__accelerators_per_node=8, machine__nodes=2)
    [found] = kept_trainings(path_of(ledger, tmp_path))
    assert found.kept_seconds == 160.0


def test_serving_is_no_training(ledger, tmp_path):
    put(ledger, "served")
    ledger.record_account("served", "serve", "measured", measurement(500.0))
    assert kept_trainings(path_of(ledger, tmp_path)) == []


def test_the_ratio_comes_from_the_ledger(ledger, tmp_path):
    for i in range(4):
        put(ledger, f"good{i}", 100.0)
    assert ledger_ratio(path_of(ledger, tmp_path)) is None
    put(ledger, "bad", 100.0, finished=False)
    assert ledger_ratio(path_of(ledger, tmp_path)).value == pytest.approx(500 / 400)


def test_no_ledger_gives_none_and_a_broken_one_says_so(tmp_path):
    assert kept_trainings(tmp_path / "ledger.sqlite") == []
    (tmp_path / "ledger.sqlite").write_bytes(b"no ledger at all, but long enough to be read" * 40)
    with pytest.raises(DamagedFile):
        kept_trainings(tmp_path / "ledger.sqlite")
