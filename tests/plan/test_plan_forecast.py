from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan import rules
from curbcut.plan.forecast import forecast
from curbcut.spec import UNIT_OF, Estimate, Place, TrainJob
from plan.plan_samples import CPU, Text
from tiny import tiny_run

RUN = tiny_run(machine=CPU, steps=50, model={"width": 128, "heads": 2, "kv_heads": 2,
                                            "head_size": 64, "ffn": 384, "vocab": 2048})


def test_every_kind_that_a_measurement_answers_is_there():
    account = forecast(RUN)
    assert set(account.seconds) == {"total", "steps", "evaluation", "data", "checkpoint",
                                    "other"}
    assert set(account.memory_bytes) == {"parameters", "gradients", "optimiser", "activations",
                                         "logits", "buffers", "overhead", "peak"}
    assert set(account.kwh_modelled) == {"device", "node", "facility"}
    assert set(account.kwh) == {"device", "node", "facility", "project"}
    assert set(account.joules_per_token) == {"training"}
    assert {"total", "staff", "development", "project"} <= set(account.usd)
    assert set(account.usd_ways) == {
        "on_demand", "reserved_1y", "reserved_3y", "spot", "own", "academic", "epoch_amortised",
        "epoch_acquisition", "epoch_cloud", "with_staff"}
    assert set(account.kgco2e) == {"operational", "market", "embodied", "total", "project"}
    assert set(account.loss) == {"nats_per_token", "bits_per_byte"}
    assert set(account.flops) == {"model", "hardware"}
    for section in UNIT_OF:
        assert getattr(account, section), section


@pytest.mark.parametrize("samples", [0, 4000])
def test_a_project_is_so_many_times_its_run_in_money_energy_and_carbon(samples):
    run = replace(RUN, train=replace(RUN.train, development=3.0))
    account = forecast(run, samples=samples)
    assert account.usd["project"].value == pytest.approx(3 * account.usd["total"].value)
    assert account.usd["development"].value == pytest.approx(2 * account.usd["total"].value)
    assert account.kwh["project"].value == pytest.approx(3 * account.kwh["facility"].value)
    assert account.kgco2e["project"].value == pytest.approx(3 * account.kgco2e["total"].value)


def test_draws_and_first_order_intervals_tell_the_same_of_every_figure():
    quick, drawn = forecast(RUN), forecast(RUN, samples=20_000, seed=1)
    for section, kind, estimate in quick.lines():
        other = drawn.get(section, kind)
        assert other.value == estimate.value, (section, kind)
        if estimate.known and estimate.low != estimate.high:
            width = math.log(estimate.high / estimate.low)
            for end in ("low", "high"):
                apart = math.log(getattr(other, end) / getattr(estimate, end))
                assert abs(apart) < 0.25 * width, (section, kind, end)


def test_a_run_in_the_night_alone_takes_more_days_and_no_more_hours():
    night = forecast(replace(RUN, place=replace(RUN.place, hours="22-6")))
    assert night.seconds["total"] == forecast(RUN).seconds["total"]
    assert night.seconds["calendar"].value == pytest.approx(3 * night.seconds["total"].value)


def test_a_ledgers_own_ratio_takes_the_place_of_the_literatures():
    own = Estimate(1.4, 1.2, 1.9, "measured", "own ledger: 9 trainings")
    account = forecast(RUN, project=own)
    assert account.kwh["project"].value == pytest.approx(1.4 * account.kwh["facility"].value)
    assert "own ledger" in account.kwh["project"].source


def test_total_is_the_sum_of_its_kinds():
    seconds = dict(forecast(RUN).seconds)
    total = seconds.pop("total")
    assert total.value == pytest.approx(sum(one.value for one in seconds.values()))


def test_every_figure_has_a_source_and_an_interval_around_it():
    for section, kind, estimate in forecast(RUN).lines():
        assert estimate.source, (section, kind)
        if estimate.known:
            assert estimate.low <= estimate.value <= estimate.high


