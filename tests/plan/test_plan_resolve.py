from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.facts import presets
from curbcut.plan import rules
from curbcut.plan.forecast import forecast
from curbcut.plan.resolve import resolve
from curbcut.plan.rules import batch_tokens
from curbcut.spec import Draft, codec, dumps
from curbcut.spec.draft import load
from plan.plan_samples import CPU, Text, pair

PRESET = "curb-4m"


def asked(**tables):
    return Draft().with_raw(tables, "test").with_preset()


def test_nothing_said_is_a_first_result_within_minutes():
    found = resolve(Draft(), here=CPU)
    run = found.run
    assert run.limits.seconds == rules.DEFAULT_SECONDS
    assert found.origins["limits.seconds"].startswith("plan: nothing was asked for")
    total = forecast(run).seconds["total"].value
    assert 0.7 * rules.DEFAULT_SECONDS < total <= rules.DEFAULT_SECONDS
    assert run.machine == CPU
    assert run.recipe.precision == "bf16"
    assert run.recipe.learning_rate <= rules.MOST_LEARNING_RATE


def test_every_value_has_an_origin_and_the_tokens_are_whole_steps():
    found = resolve(Draft(), here=CPU)
    assert all(found.origins[key] for key in found.origins)
    assert found.origins["recipe.micro_batch"].startswith("plan: ")
    assert found.origins["recipe.clip_norm"] == "default"
    assert found.run.train.tokens == found.run.steps * found.run.recipe.step_tokens
    assert found.run.recipe.global_batch % found.run.recipe.micro_batch == 0


def test_the_resolved_run_reads_back_to_itself(tmp_path):
    found = resolve(asked(model={"preset": PRESET}, limits={"seconds": "1 min"}), here=CPU)
    file = tmp_path / "run.toml"
    file.write_text(dumps(found))
    again = resolve(load(file), here=CPU)
    assert again.run == found.run


def test_what_was_said_stays():
    found = resolve(asked(
        name="mine", model={"preset": PRESET}, train={"tokens": "10M"},
        recipe={"micro_batch": 3, "global_batch": 12, "precision": "fp32", "learning_rate": 0.5,
                "sequence_tokens": 128, "checkpoint_every_steps": 7}), here=CPU)
    recipe = found.run.recipe
    assert (recipe.micro_batch, recipe.global_batch, recipe.precision) == (3, 12, "fp32")
    assert (recipe.learning_rate, recipe.checkpoint_every_steps) == (0.5, 7)
    assert found.origins["recipe.micro_batch"] == "test"
    assert found.run.name == "mine"


def test_given_tokens_are_rounded_up_to_whole_steps_and_say_so():
    found = resolve(asked(model={"preset": PRESET}, train={"tokens": 1_000_001}), here=CPU)
    assert 1_000_001 <= found.run.train.tokens < 1_000_001 + found.run.recipe.step_tokens
    assert found.origins["train.tokens"] == "test, rounded up to whole steps"


def test_a_model_alone_gets_twenty_tokens_a_parameter_and_no_more_than_four_epochs():
    parameters = codec.build(type(resolve(Draft(), here=CPU).run.model),
                             presets.shape(PRESET)).parameters
    free = resolve(asked(model={"preset": PRESET}), here=CPU).run
    assert free.train.tokens == pytest.approx(20 * parameters, rel=0.01)
    text = Text(train_tokens=1_000_000, train_bytes=3_300_000)
    bound = resolve(asked(model={"preset": PRESET}), here=CPU, corpus=text)
    assert bound.run.train.tokens == pytest.approx(4_000_000, rel=0.01)
    assert "4 times the text" in bound.origins["train.tokens"]


@pytest.mark.parametrize(("limits", "section", "kind", "most"), [
    ({"seconds": "2 min"}, "seconds", "total", 120.0),
    ({"kwh": "1 Wh"}, "kwh", "facility", 0.001),
    ({"kgco2e": "1 g"}, "kgco2e", "total", 0.001),
    ({"money": "0.001 USD"}, "usd", "total", 0.001)])
def test_each_limit_is_used_and_held(limits, section, kind, most):
    run = resolve(asked(limits=limits), here=CPU).run
    spent = forecast(run).get(section, kind).value
    assert 0.7 * most < spent <= most


@pytest.mark.parametrize(("limits", "place", "section", "kind"), [
    ({"kwh": "30 kWh"}, {}, "kwh", "facility"), ({"kgco2e": "10 kg"}, {}, "kgco2e", "total"),
    ({"money": "30 USD"}, {"tenure": "own"}, "usd", "total")])
