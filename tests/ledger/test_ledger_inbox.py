from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import CurbcutError, InputError
from curbcut.ledger import inbox
from curbcut.ledger.inbox import Writer, import_folder
from ledger.samples import forecast, make_run, measurement


@pytest.fixture
def run_folder(tmp_path):
    return tmp_path / "runs" / "tiny"


@pytest.fixture
def writer(run_folder):
    with Writer(run_folder / "metrics", "tiny", "rank0", clock=lambda: 100.0) as opened:
        yield opened


def bodies(ledger, kind=""):
    return [event.body for event in ledger.events("tiny", kind)]


def test_what_is_written_is_imported_in_order(ledger, writer, run_folder):
    assert all(writer.write("step", {"step": i, "loss": 1 / (i + 1)}) for i in range(5))
    assert import_folder(ledger, run_folder).lines == 5
    found = ledger.events("tiny")
    assert [event.sequence for event in found] == list(range(5))
    assert found[2].body == {"step": 2, "loss": 1 / 3}
    assert {(event.process, event.time, event.kind) for event in found} == {
        (writer.process, 100.0, "step")}


def test_importing_again_takes_only_what_is_new(ledger, writer, run_folder):
    writer.write("step", {"n": 1})
    assert import_folder(ledger, run_folder).lines == 1
    assert import_folder(ledger, run_folder).lines == 0
    writer.write("step", {"n": 2})
    assert import_folder(ledger, run_folder).lines == 1
    assert bodies(ledger) == [{"n": 1}, {"n": 2}]


def test_more_lines_than_one_batch(ledger, writer, run_folder, monkeypatch):
    monkeypatch.setattr(inbox, "BATCH_LINES", 3)
    for i in range(10):
        writer.write("step", {"n": i})
    assert import_folder(ledger, run_folder).lines == 10
    assert bodies(ledger) == [{"n": i} for i in range(10)]


def test_a_torn_last_line_is_ignored_and_the_next_process_goes_on(ledger, writer, run_folder):
    writer.write("step", {"n": 1})
    with writer.path.open("ab") as file:
        file.write(b'{"run": "tiny", "process"')
    done = import_folder(ledger, run_folder)
    assert (done.lines, done.damaged, done.torn) == (1, (), (writer.path.name,))
    with Writer(run_folder / "metrics", "tiny", "rank0") as second:
        assert second.path != writer.path
        second.write("step", {"n": 2})
    assert import_folder(ledger, run_folder).lines == 1
    assert bodies(ledger) == [{"n": 1}, {"n": 2}]


def test_a_line_seen_half_written_is_taken_once_it_is_whole(ledger, writer, run_folder):
    writer.write("step", {"n": 1})
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[:-20])
    assert import_folder(ledger, run_folder).lines == 0
    writer.path.write_bytes(whole)
    assert import_folder(ledger, run_folder).lines == 1


def event_line(**changes):
    line = {"run": "tiny", "process": "p", "sequence": 0, "time": 1.0, "kind": "step", "body": {}}
    return json.dumps(line | changes).encode()


@pytest.mark.parametrize(("line", "reason"), [
    (b"{not json", "not JSON"), (b"\xff\xfe", "not JSON"), (b"", "not JSON"),
    (b"[" * 100_000, "not JSON"), (b"[]", "lacks a part"), (b"{}", "lacks a part"),
    (b'{"a": NaN}', "not JSON"), (b"9" * 5000, "not JSON"),
    (event_line(process="another"), "another process"), (event_line(kind="No"), "run or kind"),
    (event_line(run="a\0b"), "run or kind"), (event_line(run="\ud800"), "run or kind"),
    (event_line(sequence=-1), "sequence"), (event_line(sequence=True), "sequence"),
    (event_line(time="now"), "time"), (event_line(body=[]), "time or body"),
    (event_line(body={"x": "y" * inbox.MAX_LINE_BYTES}), "longer than"),
    (event_line(body={"x": 1e999}), "not JSON"),
])
def test_a_damaged_line_is_counted_and_said_and_the_rest_is_kept(ledger, run_folder, line, reason):
    folder = run_folder / "metrics"
    folder.mkdir(parents=True)
    good = event_line(body={"n": 1}) + b"\n"
    (folder / "p.jsonl").write_bytes(good + line + b"\n" + event_line(sequence=9) + b"\n")
    for expected in (2, 0):
        done = import_folder(ledger, run_folder)
        assert done.lines == expected
        (damage,) = done.damaged
        assert (damage.file, damage.offset_bytes) == ("p.jsonl", len(good))
        assert reason in damage.reason
    assert [event.sequence for event in ledger.events("tiny")] == [0, 9]


