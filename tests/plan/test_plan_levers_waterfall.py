from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.plan.levers import price
from curbcut.plan.levers.case import Aim, Case, Factor, Lever, Refusal
from curbcut.plan.levers.catalogue import TRAINING, chosen
from curbcut.plan.levers.result import EVOLUTIONARY
from curbcut.plan.levers.waterfall import LEAST_SHARE, MOST_SLOWER, waterfall
from curbcut.spec import checks
from plan.plan_lever_samples import fleet
from tiny import tiny_run

UNITS = ("usd", "kwh", "kg", "hours")
TABLES = ("model", "machine", "recipe", "train", "serve", "place", "limits")


@pytest.fixture(scope="module", params=UNITS)
def found(request):
    return waterfall(fleet(), TRAINING, price.unit(request.param))


def lever(name, group, apply, **more):
    return Lever(name, group, apply, **more)


def test_the_steps_add_up_to_the_whole_saving(found):
    total = sum(one.marginal.value for one in found.steps)
    assert total == pytest.approx(found.start.value - found.end.value, rel=1e-9)
    assert [one.order for one in found.steps] == list(range(1, len(found.steps) + 1))
    bars = list(found.bars())
    assert bars[0][1] == found.start.value and bars[-1][2] == found.end.value
    for (_, _, after), (_, before, _) in itertools.pairwise(bars):
        assert after == before


def test_each_step_saves_and_says_what_it_set(found):
    for one in found.steps:
        assert one.marginal.value > LEAST_SHARE / 2 * one.before
        assert one.marginal.low <= one.marginal.value <= one.marginal.high
        assert one.changed and one.evidence is not None
        assert one.uncertain == one.marginal.contains(0.0)


def test_every_lever_is_answered_once_with_its_reason(found):
    assert sorted(one.name for one in found.results) == sorted(one.name for one in TRAINING)
    for one in found.results:
        assert (one.status == "taken") == (one.order is not None)
        assert one.alone is not None or one.reason
        if one.alone is not None and one.status != "on":
            assert one.alone.value == pytest.approx(one.alone_share.value * found.start.value)


def test_one_of_what_excludes_each_other_is_taken(found):
    for word in {one.excludes for one in TRAINING if one.excludes}:
        names = {one.name for one in TRAINING if one.excludes == word}
        assert len(names & {one.name for one in found.steps}) <= 1


def test_the_seven_evolutionary_groups_and_the_revolutionary_ones_are_rows(found):
    groups = {one.group for one in found.results}
    assert groups.issuperset(EVOLUTIONARY)
    off = [one for one in found.results if one.group == "revolutionary"]
    assert len(off) == 2 and all(one.status in ("what-if", "not here") for one in off)
    assert all(row.kind == "what-if" for one in off for row in one.evidence if row.prices)


def test_no_lever_changes_what_it_does_not_say():
    """Each lever alone: tables of the run that it does not name stay as they were."""
    case = Case(fleet())
    aim = Aim(price.unit("usd"), lambda one: price.priced(one, price.unit("usd")).value, 2.0)
    touched = {
        "spot": {"place"}, "cheapest-provider": {"place"}, "place": {"place"},
        "better-building": {"place"}, "compile": {"recipe"}, "fp8": {"recipe"},
        "partitioning": {"recipe"}, "recompute": {"recipe"}, "power-cap": {"recipe"},
        "diloco": {"recipe"}, "checkpoint-interval": {"recipe"}, "data-quality": set(),
        "newer-chip": {"machine", "recipe", "place"}, "sparse-experts": {"model", "recipe"},
    }
    seen = 0
    for one in TRAINING:
        after = one.apply(case, aim)
        if one.name in touched and not isinstance(after, Refusal):
            changed = {name for name in TABLES
                       if getattr(after.run, name) != getattr(case.run, name)}
            assert changed <= touched[one.name], one.name
            seen += 1
    assert seen >= 8


