"""Several processes on one ledger: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from sqlalchemy.exc import IntegrityError

from curbcut.ledger import access, codec, open_ledger, usage
from curbcut.ledger.inbox import Writer, import_folder
from curbcut.spec import UNIT_OF
from ledger.samples import forecast, make_run

WORKER = """
import sys
from pathlib import Path
from curbcut.ledger import open_ledger
from curbcut.ledger.inbox import Writer, import_folder
from curbcut.spec import Account, measured
path, folder, step, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
writer = Writer(folder / "metrics", "tiny", step)
with open_ledger(path) as ledger:
    for n in range(count):
        writer.write("step", {"n": n})
        ledger.record_account("tiny", step, "measured", Account(
            seconds={"total": measured(n, "clock"), "steps": measured(n, "clock")}))
        print(n, flush=True)
        if n % 5 == 0:
            import_folder(ledger, folder)
"""


def start(path, folder, step, count):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(folder), step,
                             str(count)], stdout=subprocess.PIPE, text=True)


def count(ledger, query):
    with ledger.reading() as connection:
        return connection.exec_driver_sql(query).scalar()


@pytest.mark.slow
def test_two_processes_at_once_lose_nothing(url, tmp_path):
    folder = tmp_path / "tiny"
    with open_ledger(url) as ledger:
        ledger.record_run(make_run())
    workers = [start(url, folder, step, 60) for step in ("train", "serve")]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    for worker in workers:
        worker.stdout.close()
    with open_ledger(url) as ledger:
        done = import_folder(ledger, folder)
        assert (done.damaged, done.torn) == ((), ())
        assert count(ledger, "SELECT COUNT(*) FROM accounts") == 120
        assert count(ledger, "SELECT COUNT(*) FROM figures") == 240
        assert count(ledger, "SELECT COUNT(*) FROM events") == 120
        for step in ("train", "serve"):
            assert ledger.account("tiny", step, "measured").get("seconds", "total").value == 59


@pytest.mark.slow
def test_processes_that_open_a_new_ledger_at_once_make_one(url):
    code = ("import sys; from curbcut.ledger import access, open_ledger\n"
            "access.issue_key(open_ledger(sys.argv[1]), sys.argv[2], actor='test')")
    workers = [subprocess.Popen([sys.executable, "-c", code, url, f"key{n}"])
               for n in range(4)]
    assert [worker.wait(120) for worker in workers] == [0] * 4
    with open_ledger(url) as ledger:
        names = sorted(key.name for key in access.kept_keys(ledger))
        assert names == ["key0", "key1", "key2", "key3"]


@pytest.mark.slow
def test_kill_9_while_writing_keeps_each_acknowledged_account_whole(tmp_path):
    path, folder = tmp_path / "ledger.sqlite", tmp_path / "tiny"
    with open_ledger(path) as ledger:
        ledger.record_run(make_run())
    acknowledged = 0
    for _ in range(3):
        worker = start(path, folder, "train", 10**6)
        seen = [worker.stdout.readline() for _ in range(15)]
        worker.send_signal(signal.SIGKILL)
        acknowledged += len(seen) + len(worker.stdout.read().splitlines())
        worker.wait()
        worker.stdout.close()
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
        ((run, promised, measured),) = ledger.pairs(machine="EPYC")
        assert (run["name"], promised, measured) == ("tiny", forecast(), forecast(3.0))
        assert set(UNIT_OF) >= {section for section, _, _ in measured.lines()}
        secret = access.issue_key(ledger, "ann", actor="test")
        assert access.verify(ledger, secret).key == "ann"
        ledger.record_use("ann", "tiny", prompt_tokens=1, output_tokens=2, seconds=0.1)
        assert usage.used(ledger)[0].output_tokens == 2
        access.revoke_key(ledger, "ann", actor="test")
        assert access.verify(ledger, secret) is None
        assert [run.name for run in ledger.runs()] == ["tiny"]