def test_an_overlong_line_without_an_end_is_torn_not_damaged(ledger, run_folder):
    folder = run_folder / "metrics"
    folder.mkdir(parents=True)
    (folder / "p.jsonl").write_bytes(event_line() + b"\n" + b"x" * (3 * inbox.MAX_LINE_BYTES))
    done = import_folder(ledger, run_folder)
    assert (done.lines, done.damaged, done.torn) == (1, (), ("p.jsonl",))


def test_a_file_that_became_shorter_is_said(ledger, writer, run_folder):
    writer.write("step")
    import_folder(ledger, run_folder)
    writer.path.write_bytes(b"")
    done = import_folder(ledger, run_folder)
    assert "shorter" in done.damaged[0].reason
    assert len(ledger.events("tiny")) == 1


def test_numbers_that_are_not_finite_are_kept_as_text(ledger, writer, run_folder):
    writer.write("step", {"loss": math.nan, "more": [math.inf, {"x": -math.inf}], "ok": 0.5})
    import_folder(ledger, run_folder)
    assert bodies(ledger) == [{"loss": "nan", "more": ["inf", {"x": "-inf"}], "ok": 0.5}]


def test_a_run_and_its_accounts_come_through_the_inbox(ledger, writer, run_folder):
    resolved = make_run()
    writer.write_run(resolved)
    writer.write_account("train", "forecast", forecast())
    writer.write_account("train", "measured", measurement(1.0), finished=False)
    writer.write_account("train", "measured", measurement(2.0))
    import_folder(ledger, run_folder)
    assert ledger.resolved("tiny") == resolved
    assert ledger.account("tiny", "train", "measured") == measurement(2.0)
    ((run, promised, measured),) = ledger.pairs()
    assert (run["name"], promised, measured) == ("tiny", forecast(), measurement(2.0))


def test_an_account_is_of_the_run_that_its_process_wrote(ledger, writer, run_folder):
    writer.write_run(make_run())
    writer.write_account("train", "measured", measurement())
    ledger.record_run(make_run(seed=1))
    import_folder(ledger, run_folder)
    assert ledger.account("tiny", "train", "measured") is None
    ledger.record_run(make_run())
    assert ledger.account("tiny", "train", "measured") == measurement()


def test_a_process_that_wrote_no_run_means_the_newest(ledger, writer, run_folder):
    ledger.record_run(make_run())
    writer.write_account("train", "measured", measurement())
    import_folder(ledger, run_folder)
    assert ledger.account("tiny", "train", "measured") == measurement()


def test_accounts_are_not_doubled_when_everything_is_read_again(ledger, writer, run_folder):
    writer.write_run(make_run())
    writer.write_account("train", "measured", measurement())
    import_folder(ledger, run_folder)
    with ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE inbox_files SET offset_bytes = 0")
    assert import_folder(ledger, run_folder).lines == 2
    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM accounts").scalar() == 1
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM events").scalar() == 2


@pytest.mark.parametrize(("kind", "body", "reason"), [
    ("account", {}, "is no account"),
    ("account", {"step": "train", "kind": "guess", "account": {}}, "no known kind"),
    ("account", {"step": "train", "kind": "measured", "account": {}, "finished": True,
                 "run_digest": ""}, "never recorded"),
    ("account", {"step": "a\0", "kind": "measured", "account": {}, "finished": True}, "NUL"),
    ("account", {"step": "\ud800", "kind": "measured", "account": {}, "finished": True},
     "is no account"),
    ("run", {"run": {"name": "tiny"}, "origins": {}}, "is no run"),
    ("run", {"run": 3, "origins": {}}, "is no run"),
])
def test_a_noun_that_cannot_be_taken_is_said_and_its_line_kept(ledger, writer, run_folder, kind,
                                                              body, reason):
    writer.write(kind, body)
    done = import_folder(ledger, run_folder)
    assert reason in done.damaged[0].reason
    assert bodies(ledger) == [body]


