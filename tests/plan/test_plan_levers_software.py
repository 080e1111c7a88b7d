"""Supercomputing optimisation and formats: what each sets and only that, and where it is refused.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.plan.levers import formats, software
from curbcut.plan.levers.case import Aim, Case, Refusal, daly_steps, step_seconds
from curbcut.plan.levers.price import priced, unit
from curbcut.spec import checks
from plan.plan_lever_samples import aim, fleet
from tiny import tiny_run


@pytest.fixture(scope="module")
def case():
    return Case(fleet())


def only(case, after, *names):
    """Whether the recipe's `names` alone differ between two cases."""
    kept = {name: getattr(case.run.recipe, name) for name in names}
    return replace(after.run, recipe=replace(after.run.recipe, **kept)) == case.run


def crowded(case):
    """The case on accelerators whose memory is 1 GiB: nothing fits."""
    machine = replace(case.run.machine, memory_bytes=2**30)
    return case.with_run(replace(case.run, machine=machine))


def test_compiling_sets_one_flag_and_is_faster(case):
    found = software.compiled(case, aim())
    assert only(case, found, "compile") and found.run.recipe.compile
    assert step_seconds(found.run) < step_seconds(case.run)
    assert found.factors == () and found.changed == ("recipe.compile: False -> True",)


def test_compiling_is_not_priced_on_a_cpu():
    found = software.compiled(Case(tiny_run()), aim("hours"))
    assert isinstance(found, Refusal) and "CPU" in found.why and found.fits


def test_fused_attention_sets_one_field_and_saves_more_on_longer_sequences(case):
    gains = []
    for tokens in (2048, 8192):
        # One sequence at a time, whose scores still fit into memory.
        plain = case.with_recipe(attention="math", sequence_tokens=tokens, micro_batch=1,
                                 recompute="full")
        found = software.fused_attention(plain, aim())
        assert only(plain, found, "attention") and found.run.recipe.attention == "fused"
        gains.append(step_seconds(plain.run) / step_seconds(found.run))
    assert 1 < gains[0] < gains[1]


@pytest.mark.parametrize(("lever", "values"), [
    (software.fused_attention, {"attention": "math"}),
    (software.no_offload, {"offload": "optimiser"}), (formats.fp8, {}),
    (software.recompute, {})])
def test_what_does_not_fit_into_memory_says_so(case, lever, values):
    found = lever(crowded(case).with_recipe(**values), aim())
    assert isinstance(found, Refusal) and not found.fits and "fit" in found.why


def test_what_was_offloaded_comes_back_alone(case):
    assert software.no_offload(case, aim()).why == "nothing is offloaded"
    away = case.with_recipe(offload="optimiser")
    found = software.no_offload(away, aim())
    assert found.run == case.run
    assert step_seconds(found.run) < step_seconds(away.run)


def test_recompute_is_the_fastest_of_its_variants_that_fit(case):
    slow = case.with_recipe(recompute="full", micro_batch=1)
    found = software.recompute(slow, aim())
    assert only(slow, found, "recompute", "micro_batch")
    able = [one for one in software.variants(slow.run.recipe)
            if case.fits(replace(slow.run, recipe=one))]
    assert step_seconds(found.run) == min(
        step_seconds(replace(slow.run, recipe=one)) for one in able)
    assert software.recompute(found, aim()).why == "already the fastest"


def test_variants_are_itself_first_then_every_mode_at_micro_batches_that_divide(case):
    recipe = case.run.recipe
    found = software.variants(recipe)
    share = recipe.global_batch // (recipe.dp_replicate * recipe.dp_shard)
    assert found[0] == recipe
    assert {one.recompute for one in found} == set(software.RECOMPUTE)
    for one in found[1:]:
        checks.recipe(case.run.model, one, case.run.machine)
        assert share % one.micro_batch == 0
        assert one.micro_batch * one.sequence_tokens <= software.MOST_MICRO_TOKENS


