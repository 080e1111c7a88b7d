"""A training whose process may not grow as far as the plan says it will, and one that just may."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest
from rich.console import Console

from curbcut.physics import memory
from curbcut.physics.memory_constants import memory_constants
from curbcut.plan import rules
from curbcut.plan.calibration import Correction, memory_spread
from curbcut.spec import Account, Resolved, modelled
from curbcut.train import folder
from curbcut.train.start import train_run
from tiny import tiny_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of data are Linux's")
SHAPE = {"layers": 2, "width": 768, "heads": 12, "kv_heads": 12, "head_size": 64, "ffn": 2048,
         "vocab": 2048}
RECIPE = {"checkpoint_every_steps": 100}


def bound(run):
    """Bytes that the plan says a run grows by once its libraries are there: middle and upper end.

    Writable memory is what a limit of data counts; a CPU's `context_bytes` are mostly libraries.
    """
    libraries = memory_constants("torch", "cpu").context_bytes
    step = memory.training(run.model, run.recipe, "cpu")["peak"]
    whole = rules.held_bytes(run.model, run.recipe, "cpu")["peak"]
    return step - libraries, whole * memory_spread(run.machine, Correction()) - libraries


def _limited(run, corpus, place, allowed, told):
    import resource

    held = int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("VmData"))) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + int(allowed), held + int(allowed)))
    try:
        done = train_run(Resolved(run, {}), Account(), corpus, place, Console(quiet=True))
        told.put(("ran", done.steps, ""))
    except BaseException as error:
        told.put((type(error).__name__, getattr(error, "what", str(error)),
                  getattr(error, "mend", "")))


def limited(run, corpus, place, allowed):
    """How a forked training ended that may grow by `allowed` bytes."""
    folder.claim(place, Resolved(run, {}), Account(seconds={"total": modelled(1.0, 2, "test")}))
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    child = context.Process(target=_limited, args=(run, corpus, place, allowed, told))
    child.start()
    found = told.get(timeout=100)
    child.join()
    return found


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    return tiny_run(steps=3, model=SHAPE, recipe=RECIPE)


def test_at_nine_tenths_of_the_plan_it_dies_with_one_message_and_three_levers(
        run, tiny_corpus, tmp_path):
    middle, _ = bound(run)
    kind, what, mend = limited(run, tiny_corpus, tmp_path / "small", 0.9 * middle)
    assert kind == "InputError"
    assert what.startswith("memory ran out; the plan is")
    assert mend.count("; or ") == 2


def test_at_the_upper_end_of_the_plan_it_runs(run, tiny_corpus, tmp_path):
    _, upper = bound(run)
    assert limited(run, tiny_corpus, tmp_path / "enough", upper) == ("ran", 3, "")
    assert (tmp_path / "enough/model/model.safetensors").is_file()


@pytest.mark.parametrize("where", ["open_session", "export"])
def test_building_and_the_export_say_it_too(run, tiny_corpus, tmp_path, monkeypatch, where):
    from curbcut.train import start

    def fail(*_a, **_k):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(start, where, fail)
    kind, what, mend = limited(tiny_run(steps=2), tiny_corpus, tmp_path / where, 1e9)
    assert (kind, what[:15]) == ("InputError", "memory ran out;")
    assert mend.count("; or ") == 2
