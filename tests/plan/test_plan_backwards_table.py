from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from curbcut.physics import memory, time
from curbcut.plan import loss, rules
from curbcut.plan.backwards import family, fleets, points
from curbcut.plan.backwards.layouts import layouts
from curbcut.plan.backwards.question import Question
from curbcut.plan.forecast import forecast
from curbcut.spec import checks
from curbcut.spec.nouns import Place, Run, TrainJob
from plan.backwards_samples import COUNTS, RENTED, choices, limited, machine, market, shapes


def test_every_shape_of_the_family_can_be_and_rises_in_size():
    found = family.family()
    for one in found:
        checks.shape(one)
        assert one.parameters >= rules.LEAST_PARAMETERS
    sizes = [one.parameters for one in found if not one.experts]
    assert sizes == sorted(sizes) and len(set(found)) == len(found)
    assert max(after / before for before, after in itertools.pairwise(sizes)) < 2
    assert {one.experts for one in found} == {0, 8, 64}
    assert not any(one.experts for one in family.family(experts=False))


def test_experts_meet_a_token_with_as_much_as_the_dense_shape():
    found = {(one.width, one.layers, one.experts): one for one in family.family()}
    pairs = [(one, found[one.width, one.layers, 0]) for one in found.values() if one.experts]
    assert pairs
    for one, dense in pairs:
        assert one.active_parameters == pytest.approx(dense.parameters, rel=0.1)
        assert one.parameters > 2 * (dense.parameters - dense.embedding_parameters)


@pytest.mark.parametrize("count", [1, 2, 8, 16, 4096])
def test_layouts_use_every_accelerator_once(count):
    found = list(layouts(count, min(8, count)))
    assert len(set(found)) == len(found)
    for one in found:
        assert one.data_ranks * one.tp * one.pp == count
        assert one.data_ranks % one.dp_shard == 0
        assert one.tp <= 8


def test_rows_are_what_the_forward_physics_says_of_their_recipe():
    found = choices(limited(usd=1e3))
    rng = np.random.default_rng(1)
    rows = rng.choice(np.flatnonzero(np.isfinite(found.per_token)), 12, replace=False)
    for row in map(int, rows):
        recipe, shape, place = points.recipe(found, row), found.shape(row), found.machine(row)
        checks.recipe(shape, recipe, place)
        step = time.step_seconds(shape, recipe, place).value
        assert step / recipe.step_tokens <= found.per_token[row] * (1 + 1e-9)
        assert found.per_token[row] <= 1.2 * step / recipe.step_tokens
        peak = memory.training(shape, recipe, place.kind)["peak"]
        assert peak <= memory.available(place)