def test_daly_saves_as_often_as_lost_work_and_saving_balance(case):
    """At the interval that the lever sets, other ones near it take no less time."""
    found = software.checkpoint_interval(case, aim("hours"))
    assert only(case, found, "checkpoint_every_steps")
    every = found.run.recipe.checkpoint_every_steps
    assert every == daly_steps(case.run) <= case.run.steps

    def hours(steps):
        return priced(case.with_recipe(checkpoint_every_steps=max(1, steps)), unit("hours")).value

    assert hours(every) <= min(hours(every // 8), hours(case.run.recipe.checkpoint_every_steps))


def test_more_accelerators_fail_more_often_and_save_more_often():
    few, many = (Case(fleet(name, "200B")) for name in ("8xH100", "512xH100"))
    apart = [daly_steps(one.run) * step_seconds(one.run) for one in (few, many)]
    assert apart[1] < apart[0]


def test_a_power_cap_is_the_best_of_those_tried_in_the_unit(case):
    for name in ("kwh", "kg"):
        wanted = aim(name)
        found = software.power_cap(case, wanted)
        assert only(case, found, "power_limit")
        assert found.run.recipe.power_limit in software.CAPS
        tried = [wanted.price(case.with_recipe(power_limit=cap)) for cap in software.CAPS]
        assert wanted.price(found) == min(tried) < wanted.price(case)


def test_a_power_cap_is_refused_where_there_is_none_or_one_already(case):
    capped = software.power_cap(case.with_recipe(power_limit=0.7), aim())
    assert capped.why == "already on: 70% of the rated power"
    unknown = replace(case.run.machine, watts={})
    for run in (tiny_run(), replace(case.run, machine=unknown)):
        found = software.power_cap(Case(run), aim("hours"))
        assert "no power limit of" in found.why and run.machine.accelerator in found.why


def test_a_time_that_nobody_allows_leaves_no_cap(case):
    never = Aim(unit("kwh"), lambda one: float("inf"))
    assert software.power_cap(case, never).why == "no cap is priced"


@pytest.mark.parametrize(("name", "precision", "lever"), [
    ("8xH100", "fp8", formats.fp8), ("8xB200", "mxfp8", formats.mxfp8),
    ("8xB200", "nvfp4", formats.nvfp4)])
def test_a_narrow_format_is_faster_and_its_tokens_teach_no_more(name, precision, lever):
    case = Case(fleet(name))
    found = lever(case, aim())
    assert only(case, found, "precision") and found.run.recipe.precision == precision
    assert step_seconds(found.run) < step_seconds(case.run)
    factor = found.factors[-1]
    assert (factor.lever, factor.resource) == (precision, "tokens")
    assert factor.low <= factor.value <= 1.0
    assert found.realised().train.tokens >= case.run.train.tokens


@pytest.mark.parametrize("name", ["8xA100", "8xmi300x", "8xrtx-4090", "8xtpu-v5e"])
def test_a_format_is_offered_where_the_machine_has_a_rate_of_it_and_nowhere_else(name):
    case = Case(fleet(name, preset="llama-3.2-1b"))
    known = checks.precisions(case.run.machine)
    for precision, lever in zip(formats.NARROW, (formats.fp8, formats.mxfp8, formats.nvfp4),
                                strict=True):
        found = lever(case, aim())
        if precision in known:
            assert isinstance(found, Case) or not found.fits
        else:
            assert found.why == f"no {precision} on {case.run.machine.accelerator}"


def test_one_narrow_format_at_a_time():
    case = Case(fleet("8xB200")).with_recipe(precision="mxfp8")
    for lever in (formats.fp8, formats.nvfp4, formats.bf16):
        assert lever(case, aim()).why == "in mxfp8 already"
    assert formats.mxfp8(case, aim()).why == "already on"


def test_sixteen_bits_come_from_wider_ones_alone():
    case = Case(fleet("8xA100"))
    assert formats.bf16(case, aim()).why == "already on: bf16"
    for wide in ("fp32", "tf32"):
        found = formats.bf16(case.with_recipe(precision=wide), aim())
        assert found.run == case.run and found.factors == ()
    without = replace(case.run.machine, peak_flops={"fp32": 1e13}, measured_flops={})
    lacks = case.with_run(replace(case.run, machine=without)).with_recipe(precision="fp32")
    assert formats.bf16(lacks, aim()).why == "no bf16 rate of a100-sxm-80gb is known"
