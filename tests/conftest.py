"""What all tests share: a home of their own, and one tiny corpus."""

from __future__ import annotations

import fcntl
import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at once

import pytest
from hypothesis import HealthCheck, settings

from curbcut.spec import TrainJob
from tiny import write_documents

# No test is held to a clock: whatever else this computer does would fail it.
settings.register_profile("curbcut", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("curbcut")


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