def test_loss_is_held_equal_by_every_lever_but_those_that_ask_another_question():
    unit = price.unit("usd")
    case = Case(fleet())
    aim = Aim(unit, lambda one: price.priced(one, unit).value, 2.0)
    before = case.sheet().value("loss.nats_per_token")
    for one in TRAINING:
        after = one.apply(case, aim)
        if one.kind == "run" and not isinstance(after, Refusal):
            assert after.sheet().value("loss.nats_per_token") == pytest.approx(
                before, rel=0.01), one.name


def test_a_lever_that_does_nothing_is_the_identity_and_is_left_out():
    still = lever("compile", "supercomputing optimisation", lambda case, _: case)
    found = waterfall(fleet(), [still], price.unit("usd"))
    assert found.steps == () and found.end == found.start
    only = found.results[0]
    assert only.status == "no change" and only.alone.value == 0.0


def test_off_after_on_is_where_it_began():
    run = fleet()
    on = lever("compile", "supercomputing optimisation",
               lambda case, _: case.with_recipe(compile=True))
    off = lever("fp8", "data formats", lambda case, _: case.with_recipe(compile=False))
    case = off.apply(on.apply(Case(run), None), None)
    assert case.run == run
    assert price.priced(case, price.unit("usd")).value == price.priced(
        Case(run), price.unit("usd")).value


def test_the_order_is_greedy_and_prices_interplay():
    """Two levers on tokens: the second saves less after the first than alone."""
    def of(name, gain):
        return lever(name, "training algorithms",
                     lambda case, _: case.with_factor(Factor(name, "tokens", gain, 1.0, gain)))

    found = waterfall(fleet(), [of("growth", 1.5), of("data-quality", 3.0)], price.unit("usd"))
    first, second = found.steps
    assert (first.name, second.name) == ("data-quality", "growth")
    assert second.marginal.value / second.before < second.alone_share.value


def test_a_lever_that_takes_too_long_is_refused():
    slow = lever("fewer-accelerators", "efficient hardware",
                 lambda case, _: case.with_factor(Factor("x", "step", 1 / (2 * MOST_SLOWER),
                                                         0.1, 1.0)))
    found = waterfall(fleet(), [slow], price.unit("usd"))
    assert found.results[0].status == "does not fit" and "long" in found.results[0].reason


def test_a_time_limit_of_the_run_is_kept():
    run = fleet()
    seconds = Case(run).sheet().value("seconds.total")
    held = replace(run, limits=replace(run.limits, seconds=1.05 * seconds))
    found = waterfall(held, chosen(["fewer-accelerators", "power-cap"]), price.unit("kwh"))
    for one in found.steps:
        assert "power" in one.name
    assert "time limit" in found.what


def test_what_if_joins_the_order_only_when_asked():
    some = chosen(["analog-in-memory", "compile"])
    without = waterfall(fleet(), some, price.unit("kwh"))
    with_it = waterfall(fleet(), some, price.unit("kwh"), what_if=True)
    assert [one.name for one in without.steps] == ["compile"]
    assert "analog-in-memory" in [one.name for one in with_it.steps]
    assert with_it.end.value < without.end.value


def test_carbon_moves_by_place_and_money_does_not():
    some = chosen(["place"])
    assert waterfall(fleet(), some, price.unit("kg")).factor > 5
    rented = waterfall(fleet(), some, price.unit("usd"))
    assert rented.results[0].status == "no change"


def test_levers_answer_on_a_cpu_and_on_a_machine_without_prices():
    run = tiny_run()
    found = waterfall(run, TRAINING, price.unit("hours"))
    assert len(found.results) == len(TRAINING)
    for name in ("place", "spot", "newer-chip", "power-cap"):
        one = next(one for one in found.results if one.name == name)
        assert one.status != "taken", name


def test_a_unit_that_is_not_known_of_the_run_says_why():
    run = fleet()
    nowhere = replace(run, machine=replace(run.machine, watts={}))
    with pytest.raises(InputError, match=r"kwh of this run is not known.*power"):
        waterfall(nowhere, TRAINING, price.unit("kwh"))


