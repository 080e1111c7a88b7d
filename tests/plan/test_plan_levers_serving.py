from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import InputError
from curbcut.plan.levers import price
from curbcut.plan.levers.case import Case, Refusal
from curbcut.plan.levers.serving import SERVING, grouped, latent, serving_waterfall, weights
from plan.plan_lever_samples import fleet

USD = price.unit("usd")


@pytest.fixture(scope="module")
def found():
    return serving_waterfall(fleet(), USD)


def result(found, name):
    return next(one for one in found.results if one.name == name)


def test_batching_saves_most_and_steps_add_up(found):
    assert found.steps[0].name == "continuous-batching"
    assert found.scope == "serving"
    assert sum(one.marginal.value for one in found.steps) == pytest.approx(
        found.start.value - found.end.value)
    assert "million answer tokens" in found.what


def test_quantised_weights_exclude_each_other_and_matter_most_at_small_batches(found):
    taken = {one.name for one in found.steps}
    assert len(taken & {"int4-weights", "fp8-weights"}) <= 1
    narrow, wide = (result(found, name).alone_share.value
                    for name in ("int4-weights", "fp8-weights"))
    assert narrow > wide > 0


def test_shared_prefixes_are_an_assumption(found):
    assert result(found, "prefix-cache").status == "what-if"


def test_attention_is_decided_before_training(found):
    one = result(found, "grouped-query-attention")
    assert one.status == "not here" and "8 key and value heads" in one.reason
    assert result(found, "latent-attention").status == "instead"


def test_grouping_and_latents_change_the_shape_alone():
    run = fleet()
    wide = Case(replace(run, model=replace(run.model, kv_heads=32)))
    for lever in (grouped, latent):
        after = lever(wide, None)
        assert replace(after.run, model=wide.run.model) == wide.run
    assert grouped(wide, None).run.model.kv_heads == 8
    assert latent(wide, None).run.model.kv_rank == 4 * run.model.head_size


def test_what_is_on_is_refused():
    run = fleet()
    on = Case(replace(run, serve=replace(run.serve, weight_precision="fp8", cache_precision="fp8",
                                         drafted_tokens=2, chunk_tokens=512,
                                         prefix_hit_rate=0.3)))
    refused = [one for one in SERVING if one.name in (
        "fp8-weights", "int4-weights", "quantised-cache", "speculation", "chunked-prefill",
        "prefix-cache")]
    assert all(isinstance(one.apply(on, None), Refusal) for one in refused)
    assert not isinstance(weights("int4")(Case(run), None), Refusal)


def test_energy_and_carbon_of_serving_fall_too():
    for name in ("kwh", "kg"):
        assert serving_waterfall(fleet(), price.unit(name)).factor > 1.5


def test_objectives_that_nobody_can_meet_are_said():
    run = fleet()
    strict = replace(run, serve=replace(run.serve, tpot_seconds=1e-9))
    with pytest.raises(InputError, match="not even one request"):
        serving_waterfall(strict, USD)