@pytest.mark.parametrize("preset", ["Qwen3-0.6B", "llama-3-8b"])
def test_limits_of_power_hold_on_accelerators_too(limits, place, section, kind, preset):
    """What accelerators draw follows the operations, and so do the tokens that limits allow."""
    run = resolve(asked(machine={"name": "8xH100"}, model={"preset": preset}, limits=limits,
                        place=place)).run
    most = {"kwh": 30.0, "kgco2e": 10.0, "usd": 30.0}[section]
    assert run.train.tokens < 20 * run.model.parameters
    assert 0.80 * most < forecast(run).get(section, kind).value <= 0.86 * most


def test_text_that_is_not_prepared_bounds_the_tokens_too():
    short = resolve(asked(machine={"name": "8xH100"}, model={"preset": "llama-3-8b"},
                          train={"text_bytes": "1 GB"}))
    each = 1e9 / short.run.train.tokens
    assert each * 4 == pytest.approx(5.0, rel=0.1)  # bytes a token, four times the text
    assert "4 times the text" in short.origins["train.tokens"]
    free = resolve(asked(machine={"name": "8xH100"}, model={"preset": "llama-3-8b"}))
    assert free.run.train.tokens > 100 * short.run.train.tokens


def test_money_in_euros_buys_more_than_in_dollars():
    euros, dollars = (resolve(asked(machine={"name": "8xH100"}, limits={"money": m})).run
                      for m in ("100 EUR", "100 USD"))
    cost = [forecast(run).usd["total"].value for run in (euros, dollars)]
    assert cost[0] > cost[1]


def test_a_larger_budget_buys_a_lower_loss():
    small, large = (forecast(resolve(asked(limits={"seconds": s}), here=CPU).run)
                    for s in (60.0, 6000.0))
    assert large.loss["bits_per_byte"].value < small.loss["bits_per_byte"].value


def test_a_named_fleet_comes_from_the_facts_and_is_rented():
    found = resolve(asked(machine={"name": "16xH100"}, train={"tokens": "1B"}))
    machine = found.run.machine
    assert (machine.accelerator, machine.nodes, machine.accelerators) == ("h100-sxm-80gb", 2, 16)
    assert found.run.place.tenure == "rent"
    assert found.run.recipe.ranks == 16
    assert found.origins["machine.peak_flops"].startswith("plan: facts")
    # about twenty tokens a parameter where only the tokens were said
    assert found.run.model.parameters == pytest.approx(1e9 / 20, rel=0.35)


def test_states_are_shared_among_ranks_only_when_they_must_be():
    small = resolve(asked(machine={"name": "8xH100"}, model={"preset": PRESET}))
    large = resolve(asked(machine={"name": "8xH100"}, model={"preset": "llama-3-8b"},
                          train={"tokens": "1B"}))
    assert small.run.recipe.dp_shard == 1
    assert large.run.recipe.dp_shard == 8


def test_does_not_fit_offers_three_ways():
    with pytest.raises(InputError) as caught:
        resolve(asked(machine={"name": "1xH100"}, model={"preset": "llama-3-8b"},
                      train={"tokens": "1B"}))
    assert "need" in caught.value.what
    assert caught.value.mend.count("; or ") == 2
    assert " accelerators with " in caught.value.mend


@settings(max_examples=20, deadline=None)
@given(gibibytes=st.floats(1.0, 32.0), more=st.floats(1.0, 4.0))
def test_more_memory_never_fits_less(gibibytes, more):
    draft = asked(model={"preset": "curb-4m"}, train={"tokens": "10M"})
    less, larger = (replace(CPU, memory_bytes=int(2**30 * g))
                    for g in (gibibytes, gibibytes * more))
    first = resolve(draft, here=less).run.recipe.micro_batch
    assert resolve(draft, here=larger).run.recipe.micro_batch >= first


def test_a_limit_too_small_for_one_step_is_refused():
    with pytest.raises(InputError, match="too small for one step"):
        resolve(asked(model={"preset": PRESET}, limits={"seconds": 0.001}), here=CPU)


def test_tokens_beyond_a_limit_are_refused_with_what_would_fit():
    with pytest.raises(InputError, match="take at least") as caught:
        resolve(asked(model={"preset": PRESET}, train={"tokens": "1B"},
                      limits={"seconds": 60.0}), here=CPU)
    assert "ask for" in caught.value.mend


@pytest.mark.parametrize("amount", ["0 EUR", "-5 EUR", "nan EUR", "inf EUR"])
def test_impossible_budgets_are_refused(amount):
    with pytest.raises(InputError):
        asked(limits={"money": amount})


@pytest.mark.parametrize(("tables", "error", "text"), [
    ({"machine": {"name": "B201"}}, UnknownName, "B200"),
    ({"machine": {"name": "12xH100"}}, InputError, "whole nodes"),
    ({"place": {"zone": "FRX"}}, UnknownName, "FRA"),
    ({"model": {"preset": "curb-5m"}}, UnknownName, "curb"),
    ({"recipe": {"tp": 2}}, InputError, "recipe.tp = 2 does not multiply"),
    ({"recipe": {"offload": "optimiser"}}, InputError, "nowhere to go"),
    ({"recipe": {"micro_batch": 3, "global_batch": 4}}, InputError, "no multiple")])
