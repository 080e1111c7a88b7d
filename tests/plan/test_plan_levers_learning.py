"""Algorithms, data, experts, development, and other questions than the run: what each acts on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import levers as facts
from curbcut.plan import rules
from curbcut.plan.levers import algorithms, data, experts, instead, partition, without
from curbcut.plan.levers.case import Case, Factor, Refusal, published, step_seconds
from curbcut.plan.loss import law
from curbcut.spec import checks
from curbcut.spec.estimate import Estimate
from plan.plan_lever_samples import aim, fleet

BY_FACTS = {
    "data-quality": (data.quality, "tokens"), "data-reduction": (data.reduction, "tokens"),
    "growth": (algorithms.growth, "tokens"),
    "hyperparameter-transfer": (algorithms.hyperparameter_transfer, "search"),
    "early-stopping": (algorithms.early_stopping, "search"),
    "prune-and-distil": (instead.prune_and_distil, "tokens"),
    "energy-based-model": (instead.energy_based, "tokens"),
    "analog-in-memory": (instead.analog, "matmul watts")}


@pytest.fixture(scope="module")
def case():
    return Case(fleet())


def bits(case):
    return case.sheet().value("loss.bits_per_byte")


@pytest.mark.parametrize("name", sorted(BY_FACTS))
def test_what_literature_alone_can_tell_is_its_row_and_leaves_the_run(case, name):
    lever, resource = BY_FACTS[name]
    found = lever(case, aim())
    row = facts.pricing(name)
    assert found.run == case.run
    assert found.factors == (Factor(name, resource, row.factor, row.low, row.high),)
    assert found.factors[0] == published(name, resource)


@pytest.mark.parametrize("name", ["data-quality", "data-reduction"])
def test_text_that_is_better_already_is_not_improved_twice(case, name):
    train = replace(case.run.train, token_worth=1.3)
    found = BY_FACTS[name][0](case.with_run(replace(case.run, train=train)), aim())
    assert found.why == "already on: train.token_worth = 1.3"


def test_a_shallow_model_has_nothing_to_stack(case):
    shallow = case.with_run(replace(case.run, model=replace(case.run.model, layers=7)))
    assert algorithms.growth(shallow, aim()).why == "7 layers leave nothing to stack"
    just = case.with_run(replace(case.run, model=replace(case.run.model, layers=8)))
    assert isinstance(algorithms.growth(just, aim()), Case)


def test_changes_tuned_to_one_benchmark_are_shown_and_not_priced(case):
    found = algorithms.modern_recipe(case, aim())
    assert isinstance(found, Refusal) and "one benchmark" in found.why
    assert facts.evidence("modern-recipe") and not any(
        row.prices for row in facts.evidence("modern-recipe"))


@pytest.mark.parametrize(("ratio", "applies"), [
    (0.4, True), (0.51, False), (1.0, False), (1.99, False), (2.5, True)])
def test_a_learning_rate_is_tuned_where_it_is_far_from_the_laws(case, ratio, applies):
    wanted = rules.learning_rate(case.run.model, case.run.train.tokens)
    found = algorithms.tuned_learning_rate(case.with_recipe(learning_rate=ratio * wanted), aim())
    assert isinstance(found, Case) == applies
    if applies:
        assert found.run.recipe.learning_rate == wanted
        assert found.factors == (published("tuned-learning-rate"),)
        assert replace(found.run, recipe=case.run.recipe) == case.run
    else:
        assert found.why.startswith("already on")


def test_muon_changes_the_optimiser_alone_at_equal_loss_and_its_steps_take_longer(case):
    plain = case.with_recipe(optimiser="adamw")
    found = algorithms.muon(plain, aim())
    assert replace(found.run.recipe, optimiser="adamw") == plain.run.recipe
    assert step_seconds(found.run) > step_seconds(plain.run)
    assert bits(found) == pytest.approx(bits(plain), rel=1e-4)
    tight = replace(plain.run, machine=replace(plain.run.machine, memory_bytes=2**30))
    refused = algorithms.muon(plain.with_run(tight), aim())
    assert isinstance(refused, Refusal) and not refused.fits


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(1.0, 6.0))
def test_muon_after_other_gains_of_tokens_keeps_the_loss_too(gain):
    """The law sees all of Muon, the tokens fall by half of it: the worth told makes up for it."""
    before = Case(fleet()).with_recipe(optimiser="adamw").with_factor(
        Factor("data-quality", "tokens", gain, 1.0, gain))
    after = algorithms.muon(before, None)
    assert bits(after) == pytest.approx(bits(before), rel=1e-4)
    assert after.realised().train.tokens < before.realised().train.tokens


@settings(max_examples=20, deadline=None)
@given(decay=st.floats(0.0, 1.0))
def test_a_study_in_one_run_is_never_dearer_than_a_run_a_length(decay):
    cosine = Case(fleet()).with_recipe(schedule="cosine", decay_fraction=decay)
    found = algorithms.wsd(cosine, None)
    factor = found.factors[-1]
    assert factor.resource == "search" and factor.low == 1.0
    assert 1.0 <= factor.value == factor.high <= sum(algorithms.STUDY) / max(algorithms.STUDY)
    assert replace(found.run.recipe, schedule="cosine") == cosine.run.recipe


def test_less_search_is_less_project_and_no_less_run(case):
    found = algorithms.hyperparameter_transfer(case, aim())
    before, after = case.sheet(), found.sheet()
    for key in ("usd.total", "kwh.facility", "seconds.total", "loss.bits_per_byte"):
        assert after.value(key) == before.value(key)
    apart = [sheet.value("usd.project") - sheet.value("usd.total") for sheet in (before, after)]
    assert apart[1] == pytest.approx(apart[0] / found.factors[-1].value)


def test_a_project_of_one_run_gains_nothing_by_less_search(case):
    alone = case.with_run(replace(case.run, train=replace(case.run.train, development=1.0)))
    for lever in (algorithms.hyperparameter_transfer, algorithms.early_stopping):
        assert aim().price(lever(alone, aim())) == pytest.approx(aim().price(alone))


@pytest.fixture(scope="module")
def sparse():
    dense = Case(fleet("16xH100", "200B"))
    return dense, experts.sparse_experts(dense, None)


def test_experts_are_laid_out_validly_and_keep_what_learning_depends_on(sparse):
    dense, found = sparse
    run = found.realised()
    checks.shape(run.model)
    checks.recipe(run.model, run.recipe, run.machine)
    assert found.fits() and run.model.experts in experts.EXPERTS
    assert run.model.active_parameters <= 1.01 * dense.run.model.active_parameters
    assert run.model.parameters > dense.run.model.parameters
    for name in ("global_batch", "sequence_tokens", "optimiser", "learning_rate", "precision"):
        assert getattr(run.recipe, name) == getattr(dense.run.recipe, name)
    for table in ("machine", "place", "serve"):
        assert getattr(run, table) == getattr(dense.run, table)


def test_no_fewer_tokens_would_do_for_the_sparse_model(sparse):
    dense, found = sparse
    fewer = found.factors[-1].value
    shape, expanded = found.run.model, law.expansion(found.run.model)
    target = experts._nats(dense.run, dense.run.model, 1.0, 1.0)
    assert experts._nats(dense.run, shape, fewer, expanded) <= target
    if fewer < experts.MOST_FEWER:
        assert experts._nats(dense.run, shape, 1.001 * fewer, expanded) > target


def test_experts_are_cut_as_fast_as_a_search_of_all_layouts_finds(sparse):
    _, found = sparse
    best = partition.fastest_run(found)
    assert step_seconds(found.run) <= step_seconds(best) * (1 + 1e-9)


def test_experts_that_fit_nowhere_are_refused(case):
    tight = replace(case.run.machine, memory_bytes=2**31)
    found = experts.sparse_experts(case.with_run(replace(case.run, machine=tight)), aim())
    assert isinstance(found, Refusal) and not found.fits


def test_a_fine_tuning_is_no_lever_of_a_run_as_short(case):
    short = case.with_run(replace(case.run, train=replace(case.run.train, tokens=20_000_000)))
    assert instead.lora(short, aim()).why == "the run is no longer than a fine-tuning"
    no_rate = replace(case.run.machine, peak_flops={}, measured_flops={})
    found = instead.lora(case.with_run(replace(case.run, machine=no_rate)), aim())
    assert found.why == "no rate of h100-sxm-80gb is known"


def test_a_fine_tunings_steps_save_at_most_the_weights_gradients_and_the_optimiser(case):
    by_step = next(one for one in instead.lora(case, aim()).factors if one.resource == "step")
    assert 1.0 < by_step.value < 1 / instead.LORA_FORWARD_AND_BACK * 1.1
    assert by_step.low == by_step.value == by_step.high


def test_analog_needs_a_power_to_lessen(case):
    dark = replace(case.run, machine=replace(case.run.machine, watts={}))
    assert instead.analog(case.with_run(dark), aim()).why == "no power of h100-sxm-80gb is known"


@pytest.mark.parametrize(("lever", "back"), [
    (algorithms.muon, without.muon), (data.quality, without.data_quality)])
def test_a_run_without_what_it_has_reaches_the_same_loss(case, lever, back):
    run = lever(case.with_recipe(optimiser="adamw"), aim()).realised()
    before = Case(run)
    after = back(before)
    assert after.realised().train.tokens > run.train.tokens
    assert bits(after) == pytest.approx(bits(before), rel=1e-3)


def test_without_a_narrow_format_its_tokens_teach_more_and_steps_are_slower():
    narrow = Case(fleet("8xH100")).with_recipe(precision="fp8")
    found = without.narrow(narrow)
    assert replace(found.run.recipe, precision="fp8") == narrow.run.recipe
    assert found.run.recipe.precision == "bf16"
    assert found.factors[0].value == pytest.approx(1 / published("fp8").value)
    assert found.factors[0].low <= found.factors[0].value <= found.factors[0].high
    assert step_seconds(found.run) > step_seconds(narrow.run)


def test_without_one_field_it_is_that_field_alone(case):
    for back, name, value in ((without.compiled, "compile", False),
                              (without.fused_attention, "attention", "math")):
        on = case.with_recipe(compile=True)
        after = back(on)
        assert getattr(after.run.recipe, name) == value
        assert replace(after.run.recipe, **{name: getattr(on.run.recipe, name)}) == on.run.recipe
    spot = case.with_place(contract="spot")
    assert without.on_demand(spot).run == case.run
    tpu = Case(fleet("8xtpu-v5e", preset="llama-3.2-1b"))
    assert ("fp32" in checks.precisions(tpu.run.machine)) == (
        without.wide(tpu).run.recipe.precision == "fp32")


def test_without_one_run_for_all_lengths_the_project_is_dearer(case):
    project = Estimate(3.0, 2.0, 4.0, "measured", "the ledger")
    on = replace(case, taught=replace(case.taught, project=project))
    after = without.wsd(on)
    assert after.run.recipe.schedule == "cosine"
    apart = [one.sheet().value("usd.project") / one.sheet().value("usd.total") - 1
             for one in (on, after)]
    assert apart[1] > 1.2 * apart[0]
    assert after.factors[0].low <= after.factors[0].value <= after.factors[0].high
