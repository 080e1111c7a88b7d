"""Weights that each rank holds whole: replicas (DDP) and ZeRO-1's owners, against one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import measured
import ranks
from curbcut.errors import InputError
from curbcut.physics import memory
from curbcut.train import precision, refusals
from curbcut.train.parallel import build, exchange, zero1
from tiny import tiny_run

FOUR = {"micro_batch": 1}
MORE = {"micro_batch": 1, "global_batch": 8}
LAYOUTS = {
    "ddp 2": {"dp_replicate": 2},
    "ddp 4": {"dp_replicate": 4, **FOUR},
    "ddp accumulated": {"dp_replicate": 2, **MORE},
    "zero-1 2": {"dp_shard": 2, "shard": "optimiser"},
    "zero-1 4": {"dp_shard": 4, "shard": "optimiser", **FOUR},
    "zero-1 2x2": {"dp_replicate": 2, "dp_shard": 2, "shard": "optimiser", **FOUR},
    "zero-1 accumulated": {"dp_shard": 2, "shard": "optimiser", **MORE},
}
TWO = [{"dp_replicate": 2}, {"dp_shard": 2, "shard": "optimiser"}]
SHAPE = {"layers": 8, "width": 128, "heads": 4, "kv_heads": 4, "head_size": 32, "ffn": 384,
         "vocab": 512}


@pytest.fixture
def small_buckets(monkeypatch):
    """Several buckets of a model that would fit in one."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 2**14)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_one_process(tiny_corpus, small_buckets, layout):
    run = tiny_run(steps=10, recipe=LAYOUTS[layout])
    ranks.assert_equal(ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus))


@pytest.mark.parametrize("recipe", TWO)
@pytest.mark.parametrize("changes", [
    {"model": {"tied_embeddings": False}},
    {"recipe": {"clip_norm": 0.05}}, {"recipe": {"optimiser": "muon"}}])
def test_whatever_the_model_and_the_optimiser(tiny_corpus, recipe, changes):
    run = tiny_run(steps=10, model=changes.get("model"),
                   recipe={**recipe, **changes.get("recipe", {})})
    many, one = ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus)
    ranks.assert_equal(many, one)
    if "clip_norm" in changes.get("recipe", {}):
        squares = sum(float((g.astype("f8") ** 2).sum()) for g in many.gradients[0].values())
        assert squares ** 0.5 == pytest.approx(0.05, rel=1e-3), "clipping was to be active"


@pytest.mark.parametrize("recipe", TWO)
def test_bf16_differs_by_the_order_of_fp32_sums_only(tiny_corpus, recipe):
    run = tiny_run(steps=10, recipe={**recipe, **MORE, "precision": "bf16"})
    ranks.assert_equal(ranks.trace(run, tiny_corpus), measured.alone(run, tiny_corpus),
                       tolerance=2e-2)


@pytest.mark.parametrize(("recipe", "kind"), [({}, "fp32"), (TWO[0], "fp32"), (TWO[1], "fp32"),
                                             (TWO[1], "bf16")])
def test_masters_that_rest_in_host_memory(tiny_corpus, monkeypatch, recipe, kind):
    monkeypatch.setattr(refusals, "check", lambda *_: None)  # on a CPU it moves nothing
    run = tiny_run(steps=4, recipe={**recipe, "precision": kind, "offload": "optimiser"})
    ranks.assert_equal(ranks.trace(run, tiny_corpus, 4), measured.alone(run, tiny_corpus, 4),
                       tolerance=1e-5 if kind == "fp32" else 2e-2)
    assert all(step.compute > 0 for step in measured.measure(run, tiny_corpus))


@pytest.mark.parametrize(("recipe", "module", "name"), [
    (TWO[0], "replicated", "weights"), (TWO[1], "zero1", "weights")])
def test_a_method_that_does_nothing_is_seen(tiny_corpus, monkeypatch, recipe, module, name):
    run = tiny_run(steps=2, recipe=recipe)
    one = measured.alone(run, tiny_corpus, 2)
    before = measured.measure(run, tiny_corpus)
    monkeypatch.setattr(getattr(build, module), name, lambda model, world, recipe:
                        precision.split_weights(model, recipe.precision))
    with pytest.raises(AssertionError):
        ranks.assert_equal(ranks.trace(run, tiny_corpus, 2), one)
    after = measured.measure(run, tiny_corpus)
    assert before[0].calls != after[0].calls == {}
    if module == "zero1":
        assert max(step.moments for step in before) < 0.7 * after[0].moments


