"""Which runs may take up a checkpoint."""

from __future__ import annotations

from dataclasses import fields, replace

from curbcut.spec import Recipe
from curbcut.train.identity import LAYOUT, identity
from tiny import tiny_machine, tiny_run


def test_the_layout_of_ranks_is_no_part_of_a_runs_identity():
    run = tiny_run()
    spread = replace(run, recipe=replace(run.recipe, dp_shard=2, tp=2, micro_batch=1,
                                         recompute="full"),
                     machine=tiny_machine(accelerators_per_node=4), name="other")
    assert identity(run) == identity(spread)


def test_what_decides_the_weights_is():
    run = tiny_run()
    others = [replace(run, seed=2), tiny_run(steps=7), tiny_run(model={"width": 64}),
              tiny_run(recipe={"global_batch": 8}), tiny_run(recipe={"learning_rate": 1e-3}),
              tiny_run(recipe={"optimiser": "muon"}), tiny_run(recipe={"precision": "bf16"})]
    found = {identity(one) for one in [run, *others]}
    assert len(found) == len(others) + 1


def test_every_field_of_the_layout_is_one_of_the_recipe():
    assert {field.name for field in fields(Recipe)} >= LAYOUT
