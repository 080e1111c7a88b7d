from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import UnknownName
from curbcut.facts import table
from curbcut.plan.calibration import Correction
from curbcut.plan.levers import (
    algorithms,
    buying,
    experts,
    formats,
    hardware,
    instead,
    partition,
    software,
)
from curbcut.plan.levers.case import (
    Aim,
    Case,
    Factor,
    Refusal,
    Taught,
    differences,
    published,
)
from curbcut.plan.levers.catalogue import TRAINING, chosen
from curbcut.plan.levers.price import priced, unit
from curbcut.spec import checks
from curbcut.spec.estimate import Estimate
from plan.plan_lever_samples import fleet

USD = unit("usd")


@pytest.fixture(scope="module")
def case():
    return Case(fleet())


def aim(case, name="usd", slower=2.0):
    wanted = unit(name)
    return Aim(wanted, lambda one: priced(one, wanted).value, slower)


def gains(low=1.0, high=8.0):
    return st.floats(low, high).map(lambda value: Factor("x", "tokens", value, 1.0, value))


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(1.0, 50.0))
def test_fewer_tokens_teach_as_much_as_all(case, gain):
    run = case.with_factor(Factor("x", "tokens", gain, 1.0, gain)).realised()
    before = case.run.train
    assert run.train.tokens * run.train.token_worth == pytest.approx(
        before.tokens * before.token_worth, rel=1e-6)
    assert replace(run, train=before) == case.run


def test_no_factor_is_no_change(case):
    assert case.realised() == case.run
    assert case.with_factor(Factor("x", "tokens", 1.0, 1.0, 1.0)).realised() == case.run


@settings(max_examples=30, deadline=None)
@given(first=gains(), second=st.floats(1.0, 8.0))
def test_two_gains_of_one_resource_are_less_than_their_product_and_no_less_than_each(first, second):
    other = Factor("y", "tokens", second, 1.0, second)
    both = Case(fleet()).with_factor(first).with_factor(other)
    product = both.product("tokens", {})
    assert product <= first.value * second * (1 + 1e-12)
    assert product >= first.value
    assert both.factors[-1].low <= both.factors[-1].value <= both.factors[-1].high


def test_gains_of_different_resources_do_not_damp_each_other(case):
    both = case.with_factor(Factor("x", "tokens", 2.0, 1.0, 3.0)).with_factor(
        Factor("y", "search", 2.0, 1.0, 3.0))
    assert both.product("tokens", {}) == both.product("search", {}) == 2.0


def test_a_loss_is_counted_in_full(case):
    both = case.with_factor(Factor("x", "tokens", 2.0, 1.0, 3.0)).with_factor(
        Factor("fp8", "tokens", 0.9, 0.8, 1.0))
    assert both.product("tokens", {}) == pytest.approx(1.8)


def test_what_the_law_sees_for_itself_is_not_told_it_twice(case):
    found = case.with_factor(Factor("muon", "tokens", 1.3, 1.0, 1.4, known_to_law=1.3)).realised()
    assert found.train.token_worth == case.run.train.token_worth
    assert found.train.tokens == pytest.approx(case.run.train.tokens / 1.3, rel=1e-6)


def test_a_factor_moved_to_its_end_moves_the_run(case):
    one = case.with_factor(published("data-quality"))
    at_low, at_high = (one.realised({"data-quality.tokens": end}).train.tokens
                       for end in (1.0, 6.6))
    assert at_high < one.realised().train.tokens < at_low == case.run.train.tokens


def test_search_factors_act_on_experiments_alone(case):
    found = case.with_factor(Factor("x", "search", 2.0, 1.0, 10.0)).realised()
    assert found.train.development == pytest.approx(1 + 1.2 / 2)
    assert found.train.tokens == case.run.train.tokens


