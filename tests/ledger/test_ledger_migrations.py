"""A ledger of the first version, made by its own tables, becomes one of this version."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
import sqlalchemy as sa

from curbcut.errors import DamagedFile
from curbcut.ledger import (
    access,
    audit,
    engine,
    holds,
    keys,
    migrations,
    open_ledger,
    schema,
    usage,
)
from ledger import first_schema as first
from ledger.accounts import set_budget, standing, taken, wanted


@pytest.fixture
def old(url):
    """Where such a ledger is, and the secret of its one key."""
    id_, secret = keys.new_secret()
    salt, now = secrets.token_hex(16), time.time()
    target = f"sqlite:///{url}" if "://" not in url else url.replace("ql:", "ql+psycopg:")
    raw = sa.create_engine(target)
    with raw.begin() as connection:
        first.metadata.create_all(connection)
        connection.execute(first.about.insert().values(version=1, created=now))
        connection.execute(first.runs.insert().values(
            name="tiny", digest="d", machine="here", accelerator="EPYC", recorded=now))
        for name, when, key in (("ann", now - 9, "0" * 8), ("ann", now - 5, id_)):
            connection.execute(first.keys.insert().values(
                id=key, name=name, salt=salt, hash=keys.hashed(secret, salt), created=when,
                revoked=None if key == id_ else now - 6))
        for name, when in (("ann", now - 8), ("ann", now - 2), (None, now)):
            connection.execute(first.uses.insert().values(
                key=name, model="tiny", prompt_tokens=3, output_tokens=4, seconds=0.5, time=when))
    raw.dispose()
    return url, secret


def layout(connection):
    seen = sa.inspect(connection)
    return {table: ({column["name"]: (str(column["type"]), column["nullable"])
                     for column in seen.get_columns(table)},
                    {index["name"] for index in seen.get_indexes(table)})
            for table in seen.get_table_names()}


def test_all_that_was_there_stays_and_opens(old):
    url, secret = old
    with open_ledger(url) as ledger:
        caller = access.verify(ledger, secret)
        assert (caller.key, caller.project, caller.role) == ("ann", "default", "user")
        assert [run.name for run in ledger.runs()] == ["tiny"]
        assert [(use.key, use.key_id, use.requests) for use in usage.used(ledger)] == [
            (None, None, 1), ("ann", "0" * 8, 1), ("ann", caller.key_id, 1)]
        with ledger.reading() as connection:
            found = connection.execute(sa.select(schema.uses.c.key_id, schema.uses.c.project)
                                       .order_by(schema.uses.c.time)).all()
            assert connection.scalar(sa.func.max(schema.about.c.version)) == schema.VERSION
    assert found == [("0" * 8, "default"), (caller.key_id, "default"), (None, None)]


def test_it_has_the_tables_of_a_new_one_and_works_as_one(old, tmp_path):
    url, secret = old
    with open_ledger(url) as ledger, open_ledger(tmp_path / "new.sqlite") as new:
        with ledger.reading() as one, new.reading() as other:
            was, made = layout(one), layout(other)
        assert set(was) == set(made)
        if "://" not in url:
            assert was == made
        caller = access.verify(ledger, secret)
        set_budget(ledger, caller.scopes[2], 20, "tokens")
        assert standing(ledger, caller.scopes[2], "tokens") == (7, 0, 13)
        server = holds.open_server(ledger)
        holds.settle(ledger, holds.hold(ledger, server, wanted(caller, 9)), taken(5))
        assert standing(ledger, caller.scopes[2], "tokens") == (12, 0, 8)
        assert access.verify(ledger, access.rotate_key(ledger, "ann", actor="test")).key == "ann"
        assert audit.verify(ledger).rows == 2
    with open_ledger(url) as again:
        assert len(access.kept_keys(again)) == 3


def test_two_that_open_it_at_once_both_find_it_new(old):
    url, secret = old
    found, faults = [], []

    def look():
        try:
            with open_ledger(url) as ledger:
                found.append(access.verify(ledger, secret).key)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, faults) == (["ann"] * 6, [])


def test_what_fails_in_the_middle_leaves_it_as_it_was(old, monkeypatch):
    url, secret = old
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_place_uses", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_ledger(url)
    with monkeypatch.context() as patched:  # nothing of it is there: the step can be taken again
        patched.setattr(engine.schema, "VERSION", 1)
        with open_ledger(url) as ledger, ledger.reading() as connection:
            assert "uses" in layout(connection) and "holds" not in layout(connection)
    with open_ledger(url) as ledger:
        assert access.verify(ledger, secret).key == "ann"


def test_tables_of_this_name_that_say_no_version_are_left_alone(old):
    url, _ = old
    raw = sa.create_engine(f"sqlite:///{url}" if "://" not in url
                           else url.replace("ql:", "ql+psycopg:"))
    with raw.begin() as connection:
        connection.execute(first.about.delete())
    raw.dispose()
    with pytest.raises(DamagedFile, match="version"):
        open_ledger(url)