def test_same_input_same_account():
    assert forecast(RUN, (), {2: 1000.0}, Text()) == forecast(RUN, (), {2: 1000.0}, Text())


@pytest.mark.parametrize(("change", "sections"), [
    ({"micro_batch": 1}, ("seconds", "memory_bytes")),
    ({"precision": "bf16"}, ("seconds", "memory_bytes", "mfu")),
    ({"attention": "fused"}, ("memory_bytes", "flops")),
    ({"recompute": "full"}, ("seconds", "memory_bytes", "hfu")),
    ({"checkpoint_every_steps": 1}, ("seconds", "goodput")),
    ({"evaluate_every_steps": 1}, ("seconds", "goodput"))])
def test_one_altered_field_of_the_recipe_alters_the_forecast(change, sections):
    before = forecast(RUN)
    after = forecast(replace(RUN, recipe=replace(RUN.recipe, **change)))
    for section in sections:
        assert getattr(before, section) != getattr(after, section), section


def test_a_measured_rate_replaces_the_model_and_narrows_the_interval():
    account = forecast(RUN, step_rates={2: 12_345.0, 4: 99.0})
    speed = account.tokens_per_second["steps"]
    assert speed.value == pytest.approx(12_345)
    assert "measured just now" in speed.source
    modelled = forecast(RUN).tokens_per_second["steps"]
    assert speed.high / speed.low < modelled.high / modelled.low
    other = forecast(RUN, step_rates={4: 99.0}).tokens_per_second["steps"]
    assert other == modelled, "a rate of another micro-batch says nothing of this one"


def test_utilisation_counts_model_flops_and_hardware_flops_apart():
    run = replace(RUN, recipe=replace(RUN.recipe, recompute="full"))
    account = forecast(run)
    ratio = account.flops["hardware"].value / account.flops["model"].value
    assert ratio > 1.2
    assert account.hfu["run"].value == pytest.approx(ratio * account.mfu["run"].value)


def test_without_rates_time_is_unknown_and_the_rest_stands():
    blind = replace(RUN, machine=replace(CPU, measured_flops={}))
    account = forecast(blind)
    assert account.seconds["total"].value is None
    assert account.mfu["run"].value is None
    assert account.usd["total"].value is None
    assert account.memory_bytes["peak"].value > 0
    assert account.loss["bits_per_byte"].value > 0


def test_a_building_costs_more_than_a_desk():
    desk, building = (forecast(replace(RUN, place=Place(pue=p))) for p in (1.0, 1.6))
    assert building.kwh["facility"].value == pytest.approx(1.6 * desk.kwh["facility"].value)
    assert building.kwh["device"] == desk.kwh["device"]


def test_many_nodes_lose_time_to_faults():
    def kept(nodes):
        recipe = replace(RUN.recipe, dp_replicate=2, checkpoint_every_steps=10**6,
                         evaluate_every_steps=10**6)
        machine = replace(CPU, accelerators_per_node=2, nodes=nodes)
        return forecast(replace(RUN, train=TrainJob(tokens=10**9), recipe=recipe,
                                machine=machine)).goodput["run"]

    assert kept(1).value > 0.99
    assert kept(1).value >= kept(2).value > kept(200).value > kept(20_000).value
    assert kept(2).low < 0.95  # published runs lost more than faults explain


def test_ranks_write_their_shares_at_the_same_time():
    def saving(**degrees):
        return rules.save_seconds(RUN.model, replace(RUN.recipe, **degrees)) - rules.SAVE_SECONDS

    assert saving(dp_shard=4, tp=2, pp=2) == pytest.approx(saving() / 16)
    assert saving(dp_replicate=4) == pytest.approx(saving() / 4)  # each writes some of the tensors
    assert saving(cp=2) == pytest.approx(saving() / 2)