def test_cooler_matmuls_take_less_power_and_no_less_time(case):
    found = case.with_factor(Factor("analog", "matmul watts", 4.0, 1.0, 9.0))
    assert found.realised().machine.watts["max"] < case.run.machine.watts["max"]
    assert found.sheet().value("seconds.total") == case.sheet().value("seconds.total")


def test_differences_name_what_was_set(case):
    other = replace(case.run, recipe=replace(case.run.recipe, precision="fp8"))
    assert differences(case.run, other) == ("recipe.precision: bf16 -> fp8",)
    assert differences(case.run, case.run) == ()


def test_a_precision_that_the_chip_lacks_is_refused_by_name():
    case = Case(fleet("8xA100"))
    for lever in (formats.fp8, formats.mxfp8, formats.nvfp4):
        found = lever(case, aim(case))
        assert isinstance(found, Refusal) and "on a100-sxm-80gb" in found.why


def test_what_is_on_already_says_so(case):
    on = case.with_recipe(precision="fp8", compile=True, optimiser="muon", attention="fused",
                          schedule="wsd", outer_steps=8)
    for lever in (formats.fp8, software.compiled, algorithms.muon, software.fused_attention,
                  algorithms.wsd, partition.diloco):
        found = lever(on, aim(on))
        assert isinstance(found, Refusal) and found.why.startswith("already"), lever


def test_muon_says_less_for_larger_models(case):
    large = case.with_recipe(optimiser="adamw")
    small = replace(large, run=replace(large.run, model=replace(
        large.run.model, layers=4, width=768, heads=12, kv_heads=12, head_size=64, ffn=2048,
        vocab=32000)))
    gain = [algorithms.muon(one, aim(one)).factors[-1].value for one in (small, large)]
    assert gain[0] > gain[1] >= 1.1 - 1e-9


def test_a_cosine_study_costs_what_its_lengths_add_up_to(case):
    cosine = case.with_recipe(schedule="cosine", decay_fraction=0.2)
    found = algorithms.wsd(cosine, aim(case))
    assert found.factors[-1].value == pytest.approx(2.5 / (1 + 0.2 * 1.5))
    assert found.run.recipe.schedule == "wsd"


def test_checkpoints_come_at_dalys_interval(case):
    found = software.checkpoint_interval(case.with_recipe(checkpoint_every_steps=1), aim(case))
    assert found.run.recipe.checkpoint_every_steps > 1
    again = software.checkpoint_interval(found, aim(case))
    assert isinstance(again, Refusal)


def test_other_machines_have_no_more_accelerators_and_learn_the_same(case):
    for lever in (hardware.newer_chip, hardware.other_accelerator, hardware.fewer_accelerators):
        found = lever(case, aim(case, "kwh", 10.0))
        if isinstance(found, Refusal):
            continue
        assert found.run.machine.accelerators <= case.run.machine.accelerators
        assert found.run.recipe.ranks == found.run.machine.accelerators
        assert found.run.recipe.global_batch == case.run.recipe.global_batch
        assert (found.run.train, found.run.model) == (case.run.train, case.run.model)
        assert found.fits()


def test_a_newer_chip_is_newer_and_another_is_not():
    case = Case(fleet("8xA100"))
    newer = hardware.newer_chip(case, aim(case, "kwh", 10.0))
    assert newer.run.machine.accelerator.startswith(("h", "b", "gb", "l40", "rtx"))
    b300 = Case(fleet("8xGB300"))
    assert isinstance(hardware.newer_chip(b300, aim(b300)), Refusal)


def test_fine_tuning_reads_the_tokens_that_a_day_allows(case):
    middle, low, high = instead.lora_tokens()
    assert low < middle < high and 5e6 < middle < 100e6
    found = instead.lora(case, aim(case)).realised()
    assert found.train.tokens == pytest.approx(middle, rel=0.5)


def test_an_unknown_lever_names_the_nearest():
    with pytest.raises(UnknownName, match="compile"):
        chosen(["comple"])
    assert chosen([]) == TRAINING
    assert [one.name for one in chosen(["fp8", "spot"])] == ["fp8", "spot"]


