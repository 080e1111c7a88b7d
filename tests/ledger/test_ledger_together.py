"""Several processes on one ledger: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import os
import signal

import pytest
from sqlalchemy.exc import IntegrityError

from curbcut.ledger import access, codec, open_ledger, usage
from curbcut.ledger.inbox import Writer, import_folder
from curbcut.spec import UNIT_OF, Account, measured
from ledger.forked import ended, forked, start, told
from ledger.samples import forecast, make_run


def work(path, folder, step, count, tell=None):
    """Writes so many accounts and lines of a run; tells each once it is kept."""
    writer = Writer(folder / "metrics", "tiny", step)
    with open_ledger(path) as ledger:
        for n in range(count):
            writer.write("step", {"n": n})
            ledger.record_account("tiny", step, "measured", Account(
                seconds={"total": measured(n, "clock"), "steps": measured(n, "clock")}))
            if tell is not None:
                os.write(tell, b"%d\n" % n)
            if n % 5 == 0:
                import_folder(ledger, folder)


def count(ledger, query):
    with ledger.reading() as connection:
        return connection.exec_driver_sql(query).scalar()


def test_two_processes_at_once_lose_nothing(url, tmp_path):
    folder = tmp_path / "tiny"
    with open_ledger(url) as ledger:
        ledger.record_run(make_run())
    assert ended([start(work, url, folder, step, 60) for step in ("train", "serve")]) == [0, 0]
    with open_ledger(url) as ledger:
        done = import_folder(ledger, folder)
        assert (done.damaged, done.torn) == ((), ())
        assert count(ledger, "SELECT COUNT(*) FROM accounts") == 120
        assert count(ledger, "SELECT COUNT(*) FROM figures") == 240
        assert count(ledger, "SELECT COUNT(*) FROM events") == 120
        for step in ("train", "serve"):
            assert ledger.account("tiny", step, "measured").get("seconds", "total").value == 59


def test_processes_that_open_a_new_ledger_at_once_make_one(url):
    def issue(number):
        access.issue_key(open_ledger(url), f"key{number}", actor="test")

    assert forked(issue, 4) == [0] * 4
    with open_ledger(url) as ledger:
        names = sorted(key.name for key in access.kept_keys(ledger))
        assert names == ["key0", "key1", "key2", "key3"]


def test_kill_9_while_writing_keeps_each_acknowledged_account_whole(tmp_path):
    path, folder = tmp_path / "ledger.sqlite", tmp_path / "tiny"
    with open_ledger(path) as ledger:
        ledger.record_run(make_run())
    acknowledged = 0
    for _ in range(3):
        child, said = told(work, path, folder, "train", 10**6)
        with said:
            seen = [said.readline() for _ in range(15)]
            os.kill(child, signal.SIGKILL)
            acknowledged += len(seen) + len(said.readlines())
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with open_ledger(path) as ledger:
        kept = count(ledger, "SELECT COUNT(*) FROM accounts")
        assert acknowledged <= kept <= acknowledged + 3
        assert count(ledger, "SELECT COUNT(*) FROM figures") == 2 * kept
        assert count(ledger, "PRAGMA integrity_check") == "ok"
        import_folder(ledger, folder)
        assert count(ledger, "SELECT COUNT(*) FROM events") >= acknowledged


def test_an_account_is_written_whole_or_not_at_all(ledger, monkeypatch):
    ledger.record_run(make_run())
    rows = codec.rows(forecast())
    monkeypatch.setattr(codec, "rows", lambda account: [*rows, {**rows[0], "figure": "x",
                                                                "basis": None}])
    with pytest.raises(IntegrityError):
        ledger.record_account("tiny", "train", "forecast", forecast())
    assert ledger.account("tiny", "train", "forecast") is None


def test_both_databases_keep_the_same(url, tmp_path):
    with open_ledger(url) as ledger:
        ledger.record_run(make_run())
        ledger.record_run(make_run())
        with Writer(tmp_path / "tiny" / "metrics", "tiny") as writer:
            writer.write("step", {"text": "a\0b"})
            writer.write_account("train", "measured", forecast(3.0))
        assert import_folder(ledger, tmp_path / "tiny").lines == 2
        assert import_folder(ledger, tmp_path / "tiny").lines == 0
        ledger.record_account("tiny", "train", "forecast", forecast())
        assert ledger.account("tiny", "train", "forecast") == forecast()
        ((run, promised, kept),) = ledger.pairs(machine="EPYC")
        assert (run["name"], promised, kept) == ("tiny", forecast(), forecast(3.0))
        assert set(UNIT_OF) >= {section for section, _, _ in kept.lines()}
        secret = access.issue_key(ledger, "ann", actor="test")
        assert access.verify(ledger, secret).key == "ann"
        ledger.record_use("ann", "tiny", prompt_tokens=1, output_tokens=2, seconds=0.1)
        assert usage.used(ledger)[0].output_tokens == 2
        access.revoke_key(ledger, "ann", actor="test")
        assert access.verify(ledger, secret) is None
        assert [run.name for run in ledger.runs()] == ["tiny"]
