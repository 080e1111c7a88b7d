from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from curbcut.errors import CurbcutError, DamagedFile, InputError
from curbcut.ledger import engine, kept_pairs, open_ledger, schema
from ledger.samples import forecast, make_run


def pragma(ledger, name):
    with ledger.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_is_in_wal_waits_and_holds_references(file_ledger):
    assert pragma(file_ledger, "journal_mode") == "wal"
    assert pragma(file_ledger, "busy_timeout") == engine.BUSY_SECONDS * 1000
    assert pragma(file_ledger, "foreign_keys") == 1
    assert pragma(file_ledger, "synchronous") == 2  # FULL


def test_a_newer_version_is_refused(new_ledger, url):
    with new_ledger.writing() as connection:
        connection.execute(schema.about.insert().values(version=schema.VERSION + 1, created=0.0))
    with pytest.raises(InputError, match="upgrade"):
        open_ledger(url)


@pytest.mark.parametrize("content", [b"this is no database at all" * 100,
                                     b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"ledger\.sqlite"):
        open_ledger(path)
    with pytest.raises(DamagedFile, match=r"ledger\.sqlite"):
        kept_pairs(path)
    assert path.read_bytes() == content


def test_damage_found_later_is_the_same_clear_error(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with open_ledger(path) as ledger:
        ledger.record_run(make_run())
        for _ in range(20):
            ledger.record_account("tiny", "train", "forecast", forecast())
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(page, len(data), page):
        data[start:start + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(DamagedFile), open_ledger(path) as ledger:
        ledger.account("tiny", "train", "forecast")


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE runs (title TEXT)")
    other.commit()
    other.close()
    with pytest.raises(DamagedFile, match="something else"):
        open_ledger(path)


def error_as_nobody(path):
    """What opening the ledger says to a user who may not write there (root may write anywhere)."""
    receiver, sender = os.pipe()
    if os.fork() == 0:
        os.close(receiver)
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            open_ledger(path)
            said = "opened"
        except BaseException as error:
            said = f"{type(error).__name__} {error}"
        os.write(sender, said.encode())
        os._exit(0)
    os.close(sender)
    os.wait()
    with os.fdopen(receiver) as answer:
        return answer.read()


def test_a_folder_without_write_permission_is_one_clear_error():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_ledger(folder / "ledger.sqlite") as ledger:
            ledger.record_run(make_run())
        folder.chmod(0o555)
        for path in (folder / "ledger.sqlite", folder / "new.sqlite"):
            said = error_as_nobody(path)
            assert said.startswith("InputError")
            assert str(path) in said
            assert "help: give yourself write permission" in said
        folder.chmod(0o755)


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        open_ledger(tmp_path)


@pytest.mark.parametrize(("url", "word"), [("mysql://x/y", "mysql"), ("://", "URL")])
def test_a_url_of_another_kind_is_refused(url, word):
    with pytest.raises(InputError, match=word):
        open_ledger(url)


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(CurbcutError) as caught:
        open_ledger("postgresql://ann:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)
    assert "help:" in str(caught.value)


def test_importing_the_room_and_the_inbox_does_not_import_sqlalchemy():
    code = ("import sys, curbcut.ledger, curbcut.ledger.inbox, curbcut.ledger.codec\n"
            "sys.exit('sqlalchemy' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