def test_the_partition_is_the_searchs_best_and_keeps_what_learning_depends_on(case):
    from curbcut.plan import space
    from curbcut.plan.offers import offer
    from curbcut.plan.recipes import search

    found = partition.partitioning(case, aim(case))
    whole = space.Space(case.run.model, case.run.machine, case.run.recipe, partition.KEPT)
    best = search([offer(whole, case.run.place)], "time", 1).best
    assert replace(found.run.recipe, checkpoint_every_steps=1) == replace(
        best.recipe, checkpoint_every_steps=1)
    for name in ("precision", "optimiser", "global_batch", "sequence_tokens", "learning_rate"):
        assert getattr(found.run.recipe, name) == getattr(case.run.recipe, name)
    assert isinstance(partition.partitioning(found, aim(case)), Refusal)


def test_experts_reach_the_dense_models_loss_with_fewer_tokens(case):
    from curbcut.plan.levers.experts import sparse_experts

    found = sparse_experts(case, aim(case))
    assert found.run.model.experts and found.run.model.experts_per_token == 1
    run = found.realised()
    assert run.train.tokens < case.run.train.tokens
    before, after = (one.sheet().value("loss.bits_per_byte") for one in (case, found))
    assert after == pytest.approx(before, rel=1e-3)
    assert isinstance(sparse_experts(found, aim(case)), Refusal)


def test_apart_for_many_steps_nodes_need_less_of_the_network(case):
    found = partition.diloco(case, aim(case))
    assert found.run.recipe.outer_steps == partition.OUTER_STEPS
    assert found.run.recipe.ranks == case.run.recipe.ranks
    one_node = Case(fleet("8xH100"))
    assert "one node" in partition.diloco(one_node, aim(one_node)).why


def test_a_power_cap_is_chosen_by_what_is_counted(case):
    """Rented time costs money, so a cap that saves energy does not save money."""
    energy = software.power_cap(case, aim(case, "kwh"))
    assert energy.run.recipe.power_limit < 0.9
    by_money, at_once = (priced(one, USD).value for one in (energy, case))
    assert by_money > at_once


