"""What all tests share: a home of their own, and one tiny corpus."""

from __future__ import annotations

import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at once

import pytest
from hypothesis import HealthCheck, settings

from curbcut.spec import TrainJob
from tiny import tiny_text

# No test is held to a clock: whatever else this computer does would fail it.
settings.register_profile("curbcut", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("curbcut")


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

    text = tmp_path_factory.mktemp("text")
    for i, document in enumerate(tiny_text()):
        (text / f"{i:03}.py").write_text(document)
    job = TrainJob(tokens=1000, text=str(text), validation_fraction=0.1)
    return prepare(job, 300, tmp_path_factory.mktemp("data"))
