"""Other machines and other cuts: the same work, never more accelerators, always valid and fitting.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.facts import accelerators
from curbcut.plan.levers import hardware, partition
from curbcut.plan.levers.case import (
    Aim,
    Case,
    Refusal,
    as_ruled,
    differences,
    ruled_steps,
    step_seconds,
)
from curbcut.plan.levers.price import unit
from curbcut.spec import checks
from plan.plan_lever_samples import aim, fleet
from tiny import tiny_run

LEVERS = (hardware.newer_chip, hardware.other_accelerator, hardware.fewer_accelerators)
LEARNING = ("sequence_tokens", "global_batch", "optimiser", "learning_rate", "schedule",
            "warmup_fraction", "decay_fraction")


@pytest.fixture(scope="module")
def case():
    return Case(fleet("8xA100", "10B", "llama-3.2-1b"))


def chip_of(run):
    return accelerators.accelerator(run.machine.accelerator)


@pytest.mark.parametrize("name", ["usd", "kwh"])
@pytest.mark.parametrize("lever", LEVERS)
def test_the_same_is_learnt_on_no_more_accelerators(case, lever, name):
    found = lever(case, aim(name, 10.0))
    run = found.run
    checks.recipe(run.model, run.recipe, run.machine)
    assert found.fits() and run.machine.accelerators <= case.run.machine.accelerators
    for field in LEARNING:
        assert getattr(run.recipe, field) == getattr(case.run.recipe, field), field
    assert (run.model, run.train, run.place) == (case.run.model, case.run.train, case.run.place)
    assert found.changed[0] == f"machine: {case.run.machine.name} -> {run.machine.name}"


def test_a_newer_chip_is_a_later_one_of_the_same_maker_and_another_is_none(case):
    mine = chip_of(case.run)
    newer = chip_of(hardware.newer_chip(case, aim(slower=10.0)).run)
    assert newer.vendor == mine.vendor and newer.release_date > mine.release_date
    other = chip_of(hardware.other_accelerator(case, aim("kwh", 10.0)).run)
    assert other.id != mine.id
    assert other.vendor != mine.vendor or other.release_date <= mine.release_date


def test_fewer_are_of_the_same_kind_and_a_part_of_the_machine(case):
    found = hardware.fewer_accelerators(case, aim("kwh", 20.0))
    assert found.run.machine.accelerator == case.run.machine.accelerator
    assert case.run.machine.accelerators / found.run.machine.accelerators in hardware.FEWER
    one = Case(fleet("1xH100", "1B", "llama-3.2-1b"))
    assert hardware.fewer_accelerators(one, aim()).why == "one accelerator is the least"


def test_an_accelerator_of_ones_own_has_no_later_one():
    mine = Case(tiny_run())
    for lever in LEVERS[:2]:
        assert lever(mine, aim("hours")).why == "test CPU is no accelerator of the facts"


def test_no_machine_is_taken_that_nobody_prices(case):
    never = Aim(unit("usd"), lambda one: float("inf"))
    for lever in LEVERS:
        found = lever(case, never)
        assert isinstance(found, Refusal)
        assert "priced" in found.why or "take too long" in found.why


def test_a_chip_that_the_model_does_not_fit_is_passed_over():
    large = Case(fleet("64xH100", "1B", "llama-3-70b"))
    assert hardware.on(large, accelerators.accelerator("rtx-3060-12gb"), 1) is None
    found = hardware.on(large, accelerators.accelerator("B200"), 32)
    assert found is not None and found.fits()


def test_a_format_that_another_chip_lacks_becomes_the_next_wider_one(case):
    narrow = Case(fleet("8xH100", "10B", "llama-3.2-1b")).with_recipe(precision="fp8")
    found = hardware.on(narrow, accelerators.accelerator("a100-sxm-80gb"), 8)
    assert found.run.recipe.precision == "bf16"
    kept = hardware.on(narrow, accelerators.accelerator("B200"), 8)
    assert kept.run.recipe.precision == "fp8"


def test_a_rate_of_ones_own_does_not_move_to_another_chip():
    own = Case(fleet("8xA100", "10B", "llama-3.2-1b")).with_place(usd_per_accelerator_hour=0.01)
    chip = accelerators.accelerator("h100-sxm-80gb")
    assert hardware.on(own, chip, 8).run.place.usd_per_accelerator_hour == 0.0
    cheapest = replace(own, taken=frozenset({"cheapest-provider"}))
    assert hardware.on(cheapest, chip, 8).run.place.usd_per_accelerator_hour > 0.1


def test_copies_that_meet_rarely_meet_each_step_again_on_another_chip():
    apart = Case(fleet()).with_recipe(outer_steps=500)
    found = hardware.on(apart, accelerators.accelerator("B200"), 8)
    assert found.run.recipe.outer_steps == 1


@pytest.mark.parametrize(("name", "preset"), [("16xH100", "llama-3-8b"), ("8xA100", "qwen3-8b"),
                                              ("16xH100", "qwen3-30b-a3b")])
def test_the_best_cut_is_valid_no_slower_and_found_once(name, preset):
    case = Case(fleet(name, "20B", preset))
    found = partition.partitioning(case, aim())
    if isinstance(found, Refusal):
        assert "already the fastest" in found.why
        return
    checks.recipe(found.run.model, found.run.recipe, found.run.machine)
    assert found.fits() and step_seconds(found.run) < step_seconds(case.run)
    kept = {name: getattr(case.run.recipe, name) for name in (
        *partition.LAYOUT, "checkpoint_every_steps")}
    assert replace(found.run, recipe=replace(found.run.recipe, **kept)) == case.run
    assert partition.partitioning(found, aim()).why.startswith("already the fastest")


def test_a_model_that_no_cut_fits_is_refused(case):
    tight = replace(case.run.machine, memory_bytes=2**29)
    found = partition.partitioning(case.with_run(replace(case.run, machine=tight)), aim())
    assert isinstance(found, Refusal) and not found.fits


def test_apart_each_node_holds_a_whole_copy(case):
    tight = Case(fleet("16xH100", "20B"))
    machine = replace(tight.run.machine, memory_bytes=20 * 2**30)
    refused = partition.diloco(tight.with_run(replace(tight.run, machine=machine)), aim())
    assert (refused.why, refused.fits) == ("a node's own copy does not fit", False)
    small = Case(fleet("16xA100", "10B", "llama-3.2-1b"))
    moved = partition.diloco(small, aim())
    assert moved.run.recipe.dp_replicate * moved.run.recipe.dp_shard == (
        small.run.recipe.dp_replicate * small.run.recipe.dp_shard)
    assert step_seconds(moved.run) <= step_seconds(small.run)


def test_checkpoints_follow_the_rule_where_they_did_and_stay_where_they_did_not(case):
    ruled = replace(case.run, recipe=replace(case.run.recipe,
                                             checkpoint_every_steps=ruled_steps(case.run)))
    slower = replace(ruled, recipe=replace(ruled.recipe, recompute="full"))
    assert as_ruled(ruled, slower).recipe.checkpoint_every_steps == ruled_steps(slower)
    odd = replace(ruled, recipe=replace(ruled.recipe, checkpoint_every_steps=7))
    assert as_ruled(odd, replace(slower, recipe=replace(
        slower.recipe, checkpoint_every_steps=7))).recipe.checkpoint_every_steps == 7


def test_differences_are_named_by_table_and_field_alone(case):
    run = case.run
    other = replace(run, train=replace(run.train, tokens=5), place=replace(run.place, pue=1.1),
                    machine=replace(run.machine, watts={}))
    assert differences(run, other) == ("machine", f"train.tokens: {run.train.tokens} -> 5",
                                       f"place.pue: {run.place.pue:.4g} -> 1.1")
    assert differences(run, replace(run, name="another", seed=9)) == ()
