from __future__ import annotations

import pytest

import postgres
from curbcut.ledger import open_ledger, pepper


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


@pytest.fixture
def file_ledger(file_url):
    """A new ledger in a file, for what is of files only."""
    with open_ledger(file_url) as opened:
        yield opened