def test_a_row_takes_what_the_forecast_of_its_run_takes():
    found = choices(limited(usd=1e3))
    tokens = 2e9
    for row in map(int, np.flatnonzero(np.isfinite(found.per_token))[::40]):
        recipe, shape, place = points.recipe(found, row), found.shape(row), found.machine(row)
        steps = round(tokens / recipe.step_tokens)
        recipe = replace(recipe, checkpoint_every_steps=max(1, int(
            1800 / (found.per_token[row] * recipe.step_tokens))),
            evaluate_every_steps=max(1, steps // 5))
        run = Run(name="x", model=shape, machine=place, recipe=recipe,
                  train=TrainJob(tokens=steps * recipe.step_tokens), place=found.place(row))
        account = forecast(run)
        costs = found.costs(np.full(len(found.per_token), float(run.train.tokens)))[row]
        assert costs[3] == pytest.approx(account.seconds["total"].value, rel=0.08)
        assert costs[0] == pytest.approx(account.usd["total"].value, rel=0.08)
        assert costs[1] == pytest.approx(account.kwh["facility"].value, rel=0.08)
        assert costs[2] == pytest.approx(account.kgco2e["total"].value, rel=0.08)


def test_what_does_not_fit_is_infinite_and_would_run_with_more_memory():
    found = choices(limited(usd=1e3))
    unfit = ~np.isfinite(found.per_token)
    assert unfit.any()
    assert np.isfinite(found.roomy_per_token).all()
    assert (found.roomy_per_token <= found.per_token).all()
    assert {found.shape(int(row)).parameters > 1e9 for row in np.flatnonzero(unfit)} == {True}


def test_no_more_ranks_than_sequences_that_teach():
    found = choices(limited(usd=1e3))
    bits = found.bits(np.full(len(found.per_token), 1e6))
    assert np.isinf(bits[found.sequences > 3]).all()
    assert np.isfinite(found.bits(np.full(len(found.per_token), 1e12))).all()


def test_rates_of_many_nodes_are_those_of_the_machine_itself():
    found = market()[0]
    for one, rates in zip(found.machines, found.rates, strict=True):
        exact = fleets.rates_of(one, found.place)
        for name, rate in exact.items():
            assert rates[name].value == pytest.approx(rate.value, rel=1e-9)
    assert [one.accelerators for one in found.machines] == list(COUNTS)


def test_any_machine_is_every_accelerator_in_whole_nodes():
    found = fleets.any_machines()
    assert len(found) > 20
    for group in found:
        assert len({one.accelerator for one in group}) == 1
        assert all(one.accelerators in fleets.COUNTS for one in group)
        if not group[0].link_bytes_per_second:
            assert group[-1].nodes == 1


def test_the_cleanest_zone_is_a_region_for_who_rents():
    rented, own = (fleets.cleanest_zone(Place(tenure=how)) for how in ("rent", "own"))
    assert rented != own
    from curbcut.facts import grid

    assert grid.intensity(rented).kind == "cloud region"
    assert grid.intensity(own).gco2e_per_kwh <= grid.intensity("FRA").gco2e_per_kwh


@pytest.mark.parametrize("text_bytes", [0.0, 2e9])
def test_the_law_of_columns_is_the_law_of_one(text_bytes):
    found = choices(Question({"usd": 1e3}, text_bytes=text_bytes))
    for row in range(0, len(found.of_shape), 97):
        shape = found.shape(row)
        unique = found.law.unique_tokens(int(found.of_shape[row]))
        assert (unique is None) == (text_bytes == 0)
        alone = loss.expected(shape, 3e9, optimiser="muon", unique_tokens=unique).bits_per_byte
        many = found.law.bits(np.array([3e9]), found.of_shape[row:row + 1])
        assert many[0] == pytest.approx(alone.value, rel=1e-12)
    assert math.isinf(found.law.most_tokens[0]) == (text_bytes == 0)


def test_rows_draw_what_their_work_keeps_busy():
    found = choices(limited(usd=1e3))
    fits = np.flatnonzero(np.isfinite(found.per_token))
    flat = np.array([found.fleets[i].rates[m]["kwh"].value for i, m in zip(
        found.of_fleet[fits], found.of_machine[fits], strict=True)])
    moved = found.rates[fits, 1] / flat
    assert moved.min() < 0.96 and moved.max() > 1.0
    usd = [found.fleets[i].rates[m]["usd"].value for i, m in zip(
        found.of_fleet[fits], found.of_machine[fits], strict=True)]
    assert np.allclose(found.rates[fits, 0], usd)  # rented: the rent has the energy
    own = fleets.fleet([machine("8xH100")], Place(tenure="own", usd_per_kwh=0.3))
    slope = fleets.slope(own.machines[0], own.place)
    assert slope[0] == pytest.approx(0.3 * slope[1]) and slope[3] == 0


def test_the_law_of_columns_learns_from_own_runs():
    from curbcut.plan.backwards.law import Law
    from plan.test_plan_loss_learned import BOOKS, pair, run_on

    run = run_on()
    pairs = tuple(pair(run, ratio, tokens) for ratio, tokens in ((0.8, 5e7), (0.9, 5e8)))
    question = Question({"usd": 1e3}, text=BOOKS, pairs=pairs)
    law = Law(shapes(), question, run.recipe.optimiser)
    without = Law(shapes(), replace(question, pairs=()), run.recipe.optimiser)
    for place in (0, 5):
        for tokens in (1e8, 1e10):
            alone = loss.expected(shapes()[place], tokens, text=BOOKS, pairs=pairs,
                                  optimiser=run.recipe.optimiser).bits_per_byte.value
            many = law.bits(np.array([tokens]), np.array([place]))[0]
            assert many == pytest.approx(alone, rel=1e-12)
            assert many != without.bits(np.array([tokens]), np.array([place]))[0]


def test_memory_that_may_not_hold_is_marked_and_counts_as_slower():
    found = choices(limited(usd=1e3))
    tokens = np.full(len(found.per_token), 1e11)
    for row in map(int, np.flatnonzero(np.isfinite(found.per_token))[::23]):
        peak = memory.training(found.shape(row), points.recipe(found, row),
                               found.machine(row).kind)["peak"]
        high = peak * memory.MEMORY_SPREAD["gpu"]
        assert found.sure[row] == (high <= found.machine(row).memory_bytes)
    bits, scored = found.bits(tokens), found.scored(tokens)
    fits = np.isfinite(bits)
    assert (scored[fits & found.sure] == bits[fits & found.sure]).all()
    assert (scored[fits & ~found.sure] > bits[fits & ~found.sure]).all()


def test_a_machine_without_any_rate_is_left_out():
    from curbcut.errors import InputError
    from curbcut.plan.backwards.build import build

    dumb = replace(machine("1xH100"), peak_flops={}, name="1xnothing")
    with pytest.raises(InputError, match="no matmul rate"):
        build(limited(usd=1e3), [fleets.Fleet((dumb,), market()[0].place, market()[0].rates[:1])],
              shapes())


def test_a_power_limit_takes_time_and_saves_energy():
    from curbcut.plan.backwards.build import build

    free, held = (build(limited(usd=1e3), [fleets.fleet([machine("8xA100")], RENTED, limit)],
                        shapes(), {"power_limit": limit}) for limit in (1.0, 0.6))
    rows = np.isfinite(free.per_token)
    assert (held.per_token[rows] > free.per_token[rows]).all()
    joules = [one.per_token[rows] * one.rates[rows, 1] for one in (free, held)]
    assert (joules[1] < joules[0]).all()


def test_an_accelerator_without_a_purchase_price_is_not_owned_for_its_energy_alone():
    own = Place(tenure="own")
    known, missing = (fleets.fleet([machine(name)], own) for name in ("1xH100", "1xGB300"))
    assert fleets.priced([known, missing]) == [known]
    assert fleets.priced([fleets.fleet([machine("1xGB300")], RENTED)]) == []