def test_an_unknown_unit_names_the_nearest():
    with pytest.raises(UnknownName, match="'hours'"):
        price.unit("houres")
    with pytest.raises(UnknownName):
        price.unit("XYZ")
    assert price.unit("eur").currency == "EUR" and price.unit("carbon").name == "kg"


def test_the_same_run_gives_the_same_waterfall():
    some = chosen(["fp8", "compile", "data-quality", "cheapest-provider"])
    assert waterfall(fleet(), some, price.unit("usd")) == waterfall(
        fleet(), some, price.unit("usd"))


def test_what_a_run_has_already_is_priced_against_the_run_without_it():
    found = waterfall(fleet(), chosen(["muon", "fused-attention", "bf16-master-weights"]),
                      price.unit("usd"))
    saves = {one.name: one for one in found.results}
    assert {one.status for one in saves.values()} == {"on"}
    for one in saves.values():
        assert one.alone_share.low <= one.alone_share.value <= one.alone_share.high < 1
        assert one.reason.startswith("already")
    assert saves["bf16-master-weights"].alone_share.value > 0.5


def test_off_and_on_are_each_others_inverse():
    """A lever on a run that lacks it saves what it is said to save on the run that has it."""
    run = fleet(recipe__optimiser="adamw", recipe__global_batch=256, recipe__learning_rate=3e-4)
    muon = chosen(["muon"])
    lacking = waterfall(run, muon, price.unit("kwh")).results[0]
    having = muon[0].apply(Case(run), None)
    has = waterfall(having.realised(), muon, price.unit("kwh")).results[0]
    assert has.status == "on" and lacking.status in ("taken", "costs")
    assert has.alone_share.value == pytest.approx(lacking.alone_share.value, abs=0.01)


def test_start_end_and_factor_each_have_their_interval(found):
    low, high = found.factor_ends
    assert low <= found.factor <= high
    assert found.share.low <= found.share.value <= found.share.high < 1
    assert found.factor == pytest.approx(1 / (1 - found.share.value))
    assert found.end.low < found.end.value < found.end.high
    # What the levers' literature leaves open is open at the end as well.
    assert found.end.value / found.end.low > found.start.value / found.start.low


def test_a_what_if_says_what_it_assumes(found):
    for one in found.results:
        if one.status == "what-if":
            assert one.evidence[-1].quote in one.reason


@settings(max_examples=5, deadline=None)
@given(preset=st.sampled_from(["curb-30m", "llama-3.2-1b", "qwen3-8b", "qwen3-30b-a3b"]),
       name=st.sampled_from(["1xrtx-4090", "8xA100", "16xH100", "8xmi300x", "8xtpu-v5e"]),
       tokens=st.sampled_from(["100M", "5B", "1T"]), unit=st.sampled_from([*UNITS, "litres"]),
       more=st.sampled_from([{}, {"place__tenure": "own"}, {"place__contract": "spot"},
                             {"recipe__power_limit": 0.7}, {"recipe__optimiser": "adamw"},
                             {"train__token_worth": 1.5, "train__development": 3.0}]))
def test_any_run_falls_by_valid_steps_that_add_up(preset, name, tokens, unit, more):
    seen = []

    def watched(one):
        def apply(case, aim):
            found = one.apply(case, aim)
            seen.extend([found] if isinstance(found, Case) else [])
            return found
        return replace(one, apply=apply)

    try:
        run = fleet(name, tokens, preset, **more)
        found = waterfall(run, [watched(one) for one in TRAINING], price.unit(unit))
    except InputError:
        assume(False)
    total = sum(one.marginal.value for one in found.steps)
    assert total == pytest.approx(found.start.value - found.end.value, rel=1e-9, abs=1e-12)
    for case in seen:
        real = case.realised()
        checks.shape(real.model)
        checks.recipe(real.model, real.recipe, real.machine)
    for one in found.results:
        if one.alone is not None:
            assert one.alone.low <= one.alone.value <= one.alone.high
