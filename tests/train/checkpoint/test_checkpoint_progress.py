"""Which runs may take up a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

from hypothesis import given
from hypothesis import strategies as st

from curbcut.spec import Recipe
from curbcut.train.checkpoint import progress
from tiny import tiny_machine, tiny_run

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(0), st.lists(numbers, max_size=4), st.dictionaries(st.text(), numbers),
       st.none() | numbers)
def test_progress_survives_json(step, losses, seconds, joules):
    before = progress.Progress(step, step, tuple(losses), 1, seconds, joules, 2)
    assert progress.from_plain(json.loads(json.dumps(asdict(before)))) == before


def test_the_layout_of_ranks_is_no_part_of_a_runs_identity():
    run = tiny_run()
    spread = replace(run, recipe=replace(run.recipe, dp_shard=2, tp=2, micro_batch=1,
                                         recompute="full"),
                     machine=tiny_machine(accelerators_per_node=4), name="other")
    assert progress.identity(run) == progress.identity(spread)


def test_what_decides_the_weights_is():
    run = tiny_run()
    others = [replace(run, seed=2), tiny_run(steps=7), tiny_run(model={"width": 64}),
              tiny_run(recipe={"global_batch": 8}), tiny_run(recipe={"learning_rate": 1e-3}),
              tiny_run(recipe={"optimiser": "muon"}), tiny_run(recipe={"precision": "bf16"})]
    found = {progress.identity(one) for one in [run, *others]}
    assert len(found) == len(others) + 1


def test_every_field_of_the_layout_is_one_of_the_recipe():
    assert {field.name for field in fields(Recipe)} >= progress.LAYOUT