def test_a_run_line_for_another_run_is_not_taken(ledger, writer, run_folder):
    writer.write_run(make_run(name="other"))
    assert "another name" in import_folder(ledger, run_folder).damaged[0].reason
    assert ledger.runs() == []


def test_a_full_disk_delays_lines_and_loses_none(ledger, writer, run_folder, monkeypatch):
    real, room = os.write, [30]

    def nearly_full(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = real(descriptor, bytes(data[:room[0]]))
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", nearly_full)
    assert writer.write("step", {"n": 1}) is False
    assert writer.write("step", {"n": 2}) is False
    done = import_folder(ledger, run_folder)
    assert (done.lines, done.damaged) == (0, ())
    room[0] = 10**6
    assert writer.write("step", {"n": 3}) is True
    assert import_folder(ledger, run_folder).damaged == ()
    assert bodies(ledger) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_disk_that_stays_full_is_an_error_at_last(writer, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        patched.setattr(inbox, "MAX_BACKLOG_BYTES", 400)
        with pytest.raises(CurbcutError, match="full for too long"):
            for _ in range(10):
                writer.write("step", {"text": "x" * 50})
        with pytest.raises(CurbcutError, match="No space left"):
            writer.close()
    assert writer.path.read_bytes() == b""


def test_what_no_reader_would_take_is_refused_at_once(writer):
    with pytest.raises(ValueError, match="no kind"):
        writer.write("Not A Kind", {})
    with pytest.raises(ValueError, match="too long"):
        writer.write("step", {"text": "x" * inbox.MAX_LINE_BYTES})
    with pytest.raises(TypeError):
        writer.write("step", {"what": object()})
    writer.write("step")
    assert json.loads(writer.path.read_bytes())["sequence"] == 0


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Writer(tmp_path / "file" / "metrics", "tiny")


def test_a_name_from_outside_makes_no_path(tmp_path):
    with Writer(tmp_path / "metrics", "tiny", "../../etc/x") as writer:
        assert writer.path.parent == tmp_path / "metrics"


@given(cut=st.integers(min_value=0, max_value=10_000))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_anywhere_gives_each_line_before_the_cut(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    with Writer(folder, "tiny", clock=lambda: 1.0) as writer:
        for i in range(20):
            writer.write("step", {"n": i})
    data = writer.path.read_bytes()
    cut %= len(data) + 1
    writer.path.write_bytes(data[:cut])
    batch = inbox.read_batch(writer.path, 0)
    assert len(batch.events) == data[:cut].count(b"\n")
    assert batch.damaged == ()
    assert batch.torn == (cut > 0 and data[cut - 1:cut] != b"\n")


KILLED = """
import sys
from pathlib import Path
from curbcut.ledger.inbox import Writer
writer = Writer(Path(sys.argv[1]), "tiny", "rank0")
n = 0
while True:
    if writer.write("step", {"n": n, "text": "x" * (n % 700)}):
        print(n, flush=True)
    n += 1
"""


def test_kill_9_loses_no_acknowledged_line(ledger, run_folder):
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(run_folder / "metrics")],
                                   stdout=subprocess.PIPE, text=True)
        seen = [int(process.stdout.readline()) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        seen += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        before = len(ledger.events("tiny"))
        done = import_folder(ledger, run_folder)
        assert done.damaged == ()
        assert len(ledger.events("tiny")) - before >= len(seen)
    by_process = {}
    for event in ledger.events("tiny"):
        by_process.setdefault(event.process, []).append(event.sequence)
    assert len(by_process) == 3
    assert all(numbers == list(range(len(numbers))) for numbers in by_process.values())
