"""What all tests share: a home of their own, and one tiny corpus."""

from __future__ import annotations

import fcntl
import itertools
import os
import sqlite3

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at once

import pytest
from hypothesis import HealthCheck, settings

import postgres
from curbcut.spec import TrainJob
from tiny import write_documents

# No test is held to a clock: whatever else this computer does would fail it.
settings.register_profile("curbcut", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("curbcut")


FORKING = ("train", "launch", "physics")
"""Folders whose tests fork ranks: a fork of a worker that has served models, and has grown to
gigabytes and threads, takes many times as long."""


def pytest_collection_modifyitems(config, items):
    """Those that fork go first."""
    place = config.rootpath / "tests"
    items.sort(key=lambda item: item.path.relative_to(place).parts[0] not in FORKING)


@pytest.fixture(scope="session")
def turns(tmp_path_factory):
    """Two files that all workers of pytest-xdist lock: each has a folder beside the others'."""
    own = tmp_path_factory.getbasetemp()
    place = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (place / "door.lock").open("w") as door, (place / "room.lock").open("w") as room:
        yield door, room


@pytest.fixture(autouse=True)
def turn(turns, request):
    """A test that is marked `alone` has the computer to itself: the others share the room. Whoever
    waits for the room stands in the door, so that nobody can overtake.
    """
    door, room = turns
    fcntl.flock(door, fcntl.LOCK_EX)
    fcntl.flock(room, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
    fcntl.flock(door, fcntl.LOCK_UN)
    yield
    fcntl.flock(room, fcntl.LOCK_UN)


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """Paths of new folders. Counted here: `mktemp` reads all that is there for the next number."""
    place = tmp_path_factory.mktemp("homes")
    return (place / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_home(homes, monkeypatch):
    """No test reads or writes the user's kept probe, facts or sensors."""
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("CURBCUT_HOME", str(home))
    monkeypatch.setenv("CURBCUT_FACTS", str(home / "facts"))
    return home


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    from curbcut.data import prepare

    text = write_documents(tmp_path_factory.mktemp("text"))
    job = TrainJob(tokens=1000, text=str(text), validation_fraction=0.1)
    return prepare(job, 300, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def postgres_server():
    """URL of a private PostgreSQL that lives as long as the tests; skips where there is none."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def of_file(tmp_path_factory):
    """A ledger in a file, and what its file is like when it is new."""
    from curbcut.ledger import open_ledger

    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with open_ledger(path) as opened:
        fresh, now = sqlite3.connect(":memory:"), sqlite3.connect(path)
        now.backup(fresh)
        yield opened, now, fresh
        for one in (now, fresh):
            one.close()


@pytest.fixture(scope="session")
def of_postgres(postgres_server):
    """A ledger in a database of its own."""
    from curbcut.ledger import open_ledger

    with open_ledger(postgres.new_database(postgres_server)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path, monkeypatch):
    """A ledger with nothing in it, on SQLite and again on PostgreSQL; made once, as that takes
    longer than most tests.
    """
    from curbcut.ledger import pepper

    monkeypatch.setenv(pepper.VARIABLE, str(tmp_path / "pepper"))
    if request.param == "sqlite":
        opened, now, fresh = request.getfixturevalue("of_file")
        fresh.backup(now)
        return opened
    return postgres.cleared(request.getfixturevalue("of_postgres"))
