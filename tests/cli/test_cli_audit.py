"""The audit chain at the command line."""

import json
import sqlite3

import pytest

from curbcut.cli.main import main
from curbcut.ledger import access, open_ledger


@pytest.fixture
def runs(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        for name in ("a", "b", "c"):
            access.create_organisation(ledger, name, actor="cli:ann")
        access.issue_key(ledger, "bob", actor="cli:ann")
    return tmp_path


def call(capsys, runs, *arguments):
    code = main(["audit", *arguments, "--runs", str(runs)])
    said = capsys.readouterr()
    return code, said.out, said.err


def tamper(runs, *statements):
    """Changes the file as its owner could, round the triggers."""
    with sqlite3.connect(runs / "ledger.sqlite") as file:
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"
                                    ).fetchall():
            file.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            file.execute(statement)


def test_a_whole_chain_says_its_head_which_is_found_again(capsys, runs):
    code, out, _ = call(capsys, runs, "verify")
    assert code == 0 and out.startswith("4 rows are sound; head ")
    head = out.split()[-1]
    assert call(capsys, runs, "verify", "--head", head)[0] == 0
    told = json.loads(call(capsys, runs, "verify", "--json")[1])
    assert told == {"sound": True, "rows": 4, "head": head, "fault": ""}


@pytest.mark.parametrize(("statement", "fault"), [
    ("UPDATE audit SET actor = 'cli:eve' WHERE sequence = 2", "row 2 is not what was written"),
    ("DELETE FROM audit WHERE sequence = 3", "row 3 is missing")])
def test_a_broken_chain_is_exit_code_1_and_says_where(capsys, runs, statement, fault):
    tamper(runs, statement)
    code, out, err = call(capsys, runs, "verify")
    assert (code, out) == (1, "") and fault in err
    code, out, _ = call(capsys, runs, "verify", "--json")
    assert code == 1 and json.loads(out)["fault"] == fault


def test_a_cut_is_found_by_the_head_that_was_noted(capsys, runs):
    head = json.loads(call(capsys, runs, "verify", "--json")[1])["head"]
    tamper(runs, "DELETE FROM audit WHERE sequence = 4")
    assert call(capsys, runs, "verify")[0] == 0
    code, _, err = call(capsys, runs, "verify", "--head", head)
    assert code == 1 and head[:12] in err


def test_rows_are_listed_newest_or_from_one_on(capsys, runs):
    code, out, _ = call(capsys, runs, "list")
    assert code == 0 and "organisation.created" in out and "key.issued" in out
    assert "name bob" in out and "role user" in out
    rows = json.loads(call(capsys, runs, "list", "--limit", "2", "--json")[1])
    assert [row["sequence"] for row in rows] == [3, 4]
    rows = json.loads(call(capsys, runs, "list", "--after", "1", "--limit", "2", "--json")[1])
    assert [row["sequence"] for row in rows] == [2, 3]
    assert call(capsys, runs, "list", "--after", "9")[1] == "no rows after 9\n"


@pytest.mark.parametrize("arguments", [
    ("verify", "--head", "abc"), ("list", "--limit", "0"), ("list", "--after", "-1"),
    ("list", "--format", "xml")])
def test_what_cannot_be_asked(capsys, runs, arguments):
    code, out, err = call(capsys, runs, *arguments)
    assert (code, out) == (2, "") and "help:" in err
