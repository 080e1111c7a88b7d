"""FSDP2's layouts (ZeRO-2, ZeRO-3, hybrid) against one process, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

import measured
import ranks
from curbcut.physics import memory, operations
from curbcut.train import refusals
from curbcut.train.parallel import build
from tiny import tiny_run

FOUR = {"micro_batch": 1}
MORE = {"micro_batch": 1, "global_batch": 8}
LAYOUTS = {
    "zero-2": {"dp_shard": 2, "shard": "gradients"},
    "zero-2 accumulated": {"dp_shard": 2, "shard": "gradients", **MORE},
    "zero-3": {"dp_shard": 2},
    "zero-3 4": {"dp_shard": 4, **FOUR},
    "zero-3 accumulated": {"dp_shard": 2, **MORE},
    "hybrid": {"dp_replicate": 2, "dp_shard": 2, **FOUR},
    "hybrid accumulated": {"dp_replicate": 2, "dp_shard": 2, **MORE},
    "hybrid zero-2": {"dp_replicate": 2, "dp_shard": 2, "shard": "gradients", **MORE},
}
TWO = [{"dp_shard": 2}, {"dp_shard": 2, "shard": "gradients"}]
SHAPE = {"layers": 8, "width": 128, "heads": 4, "kv_heads": 4, "head_size": 32, "ffn": 384,
         "vocab": 512}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_one_process(tiny_corpus, layout):
    run = tiny_run(steps=10, recipe=LAYOUTS[layout])
    ranks.assert_equal(ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus))


@pytest.mark.parametrize("recipe", TWO)
@pytest.mark.parametrize("changes", [
    {"model": {"tied_embeddings": False}}, {"recipe": {"clip_norm": 0.05}}])
def test_untied_embeddings_and_clipping(tiny_corpus, recipe, changes):
    run = tiny_run(steps=10, model=changes.get("model"),
                   recipe={**recipe, **changes.get("recipe", {})})
    many, one = ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus)
    ranks.assert_equal(many, one)
    if "recipe" in changes:
        squares = sum(float((g.astype("f8") ** 2).sum()) for g in many.gradients[0].values())
        assert squares ** 0.5 == pytest.approx(0.05, rel=1e-3), "clipping was to be active"


@pytest.mark.parametrize("recipe", TWO)
def test_bf16_differs_by_the_order_of_fp32_sums_only(tiny_corpus, recipe):
    run = tiny_run(steps=10, recipe={**recipe, **MORE, "precision": "bf16"})
    ranks.assert_equal(ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus),
                       tolerance=2e-2)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_parameters_that_rest_in_host_memory(tiny_corpus, monkeypatch, kind):
    monkeypatch.setattr(refusals, "check", lambda *_: None)  # on a CPU it moves nothing
    run = tiny_run(steps=4, recipe={"dp_shard": 2, "precision": kind, "offload": "parameters"})
    ranks.assert_equal(ranks.trace(run, tiny_corpus, 4), measured.alone(run, tiny_corpus, 4),
                       tolerance=1e-5 if kind == "fp32" else 2e-2)


@pytest.mark.parametrize("recipe", TWO)
def test_a_method_that_does_nothing_is_seen(tiny_corpus, monkeypatch, recipe):
    run = tiny_run(steps=2, recipe=recipe)
    before = measured.measure(run, tiny_corpus)
    monkeypatch.setattr(build.sharded, "apply", lambda model, world, recipe: model)
    after = measured.measure(run, tiny_corpus)
    with pytest.raises(AssertionError):
        ranks.assert_equal(ranks.trace(run, tiny_corpus, 2), measured.alone(run, tiny_corpus, 2))
    assert after[0].calls == {} != before[0].calls
    for kind in ("masters", "moments", "gradients"):
        held, whole = getattr(before[0], kind), getattr(after[0], kind)
        assert held == pytest.approx(whole / 2, rel=0.02), kind


@pytest.mark.parametrize("layout", ["zero-2 accumulated", "zero-3 accumulated"])
def test_collectives_are_those_that_the_plan_prices(tiny_corpus, layout):
    run = tiny_run(recipe=LAYOUTS[layout])
    elements = operations.ElementBytes(4, 4, 4)
    priced: dict[str, list[float]] = {}
    for each in operations.collectives(run.model, run.recipe, elements, True):
        calls, bytes_ = priced.get(each.kind, [0, 0])
        if each.ranks > 1 and each.times:
            priced[each.kind] = [calls + each.times, bytes_ + each.step_bytes]
    for step in measured.measure(run, tiny_corpus):
        assert step.calls == {kind: calls for kind, (calls, _) in priced.items()}
        assert step.bytes == pytest.approx({k: size for k, (_, size) in priced.items()}, rel=0.01)


def test_replicas_meet_once_a_step(tiny_corpus):
    run = tiny_run(recipe=LAYOUTS["hybrid accumulated"])
    layers, more = run.model.layers, run.recipe.accumulation
    assert more == 2
    for step in measured.measure(run, tiny_corpus):
        assert step.calls == {"all_gather": (2 * layers + 1) * more,
                              "reduce_scatter": (layers + 1) * more, "all_reduce": layers + 1}


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", TWO)
def test_bytes_are_those_that_the_plan_promises(tiny_corpus, recipe, kind):
    run = tiny_run(model=SHAPE, recipe={**recipe, "precision": kind, **MORE})
    promised = memory.training(run.model, run.recipe, "cpu")
    whole = run.model.parameters * (2 if kind == "bf16" else 4)
    resting = whole if recipe.get("shard") == "gradients" else 0  # gathered while a step lasts
    for step in measured.measure(run, tiny_corpus):
        states = step.masters + step.moments + resting
        assert states == pytest.approx(promised["parameters"] + promised["optimiser"], rel=0.02)
        assert step.gradients == pytest.approx(promised["gradients"], rel=0.02)
        assert step.peak == pytest.approx(promised["peak"] - promised["overhead"], rel=0.12)


def test_what_rests_goes_with_what_is_shared():
    gpu = replace(tiny_run().machine, kind="gpu")

    def reason(**changes):
        run = tiny_run(recipe=changes)
        return refusals.reason(run.model, run.recipe, gpu)

    assert reason(offload="parameters", dp_shard=2) == ""
    assert reason(offload="optimiser", dp_shard=2, shard="optimiser") == ""
    assert reason(offload="optimiser", dp_replicate=2) == ""
    assert "each rank holds whole" in reason(offload="parameters")
    assert "each rank holds whole" in reason(offload="parameters", dp_replicate=2)
    assert 'shard = "gradients"' in reason(offload="optimiser", dp_shard=2, shard="gradients")
    assert "tp = 2" in reason(offload="optimiser", tp=2)
    assert "ep = 2" in reason(shard="optimiser", dp_shard=2, ep=2)
    run = tiny_run(recipe={"offload": "parameters", "dp_shard": 2})
    assert "on a CPU" in refusals.reason(run.model, run.recipe, run.machine)