@pytest.mark.parametrize("accumulated", [1, 3])
def test_gradients_travel_once_a_step_whatever_is_accumulated(tiny_corpus, accumulated):
    run = tiny_run(recipe={**TWO[0], "micro_batch": 1, "global_batch": 2 * accumulated})
    bytes_ = 4 * run.model.parameters
    for step in measured.measure(run, tiny_corpus):
        assert step.calls == {"all_reduce": 1} and step.bytes == {"all_reduce": bytes_}
    dealt = replace(run, recipe=replace(run.recipe, dp_replicate=1, dp_shard=2, shard="optimiser",
                                        precision="bf16"))
    for step in measured.measure(dealt, tiny_corpus):
        assert step.bytes == {"reduce": bytes_, "broadcast": bytes_ / 2}


def test_buckets_leave_while_the_backward_pass_goes_on(tiny_corpus, small_buckets):
    told = ranks.spawn(_sent_early, tiny_run(recipe=TWO[0]).recipe, tiny_corpus)
    for early, count in told:
        assert count > 3 and early == count


def _sent_early(place, corpus):
    import tempfile
    from pathlib import Path

    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.loop import take_step
    from curbcut.train.session import open_session

    run, seen = tiny_run(recipe=TWO[0]), []
    session = open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                           world=place)
    whole = session.weights.exchange
    reduce = whole.reduce
    whole.reduce = lambda: (seen.append(whole._sent), reduce())
    take_step(session)
    return seen[0], len(whole.buckets)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", TWO)
def test_bytes_are_those_that_the_plan_promises(tiny_corpus, monkeypatch, recipe, kind):
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 2**18)
    run = tiny_run(model=SHAPE, recipe={**recipe, "precision": kind, "micro_batch": 1})
    promised = memory.training(run.model, run.recipe, "cpu")
    for step in measured.measure(run, tiny_corpus):
        states = step.masters + step.moments + step.compute
        assert states == pytest.approx(promised["parameters"] + promised["optimiser"], rel=0.02)
        assert step.peak == pytest.approx(promised["peak"] - promised["overhead"], rel=0.1)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_each_tensor_has_one_owner_and_no_owner_has_much_more_than_another(sizes, count):
    named = {f"tensor {i}": size for i, size in enumerate(sizes)}
    owners = zero1.deal(named, count)
    assert list(owners) == list(named) and set(owners.values()) <= set(range(count))
    load = [sum(named[n] for n, owner in owners.items() if owner == place)
            for place in range(count)]
    assert max(load) - min(load) <= max(sizes)
    assert zero1.deal(dict(reversed(named.items())), count) == owners


@given(st.lists(st.integers(1, 2**23), min_size=1, max_size=30), st.integers(1, 4))
def test_buckets_hold_each_tensor_once_with_its_owner_and_are_not_too_large(sizes, count):
    named = {f"tensor {i}": size for i, size in enumerate(sizes)}
    owners = zero1.deal(named, count) if count > 1 else {}
    found = exchange.buckets(named, owners)
    assert sorted(name for bucket in found for name in bucket.names) == sorted(named)
    for bucket in found:
        assert {owners.get(name, exchange.EVERYBODY) for name in bucket.names} == {bucket.owner}
        held = 4 * sum(named[name] for name in bucket.names)
        assert held <= exchange.BUCKET_BYTES or len(bucket.names) == 1


def test_more_owners_than_tensors_are_refused(tiny_corpus):
    def refused(place):
        class Few:
            def named_parameters(self):
                import torch
                return [("only", torch.nn.Parameter(torch.zeros(2)))]

        with pytest.raises(InputError, match="cannot be dealt out"):
            zero1.weights(Few(), place, tiny_run(recipe=TWO[1]).recipe)

    ranks.spawn(refused, tiny_run(recipe=TWO[1]).recipe)
