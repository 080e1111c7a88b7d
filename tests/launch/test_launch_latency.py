"""Late collectives: the plan's latency term moves as the steps of real ranks do.

Each collective is held up in user space. How often that happens a step is counted, so that the
seconds added do not depend on what else this computer does.
"""

from __future__ import annotations

import time as clock
from dataclasses import replace

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

import ranks
from curbcut.physics import constants, time
from tiny import tiny_machine, tiny_run

LATE_SECONDS = 0.002
LAYOUTS = {"dp": {"dp_replicate": 2}, "fsdp": {"dp_shard": 2}, "tp": {"tp": 2}}
SHAPE = {"layers": 4}


class Late(TorchDispatchMode):
    """Holds every collective up; counts them. (The dispatch mode is the only door that functional
    and process-group collectives both pass; torch's own CommDebugMode stands in it.)
    """

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func.name():
            self.count += 1
            clock.sleep(LATE_SECONDS)
        return func(*args, **(kwargs or {}))


def run_of(layout):
    machine = tiny_machine(accelerators_per_node=2, link_bytes_per_second=10**9)
    return tiny_run(steps=4, model=SHAPE, machine=machine, recipe={
        "global_batch": 4, "micro_batch": 2 if layout != "tp" else 4} | LAYOUTS[layout])


def _late(place, run, corpus):
    """Collectives a step, and the seconds that a late step takes more."""
    import tempfile
    from pathlib import Path

    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.loop import take_step
    from curbcut.train.session import open_session

    session = open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                           world=place)
    losses = [take_step(session).loss]
    late = Late()
    start = clock.perf_counter()
    with late:
        losses.append(take_step(session).loss)
    return late.count, clock.perf_counter() - start, losses


def planned(layout, monkeypatch, latency):
    """Seconds that the plan promises for a step where collectives begin so much later."""
    own = constants.of

    def later(*args, **kwargs):
        found = own(*args, **kwargs)
        return replace(found, link_latency=found.link_latency + latency)

    run = run_of(layout)
    with monkeypatch.context() as changed:
        changed.setattr(constants, "of", later)
        return time.step_seconds(run.model, run.recipe, run.machine).value


def test_late_collectives_cost_tensor_parallelism_most_in_the_plan_and_in_real_steps(
        tiny_corpus, monkeypatch):
    real, plan = {}, {}
    for layout in LAYOUTS:
        run = run_of(layout)
        told = ranks.spawn(_late, run.recipe, run, tiny_corpus)
        for count, seconds, _ in told:
            assert seconds >= count * LATE_SECONDS
        assert told[0][2] == pytest.approx(told[1][2])
        real[layout] = told[0][0] * LATE_SECONDS
        plan[layout] = (planned(layout, monkeypatch, LATE_SECONDS)
                        - planned(layout, monkeypatch, 0.0))
    assert sorted(real, key=real.__getitem__) == sorted(plan, key=plan.__getitem__), (real, plan)
    assert all(plan[one] > 0 for one in plan) and real["tp"] > real["fsdp"] > 0, (real, plan)
