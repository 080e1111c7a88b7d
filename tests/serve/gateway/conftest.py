"""Ledgers of both kinds."""

import pytest

import postgres
from curbcut.ledger import open_ledger, pepper


@pytest.fixture(scope="session")
def postgres_server():
    """URL of a private PostgreSQL; skips where there is none."""
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path, monkeypatch):
    """A new ledger, on SQLite and again on PostgreSQL."""
    where = str(tmp_path / "ledger.sqlite")
    if request.param == "postgresql":
        monkeypatch.setenv(pepper.VARIABLE, str(tmp_path / "pepper"))
        where = postgres.new_database(request.getfixturevalue("postgres_server"))
    with open_ledger(where) as opened:
        yield opened