def test_what_cannot_be_planned_says_why(tables, error, text):
    with pytest.raises(error) as caught:
        resolve(asked(**tables), here=CPU)
    assert text in str(caught.value)


def test_an_unprobed_machine_asks_for_the_probe():
    with pytest.raises(InputError) as caught:
        resolve(Draft(), here=replace(CPU, measured_flops={}))
    assert "curbcut doctor" in caught.value.mend
    with pytest.raises(InputError):
        resolve(Draft())


@pytest.mark.parametrize(("rates", "precision"), [
    ({"bf16": 820e9, "fp32": 175e9}, "bf16"), ({"bf16": 200e9, "fp32": 175e9}, "fp32"),
    ({"fp32": 175e9}, "fp32"), ({"bf16": 1e12}, "bf16")])
def test_precision_follows_the_measured_rates(rates, precision):
    assert rules.precision(replace(CPU, measured_flops=rates))[0] == precision


def test_measured_step_rates_choose_the_micro_batch_and_the_tokens():
    first = resolve(Draft(), here=CPU).run
    slow, fast = (resolve(Draft(), here=CPU, step_rates={2: r, 4: r / 2}).run
                  for r in (4000.0, 16000.0))
    assert slow.model == fast.model == first.model
    assert slow.recipe.micro_batch == fast.recipe.micro_batch == 2
    assert fast.train.tokens > 3 * slow.train.tokens


def test_a_planned_shape_kept_for_the_probe_keeps_the_default_limit():
    first = resolve(Draft(), here=CPU)
    shape = {f"model.{k}": v for k, v in codec.plain(first.run.model).items()}
    kept = Draft(shape, {k: first.origins[k] for k in shape})
    second = resolve(kept, here=CPU, corpus=Text(vocab=first.run.model.vocab),
                     step_rates={4: 9000.0})
    assert second.run.model == first.run.model
    assert second.run.limits.seconds == rules.DEFAULT_SECONDS
    assert second.run.train.tokens == pytest.approx(9000 * 240 * rules.LIMIT_MARGIN, rel=0.12)


def test_measured_runs_correct_the_next_plan():
    first = resolve(Draft(), here=CPU).run
    second = resolve(Draft(), here=CPU, pairs=[pair(first, 2.0)]).run
    assert second.train.tokens < first.train.tokens
    assert forecast(second, [pair(first, 2.0)]).seconds["total"].value <= rules.DEFAULT_SECONDS


def test_the_text_sets_the_vocabulary():
    assert resolve(Draft(), here=CPU, corpus=Text(vocab=3000)).run.model.vocab == 3000


def test_single_dimensions_bind_the_search():
    run = resolve(asked(model={"layers": 5}, limits={"seconds": 60.0}), here=CPU).run
    assert run.model.layers == 5


def test_batches_grow_with_tokens_and_leave_enough_steps():
    assert batch_tokens(10**6) < batch_tokens(10**9) < batch_tokens(10**12)
    assert 10**6 / batch_tokens(10**6) >= rules.LEAST_STEPS


def test_same_input_same_bytes():
    draft = asked(limits={"money": "10 EUR"}, machine={"name": "8xH100"})
    assert dumps(resolve(draft)) == dumps(resolve(draft))


def test_single_dimensions_leave_only_shapes_that_can_be():
    run = resolve(asked(model={"kv_heads": 2}, limits={"seconds": 60.0}), here=CPU).run
    assert run.model.heads % 2 == 0
    with pytest.raises(InputError, match=r"model.kv_heads = 1000 does not divide"):
        resolve(asked(model={"kv_heads": 1000}, limits={"seconds": 60.0}), here=CPU)


def test_what_physics_prices_gets_a_forecast():
    for model, recipe in (("llama-3-8b", {"tp": 2, "pp": 2, "pipeline": "gpipe"}),
                          ("llama-3-8b", {"cp": 2, "precision": "fp8", "shard": "optimiser"}),
                          ("mixtral-8x7b", {"ep": 8, "offload": "optimiser"}),
                          ("deepseek-v2-lite", {"dp_shard": 64, "optimiser": "adamw8"})):
        run = resolve(asked(machine={"name": "64xH100"}, model={"preset": model},
                            train={"tokens": "1B"}, recipe=recipe)).run
        assert run.recipe.ranks == 64
        for field, value in recipe.items():
            assert getattr(run.recipe, field) == value
        assert forecast(run).seconds["total"].value > 0


def test_a_plan_that_fits_needs_no_numpy():
    import subprocess
    import sys

    code = ("import sys; from curbcut.cli.main import main; main(['plan', '--on', '64xH100', "
            "'--model', 'llama-3-8b', '--tokens', '1B', '--json']); "
            "sys.exit('numpy' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