def test_clean_hours_need_a_profile_and_take_the_cleanest(case, tmp_path, monkeypatch):
    from curbcut.plan.levers.buying import clean_hours

    assert "profile" in clean_hours(case, aim(case, "kg")).why
    rows = [f"FRA,{hour},{20 if 8 <= hour < 16 else 90},my meter,2026-01-01" for hour in range(24)]
    header = (table.OURS / "grid_hours.csv").read_text().splitlines()[0].split(",")
    named = ["zone", "hour", next(one for one in header if one.startswith("gco2e")), "source",
             "date"]
    (tmp_path / "grid_hours.csv").write_text("\n".join([",".join(named), *rows]) + "\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    french = case.with_place(zone="FRA")
    found = clean_hours(french, aim(french, "kg"))
    assert found.run.place.hours == "8-16"


def test_prices_by_contract(case):
    from curbcut.plan.levers import buying

    assert buying.spot(case, aim(case)).run.place.contract == "spot"
    own = case.with_place(tenure="own")
    for lever in (buying.spot, buying.reserved, buying.cheapest_provider):
        assert isinstance(lever(own, aim(own)), Refusal)
    cheap = buying.cheapest_provider(case, aim(case))
    assert cheap.run.place.usd_per_accelerator_hour == buying.cheapest_rent(case.run.machine)
    short = buying.reserved(case, aim(case))
    assert isinstance(short, Refusal) and "binds for" in short.why
    long = Case(fleet("16xH100", "2T"))
    bound = buying.reserved(long, aim(long))
    assert isinstance(bound, Refusal) or bound.run.place.contract.startswith("reserved")


def test_a_factor_after_another_says_that_it_is_less_than_alone(case):
    once = case.with_factor(Factor("x", "tokens", 1.5, 1.0, 1.5))
    twice = once.with_factor(Factor("y", "tokens", 1.44, 1.0, 1.44))
    assert once.changed == ("tokens: 1.5 x less",)
    assert twice.changed[-1] == "tokens: 1.2 x less after others of them (1.44 x less alone)"
    worse = case.with_factor(Factor("z", "tokens", 0.5, 0.4, 1.0))
    assert worse.changed == ("tokens: 2 x more",)


class Slower(Correction):
    """What was learned: every step takes so many times as long."""

    def __init__(self, factor):
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def of_step(self, shape, recipe, machine):
        return Estimate(self.factor, 0.9 * self.factor, 1.1 * self.factor, "measured", "3 runs")


def taught(run, factor=2.0):
    return Taught(run.machine, Slower(factor),
                  Estimate(5.0, 4.0, 6.0, "measured", "the ledger"))


def test_measured_runs_correct_a_case_as_they_correct_a_plan():
    run = fleet()
    plain, known = Case(run).sheet(), Case(run, taught=taught(run)).sheet()
    assert known.value("seconds.steps") == pytest.approx(2 * plain.value("seconds.steps"))
    assert known.value("usd.project") == pytest.approx(5 * known.value("usd.total"))
    # At another precision of the same machine too: it is the machine that is slow.
    narrow = Case(run, taught=taught(run)).with_recipe(precision="fp8").sheet()
    assert narrow.value("seconds.steps") == pytest.approx(
        2 * Case(run).with_recipe(precision="fp8").sheet().value("seconds.steps"))


def test_measured_runs_say_nothing_of_another_machine():
    run = fleet()
    moved = Case(run, taught=taught(run)).with_run(fleet("16xA100"))
    assert moved.sheet().value("seconds.steps") == Case(fleet("16xA100")).sheet().value(
        "seconds.steps")


def test_a_machine_of_several_nodes_is_not_rented_as_single_hosts():
    many, one = Case(fleet("16xH100")), Case(fleet("8xH100"))
    said = [buying.cheapest_provider(case, aim(case)).changed[-1] for case in (many, one)]
    assert not any(name in said[0] for name in buying.SINGLE_HOSTS)
    assert any(name in said[1] for name in buying.SINGLE_HOSTS)


def test_other_makers_are_compared_one_by_one():
    case = Case(fleet("8xH100", "10B"))
    found = hardware.other_accelerator(case, aim(case, "kwh"))
    said = next(one for one in found.changed if one.startswith("makers"))
    assert "mi300x" in said and "tpu-v" in said


def test_a_law_of_experts_that_gives_less_needs_more_tokens():
    case = Case(fleet("16xH100", "200B"))
    found = experts.sparse_experts(case, aim(case))
    factor = found.factors[-1]
    assert factor.low < factor.value < factor.high


def test_one_search_of_degrees_serves_every_precision(monkeypatch):
    monkeypatch.setattr(partition, "_found", {})
    case = Case(fleet())
    wide = partition.fastest_run(case)
    narrow = partition.fastest_run(case.with_recipe(precision="fp8", compile=True))
    assert len(partition._found) == 1
    for name in partition.LAYOUT:
        assert getattr(narrow.recipe, name) == getattr(wide.recipe, name)
    assert narrow.recipe.precision == "fp8" and narrow.recipe.compile


def test_a_chip_is_cut_as_the_run_was_once_that_was_searched():
    case = Case(fleet("64xH100", "20B"))
    cut = case.with_run(partition.fastest_run(case))
    moved = hardware.newer_chip(replace(cut, taken=frozenset({"partitioning"})), aim(cut))
    recipe = moved.run.recipe
    checks.recipe(moved.run.model, recipe, moved.run.machine)
    assert recipe.global_batch == case.run.recipe.global_batch
    assert recipe.dp_replicate * recipe.dp_shard * recipe.cp * recipe.tp * recipe.pp == (
        moved.run.machine.accelerators)