def test_a_checkpoint_holds_what_the_optimiser_and_the_mean_hold():
    def saved(**changes):
        recipe = replace(RUN.recipe, optimiser="adamw", **changes)
        return rules.saved_bytes(RUN.model, recipe) / RUN.model.parameters

    assert saved() == 12 and saved(ema_decay=0.99) == 16
    muon = replace(RUN.recipe, optimiser="muon")
    assert 8 < rules.saved_bytes(RUN.model, muon) / RUN.model.parameters < 12


def test_a_background_save_keeps_waiting_less_and_holds_a_copy():
    run = replace(RUN, recipe=replace(RUN.recipe, checkpoint_every_steps=1))
    behind = replace(run, recipe=replace(run.recipe, checkpoint_async=True))
    plain, fewer = forecast(run), forecast(behind)
    assert fewer.seconds["checkpoint"].value < plain.seconds["checkpoint"].value
    more = fewer.memory_bytes["peak"].value - plain.memory_bytes["peak"].value
    assert more == pytest.approx(rules.saved_bytes(run.model, run.recipe))


def test_youngs_interval_is_never_longer_than_what_was_said():
    young = replace(RUN.recipe, checkpoint_interval="young", checkpoint_every_steps=10**6)
    few, many = (rules.steps_apart(RUN.model, young, 1.0, count) for count in (8, 100_000))
    assert 1 < many < few < 10**6
    assert rules.steps_apart(RUN.model, replace(young, checkpoint_every_steps=3), 1.0, 8) == 3
    said = replace(young, checkpoint_interval="steps")
    assert rules.steps_apart(RUN.model, said, 1.0, 100_000) == 10**6


def test_a_mean_of_the_weights_takes_memory_and_time():
    kept = forecast(replace(RUN, recipe=replace(RUN.recipe, ema_decay=0.999)))
    plain = forecast(RUN)
    more = kept.memory_bytes["optimiser"].value - plain.memory_bytes["optimiser"].value
    assert more == pytest.approx(4 * RUN.model.parameters)
    assert kept.seconds["steps"].value > plain.seconds["steps"].value
    assert forecast(replace(RUN, recipe=replace(RUN.recipe, z_loss=1e-4))).seconds[
        "steps"].value > plain.seconds["steps"].value


def test_checkpoints_come_as_often_as_machines_fail():
    few, many = (rules.checkpoint_steps(10**6, 1.0, 60.0, count) for count in (8, 100_000))
    assert many < few
    assert rules.checkpoint_steps(3, 1.0, 60.0, 8) == 3


@settings(max_examples=40)
@given(steps=st.integers(1, 5000), more=st.integers(1, 5000))
def test_more_tokens_never_cost_less(steps, more):
    def tokens(count):
        return forecast(replace(RUN, train=TrainJob(tokens=count * RUN.recipe.step_tokens)))

    less, longer = tokens(steps), tokens(steps + more)
    for section, kind in (("seconds", "total"), ("kwh", "facility"), ("usd", "total"),
                          ("kgco2e", "total"), ("flops", "model")):
        assert longer.get(section, kind).value > less.get(section, kind).value
    assert longer.loss["bits_per_byte"].value <= less.loss["bits_per_byte"].value


@settings(max_examples=30)
@given(layers=st.integers(1, 12), micro=st.sampled_from([1, 2, 4]),
       precision=st.sampled_from(["fp32", "bf16"]), pue=st.floats(1.0, 2.0))
def test_intervals_contain_their_value_and_energy_is_nested(layers, micro, precision, pue):
    run = replace(RUN, model=replace(RUN.model, layers=layers), place=Place(pue=pue),
                  recipe=replace(RUN.recipe, micro_batch=micro, precision=precision))
    account = forecast(run)
    for _, _, one in account.lines():
        assert not one.known or one.low <= one.value <= one.high
    for end in ("low", "value", "high"):
        device, node, facility = (getattr(account.kwh[k], end)
                                  for k in ("device", "node", "facility"))
        assert device <= node <= facility
    assert 0 < account.mfu["run"].value <= account.hfu["run"].value <= 1
