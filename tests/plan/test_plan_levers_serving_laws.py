"""Levers of serving: each sets what it says, fits, and keeps the laws of a waterfall."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.levers import price
from curbcut.plan.levers import serving as levers
from curbcut.plan.levers.case import Aim, Case, Refusal
from curbcut.plan.levers.catalogue import chosen
from plan.plan_lever_samples import fleet

USD = price.unit("usd")
UNITS = ("usd", "kwh", "kg", "hours")


def served(preset="llama-3-8b", name="8xH100", **job):
    run = fleet(name, "20B", preset)
    return replace(run, serve=replace(run.serve, **job))


def aim(unit=USD):
    return Aim(unit, lambda one: levers.price(one, unit).value)


def by_name(name):
    return next(one for one in levers.SERVING if one.name == name)


@pytest.fixture(scope="module", params=UNITS)
def found(request):
    return levers.serving_waterfall(served(), price.unit(request.param), what_if=True)


def test_steps_add_up_and_each_begins_where_the_last_ended(found):
    assert sum(one.marginal.value for one in found.steps) == pytest.approx(
        found.start.value - found.end.value)
    for one, other in itertools.pairwise(found.steps):
        assert one.after == other.before
    low, high = found.factor_ends
    assert low <= found.factor <= high
    for one in found.results:
        if one.alone is not None:
            assert one.alone.low <= one.alone.value <= one.alone.high
            assert one.uncertain == (one.alone if one.order is None
                                     else one.marginal).contains(0.0)


def test_each_lever_is_answered_once_and_one_of_each_kind_is_taken(found):
    assert sorted(one.name for one in found.results) == sorted(
        one.name for one in levers.SERVING)
    taken = {one.name for one in found.steps}
    for word in ("weights", "attention"):
        assert len(taken & {one.name for one in levers.SERVING if one.excludes == word}) <= 1
    assert not taken & {"grouped-query-attention", "latent-attention"}


@pytest.mark.parametrize(("name", "values"), [
    ("fp8-weights", {"weight_precision": "fp8"}), ("int4-weights", {"weight_precision": "int4"}),
    ("quantised-cache", {"cache_precision": "fp8"}),
    ("chunked-prefill", {"chunk_tokens": levers.CHUNK_TOKENS}),
    ("prefix-cache", {"prefix_hit_rate": levers.SHARED}),
    ("speculation", {"drafted_tokens": levers.DRAFTED})])
def test_each_sets_its_field_of_the_traffic_alone(name, values):
    case = Case(served())
    after = by_name(name).apply(case, aim())
    assert after.run.serve == replace(case.run.serve, **values)
    assert replace(after.run, serve=case.run.serve) == case.run
    assert after.factors == () and len(after.changed) == 1
    assert isinstance(by_name(name).apply(after, aim()), Refusal)


def test_batching_is_the_cheapest_size_that_fits_and_none_larger_is_cheaper():
    case, wanted = Case(served(max_batch=1)), aim()
    found = levers.batching(case, wanted)
    assert replace(found.run.serve, max_batch=1) == case.run.serve
    assert found.run.serve.max_batch in levers.BATCHES
    for size in levers.BATCHES:
        other = case.with_run(replace(case.run, serve=replace(case.run.serve, max_batch=size)))
        assert wanted.price(found) <= wanted.price(other)
    again = levers.batching(found, wanted)
    assert again.why == f"already on: {found.run.serve.max_batch} together"


def test_no_batch_fits_a_model_larger_than_the_memory():
    run = served()
    small = replace(run, machine=replace(run.machine, memory_bytes=2**30))
    found = levers.batching(Case(small), aim())
    assert (found.why, found.fits) == ("no batch fits into memory", False)


def test_accelerators_a_server_are_chosen_by_price_within_a_node():
    """A model that needs several: the lever finds how many, and says what is on."""
    case = Case(served("llama-3-70b", tensor_parallel=8, replicas=1))
    found = levers.tensor_parallel(case, aim())
    at_once = aim().price(case)
    if isinstance(found, Refusal):
        assert found.why == "already on: 8 accelerators a server"
    else:
        assert found.run.serve.tensor_parallel < 8 and aim().price(found) <= at_once
    one = Case(served("llama-3.2-1b", name="1xH100"))
    assert levers.tensor_parallel(one, aim()).why == "already on: 1 accelerators a server"


@pytest.mark.parametrize(("attention", "says"), [("mla", "a latent already"),
                                                 ("full", "8 key and value heads")])
def test_attention_that_is_small_already_is_left(attention, says):
    case = Case(served())
    shaped = case.with_run(replace(case.run, model=replace(case.run.model, attention=attention)))
    assert says in levers.grouped(shaped, aim()).why
    if attention == "mla":
        assert levers.latent(shaped, aim()).why == "already on"


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(["fp8-weights", "int4-weights", "speculation", "quantised-cache"]),
       batch=st.sampled_from([1, 8, 32]), prompt=st.sampled_from([128, 1024]),
       answer=st.sampled_from([32, 256]))
def test_narrower_formats_and_drafts_never_serve_fewer_tokens(kind, batch, prompt, answer):
    """Unless the objectives stop them, what reads less memory a token gives no fewer tokens."""
    run = served(max_batch=batch, prompt_tokens=prompt, output_tokens=answer, ttft_seconds=10.0,
                 tpot_seconds=1.0)
    case = Case(run)
    after = by_name(kind).apply(case, aim())
    hours = price.unit("hours")
    before, then = (levers.price(one, hours).value for one in (case, after))
    slack = 1.0 if kind != "speculation" else 1.02
    assert then <= before * slack * (1 + 1e-9)


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(UNITS), usd=st.floats(0.5, 20.0))
def test_the_price_of_a_million_tokens_is_its_accelerators_time(name, usd):
    run = served()
    run = replace(run, place=replace(run.place, usd_per_accelerator_hour=usd))
    found = levers.price(Case(run), price.unit(name))
    seconds = levers.price(Case(run), price.unit("hours")).value
    assert found.seconds == seconds > 0
    if name == "usd":
        assert found.value == pytest.approx(usd * seconds / 3600)
    assert found.estimate.low <= found.value <= found.estimate.high


def test_training_is_another_scope_and_its_levers_are_other_ones():
    assert not {one.name for one in levers.SERVING} & {one.name for one in chosen([])}
    both = levers.serving_waterfall(served(), USD, [by_name("int4-weights")])
    assert both.scope == "serving" and "tokens, on" not in both.of
    assert [one.name for one in both.results] == ["int4-weights"]


def test_a_prefix_joins_the_order_when_it_is_asked_for():
    some = [by_name("prefix-cache")]
    run = served(prompt_tokens=2048, output_tokens=64, ttft_seconds=10.0)
    without, with_it = (levers.serving_waterfall(run, USD, some, what_if=asked)
                        for asked in (False, True))
    assert without.steps == () and without.results[0].status == "what-if"
    assert [one.name for one in with_it.steps] == ["prefix-cache"]
    assert with_it.end.value < without.end.value
