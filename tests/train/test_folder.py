from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import DamagedFile, InputError, RunBusy
from curbcut.spec import Account, Draft, Limits, Resolved, measured, modelled
from curbcut.train import folder, layouts, lock
from tiny import tiny_machine, tiny_run

PROMISE = Account(seconds={"total": modelled(10.0, 2, "test")})


def resolved(**changes) -> Resolved:
    return Resolved(tiny_run(**changes), {"name": "test"})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "-x", "a b", "x" * 101])
def test_a_name_is_one_plain_folder(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a run"):
        folder.run_folder(tmp_path, name)


def test_what_is_claimed_is_read_back(tmp_path):
    place = tmp_path / "tiny"
    folder.claim(place, resolved(), PROMISE)
    again, promise = folder.read_plan(place)
    assert again.run == resolved().run
    assert promise == PROMISE
    assert "# test" in (place / "run.toml").read_text()


def test_claiming_the_same_run_again_is_fine(tmp_path):
    folder.claim(tmp_path / "tiny", resolved(), PROMISE)
    folder.claim(tmp_path / "tiny", resolved(limits=Limits(seconds=9)), PROMISE)


def test_two_runs_of_one_name_are_refused_by_what_differs(tmp_path):
    folder.claim(tmp_path / "tiny", resolved(), PROMISE)
    with pytest.raises(InputError, match=r"recipe\.micro_batch is 2 there and 4 here") as caught:
        folder.claim(tmp_path / "tiny", resolved(recipe={"micro_batch": 4}), PROMISE)
    assert caught.value.exit_code == 2
    assert "--name" in str(caught.value)


def test_who_says_the_same_again_asks_for_the_same_run(tmp_path):
    # The plan rounds tokens up to whole steps and calls the machine by its full name.
    said = Draft({"name": "tiny", "train.tokens": 700, "machine.name": "1xH100"})
    folder.claim(tmp_path, resolved(), PROMISE, asked=said)
    assert layouts.changes(tiny_run(), said, tmp_path) == {}
    with pytest.raises(InputError, match=r"train\.tokens = 700, not 900"):
        layouts.changes(tiny_run(), Draft({"train.tokens": 900}), tmp_path)


def test_the_digest_is_of_what_was_settled():
    run = tiny_run()
    same = replace(run, machine=tiny_machine(measured_flops={"fp32": 5.0}), limits=Limits(loss=1.0))
    assert folder.digest(run) == folder.digest(same)
    assert folder.digest(run) != folder.digest(replace(run, seed=2))
    assert folder.digest(run) != folder.digest(tiny_run(recipe={"beta2": 0.9}))


def test_how_a_run_ended(tmp_path):
    account = Account(seconds={"total": measured(3.0, "clock")})
    assert folder.ended(tmp_path) is None
    folder.write_ending(tmp_path, "SIGTERM received", True, account)
    assert folder.ended(tmp_path) is None
    folder.write_ending(tmp_path, "all tokens trained", False, account)
    assert folder.ended(tmp_path) == folder.Ending("all tokens trained", account)
    (tmp_path / "account.json").write_text("{")
    with pytest.raises(DamagedFile):
        folder.ended(tmp_path)


def test_no_write_permission_is_one_clear_error(tmp_path, monkeypatch):
    def denied(*_a, **_k):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    with pytest.raises(InputError, match="cannot write here") as caught:
        folder.claim(tmp_path / "tiny", resolved(), PROMISE)
    assert caught.value.exit_code == 2


def test_a_second_trainer_is_refused(tmp_path):
    import subprocess
    import sys

    script = (f"from pathlib import Path\nfrom curbcut.train import lock\n"
              f"with lock.held(Path({str(tmp_path)!r})):\n    pass\n")
    with lock.held(tmp_path):
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "RunBusy" in second.stderr
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert RunBusy.exit_code == 2
