from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from curbcut.ledger import access, audit, schema
from curbcut.ledger.access import Allowance


@pytest.fixture
def chain(new_ledger):
    """A ledger with six rows in its chain."""
    for name in ("ann", "bob", "cem"):
        access.issue_key(new_ledger, name, actor="boss", owner="Zoë")
    access.set_allowance(new_ledger, "project:default", Allowance(weight=0.1), actor="boss")
    access.revoke_key(new_ledger, "bob", actor="boss")
    access.rotate_key(new_ledger, "ann", actor="boss")
    return new_ledger


def disarm(connection):
    """Takes the guards away, as somebody with the whole database in hand can."""
    if connection.dialect.name == "sqlite":
        for word in ("update", "delete"):
            connection.exec_driver_sql(f"DROP TRIGGER audit_{word}")
    else:
        connection.exec_driver_sql("DROP TRIGGER audit_stays ON audit")


def tamper(ledger, *statements):
    with ledger.writing() as connection:
        disarm(connection)
        for statement in statements:
            connection.exec_driver_sql(statement)
    return audit.verify(ledger)


def test_a_chain_is_sound_and_tells_who_did_what(chain):
    verdict = audit.verify(chain)
    assert (verdict.rows, verdict.fault) == (6, "")
    rows = audit.entries(chain)
    assert verdict.head == rows[-1].hash
    assert [row.action for row in rows[3:]] == ["allowance.set", "key.revoked", "key.rotated"]
    assert rows[0].body["owner"] == "Zoë" and rows[3].body["weight"] == 0.1
    assert audit.verify(chain, rows[2].hash).fault == ""
    assert [row.sequence for row in audit.entries(chain, after=2, limit=2)] == [3, 4]


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET actor = 'eve' WHERE sequence = 2", "DELETE FROM audit WHERE sequence = 6",
    "DELETE FROM audit"])
def test_the_database_itself_refuses_changes(chain, statement):
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), chain.writing() as connection:
        connection.exec_driver_sql(statement)
    assert audit.verify(chain).rows == 6


def test_not_even_all_of_it_at_once_can_go(chain):
    with chain.reading() as connection:
        if connection.dialect.name == "sqlite":
            pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(sa.exc.IntegrityError), chain.writing() as connection:
        connection.exec_driver_sql("TRUNCATE audit")


@pytest.mark.parametrize("column", ["time", "actor", "action", "subject", "body", "previous",
                                    "hash"])
def test_an_edited_row_is_found(chain, column):
    value = "1" if column == "time" else "'x'"
    verdict = tamper(chain, f"UPDATE audit SET {column} = {value} WHERE sequence = 3")
    assert verdict.rows == 2 and "row 3" in verdict.fault


def test_a_deleted_row_is_found(chain):
    assert tamper(chain, "DELETE FROM audit WHERE sequence = 4").fault == "row 4 is missing"


def test_a_row_that_was_put_in_is_found(chain):
    verdict = tamper(chain, "UPDATE audit SET sequence = 7 WHERE sequence = 6",
                     "INSERT INTO audit SELECT 6, time, actor, action, subject, body, previous, "
                     "hash FROM audit WHERE sequence = 5")
    assert verdict.rows == 5 and "row 6" in verdict.fault


def test_rows_that_changed_places_are_found(chain):
    verdict = tamper(chain, "UPDATE audit SET sequence = 99 WHERE sequence = 2",
                     "UPDATE audit SET sequence = 2 WHERE sequence = 3",
                     "UPDATE audit SET sequence = 3 WHERE sequence = 99")
    assert verdict.rows == 1 and "row 2" in verdict.fault


def test_cut_rows_are_found_by_who_kept_the_head(chain):
    head = audit.verify(chain).head
    assert tamper(chain, "DELETE FROM audit WHERE sequence > 4").fault == ""
    assert "gone" in audit.verify(chain, head).fault
    with chain.writing() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
    assert "gone" in audit.verify(chain, head).fault


def test_a_chain_made_anew_with_right_hashes_is_found_by_the_head(chain):
    head = audit.verify(chain).head
    assert tamper(chain, "DELETE FROM audit").rows == 0
    access.revoke_key(chain, "cem", actor="boss")
    assert audit.verify(chain).fault == "" and "gone" in audit.verify(chain, head).fault


def test_what_fails_leaves_no_row(ledger):
    with pytest.raises(ZeroDivisionError), ledger.writing() as connection:
        audit.append(connection, "boss", "x", "y")
        raise ZeroDivisionError
    assert audit.verify(ledger).rows == 0


def test_many_append_at_once_and_the_chain_is_one(ledger):
    def work(who):
        for n in range(6):
            with ledger.writing() as connection:
                audit.append(connection, f"actor{who}", "did", f"thing:{n}", {"n": n})

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = audit.verify(ledger)
    assert (verdict.rows, verdict.fault) == (48, "")
    with ledger.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.audit)) == 48
