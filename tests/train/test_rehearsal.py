from __future__ import annotations

import pytest

from curbcut.physics import time
from curbcut.train import rehearsal
from tiny import tiny_machine, tiny_run

LARGE = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_size": 128, "ffn": 14336,
         "vocab": 32000}


def test_what_fits_a_minute_keeps_its_model():
    run = tiny_run(steps=5000)
    small = rehearsal.of(run)
    assert small.run.model == run.model
    assert small.run.steps <= rehearsal.MOST_STEPS
    assert small.run.name == "tiny-rehearsal"
    assert rehearsal.is_rehearsal(small.run)
    assert not rehearsal.is_rehearsal(run)
    assert small.run.limits.seconds == 60


@pytest.mark.parametrize("degrees", [{}, {"tp": 2}, {"pp": 4}, {"pp": 2, "virtual_stages": 2},
                                     {"cp": 2, "context": "ulysses"}], ids=str)
def test_a_large_model_is_shrunk_and_the_layout_stays(degrees):
    run = tiny_run(steps=5000, model=LARGE, recipe=degrees,
                   machine=tiny_machine(memory_bytes=2**36))
    small = rehearsal.of(run)
    stages = run.recipe.pp * run.recipe.virtual_stages
    assert small.run.model.layers < run.model.layers
    assert small.run.model.layers % stages == 0
    assert small.run.model.heads % small.run.model.kv_heads == 0
    assert small.run.model.head_size == run.model.head_size
    for name in ("tp", "pp", "cp", "ep", "dp_shard", "precision", "micro_batch", "global_batch"):
        assert getattr(small.run.recipe, name) == getattr(run.recipe, name)
    each = time.step_seconds(small.run.model, small.run.recipe, small.run.machine).value
    assert each * rehearsal.LEAST_STEPS <= rehearsal.STEPPING_SECONDS
    assert f"layers 32 -> {small.run.model.layers}" in small.shrunk
    assert "5,000 steps ->" in small.shrunk


def test_a_rehearsal_looks_at_a_part_of_the_text_only(opened):
    from curbcut.train import ending

    run = tiny_run()
    whole, part = opened(run), opened(rehearsal.of(run).run)
    assert ending.last_evaluation(part, 1.0) < ending.last_evaluation(whole, 1.0)
