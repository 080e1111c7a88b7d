from __future__ import annotations

import sqlite3

import pytest

import postgres
from curbcut.ledger import migrations, open_ledger, pepper, schema


@pytest.fixture(scope="session")
def postgres_server():
    """URL of a private PostgreSQL that lives as long as the tests; skips where there is none."""
    with postgres.server() as url:
        yield url


@pytest.fixture
def file_url(tmp_path):
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path, monkeypatch):
    """Where a new ledger can be made: a path of SQLite, then an empty database of PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    monkeypatch.setenv(pepper.VARIABLE, str(tmp_path / "pepper"))
    return postgres.emptied(request.getfixturevalue("postgres_server"))


@pytest.fixture
def new_ledger(url):
    """A new ledger at `url`, for tests that change its tables or open it twice."""
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture(scope="session")
def of_file(tmp_path_factory):
    """A ledger in a file, and what its file is like when it is new."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with open_ledger(path) as opened:
        fresh, now = sqlite3.connect(":memory:"), sqlite3.connect(path)
        now.backup(fresh)
        yield opened, now, fresh


@pytest.fixture(scope="session")
def of_postgres(postgres_server):
    """A ledger in a database of its own."""
    with open_ledger(postgres.new_database(postgres_server)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path, monkeypatch):
    """A ledger with nothing in it, on SQLite and again on PostgreSQL; made once, as that takes
    longer than most tests.
    """
    monkeypatch.setenv(pepper.VARIABLE, str(tmp_path / "pepper"))
    if request.param == "sqlite":
        opened, now, fresh = request.getfixturevalue("of_file")
        fresh.backup(now)
        return opened
    opened = request.getfixturevalue("of_postgres")
    names = ", ".join(name for name in schema.metadata.tables if name != schema.about.name)
    with opened.writing() as connection:
        # Without the guard of the audit chain.
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
        migrations.seed(connection)
    return opened


@pytest.fixture
def file_ledger(file_url):
    """A new ledger in a file, for what is of files only."""
    with open_ledger(file_url) as opened:
        yield opened
