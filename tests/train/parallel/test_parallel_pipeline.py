from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

import ranks
from curbcut.errors import InputError
from curbcut.model.loss import IGNORED
from curbcut.spec import checks
from curbcut.train import refusals
from curbcut.train.parallel import build, part, pipeline
from curbcut.train.parallel.schedules import order
from curbcut.train.parallel.stages import holders
from tiny import tiny_machine, tiny_run

KINDS = {"gpipe": {}, "1f1b": {}, "interleaved": {"virtual_stages": 2}, "zero-bubble": {},
         "dualpipev": {}}


def pipelined(kind: str, pp: int = 2, *, tied: bool = True, layers: int = 0, **recipe):
    return tiny_run(steps=10, model={"layers": layers or 2 * pp, "tied_embeddings": tied},
                    recipe={"pp": pp, "pipeline": kind, "micro_batch": 1, "global_batch": 2 * pp,
                            **KINDS[kind], **recipe})


def both(run, corpus, steps: int = 10):
    return ranks.trace(run, corpus, steps), ranks.trace(ranks.alone(run), corpus, steps)


@pytest.fixture(scope="module")
def one_process(tiny_corpus):
    """Traces of one process: the schedules of a shape are all held against the same."""
    kept = {}

    def trace(run):
        one = ranks.alone(run)
        key = (one.model, replace(one.recipe, pipeline="1f1b"))
        if key not in kept:
            kept[key] = ranks.trace(one, tiny_corpus)
        return kept[key]

    return trace


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_are_equal_to_one(kind, tied, tiny_corpus, one_process):
    run = pipelined(kind, tied=tied)
    ranks.assert_equal(ranks.trace(run, tiny_corpus), one_process(run))


@pytest.mark.parametrize("kind", ["1f1b", "zero-bubble"])
def test_four_ranks_are_equal_to_one(kind, tiny_corpus, one_process):
    run = pipelined(kind, 4)
    ranks.assert_equal(ranks.trace(run, tiny_corpus), one_process(run))


def test_stages_of_unequal_length_and_few_micro_batches_are_equal(tiny_corpus):
    run = pipelined("1f1b", layers=3, global_batch=1)
    ranks.assert_equal(*both(run, tiny_corpus))


def test_bf16_is_within_its_rounding(tiny_corpus):
    # the same roundings in another order: sums over micro-batches are fp32 on both sides
    many, one = both(pipelined("zero-bubble", precision="bf16"), tiny_corpus)
    np.testing.assert_allclose(many.losses, one.losses, rtol=2e-3)
    for name, wanted in one.gradients[0].items():
        worst = np.abs(many.gradients[0][name] - wanted).max()
        assert worst <= 2 ** -7 * np.abs(wanted).max(), name


def test_a_pipeline_that_cuts_nothing_is_noticed(monkeypatch, tiny_corpus):
    monkeypatch.setattr(pipeline, "apply", lambda model, world, recipe: model)
    with pytest.raises(AssertionError, match="isinstance"):
        ranks.trace(pipelined("1f1b"), tiny_corpus, 1)


def test_a_tied_embedding_that_is_not_added_up_is_noticed(monkeypatch, tiny_corpus):
    run = pipelined("1f1b")
    for room in (part, pipeline):
        monkeypatch.setattr(room, "tied_apart", lambda model, recipe: ())
    with pytest.raises(AssertionError, match="embed_tokens"):
        ranks.assert_equal(*both(run, tiny_corpus, 1))


def held(world, run):
    model, weights, _ = build.build(run, world)
    return list(dict(model.named_parameters())), weights.twice


def test_each_rank_holds_its_own_layers_under_their_own_names():
    run = pipelined("interleaved", tied=True)
    (first, twice), (second, also) = ranks.spawn(held, run.recipe, run)
    assert {name.split(".")[2] for name in first if "layers" in name} == {"0", "2"}
    assert {name.split(".")[2] for name in second if "layers" in name} == {"1", "3"}
    assert "model.embed_tokens.weight" in first and "model.embed_tokens.weight" in second
    assert "model.norm.weight" not in first and "model.norm.weight" in second
    assert twice == also == ("model.embed_tokens.weight",)


def test_a_folded_pipeline_holds_a_tied_embedding_once():
    run = pipelined("dualpipev", tied=True)
    (first, twice), (second, also) = ranks.spawn(held, run.recipe, run)
    assert {name.split(".")[2] for name in first if "layers" in name} == {"0", "3"}
    assert "model.norm.weight" in first and "model.embed_tokens.weight" not in second
    assert twice == also == ()


def evaluated(world, run, inputs, targets):
    _, _, passes = build.build(run, world)
    nats = passes.nats(torch.tensor(inputs), torch.tensor(targets))
    return world.sums([nats])[0]


@pytest.mark.parametrize("kind", ["1f1b", "interleaved", "dualpipev"])
def test_evaluation_on_a_pipeline_is_that_of_one_process(kind):
    tokens = np.random.default_rng(0).integers(0, 300, (5, 33))
    inputs, targets = tokens[:, :-1].tolist(), tokens[:, 1:]
    targets[3:, 7:] = IGNORED
    run = pipelined(kind, micro_batch=2, global_batch=8)
    one = ranks.alone(run)
    alone, = ranks.spawn(evaluated, one.recipe, one, inputs, targets.tolist())
    for nats in ranks.spawn(evaluated, run.recipe, run, inputs, targets.tolist()):
        assert nats == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(("recipe", "where"), [
    ({"pipeline": "zero-bubble", "global_batch": 5}, "recipe.global_batch"),
    ({"pipeline": "zero-bubble", "compile": True}, "recipe.pipeline"),
    ({"pipeline": "dualpipev", "compile": True}, "recipe.pipeline"),
    ({"pipeline": "dualpipev", "dp_shard": 2, "global_batch": 8}, "recipe.pipeline")])
def test_what_a_pipeline_does_not_run_is_refused_by_name(recipe, where):
    run = pipelined("1f1b", layers=4, **recipe)
    with pytest.raises(InputError, match="planned but not run") as caught:
        refusals.check(run.model, run.recipe, run.machine)
    assert caught.value.where == where and "recipe.pipeline = " in caught.value.mend


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(1, 14), st.sampled_from(sorted(KINDS)))
def test_torch_takes_each_number_of_micro_batches_that_is_not_refused(pp, count, kind):
    run = pipelined(kind, pp, layers=8 * pp, global_batch=count)
    try:
        checks.recipe(run.model, run.recipe, tiny_machine(accelerators_per_node=pp))
        refusals.check(run.model, run.recipe, run.machine)
    except InputError:
        return
    made = [mock.create_autospec(PipelineStage, instance=True)
            for _ in range(len(holders(run.recipe)) // pp)]
    for stage in made:
        stage.group_rank, stage.group_size, stage.submod = 0, pp, None
        stage.num_stages = len(holders(run.recipe))
    how = order(run.recipe)
    assert how(made[0] if issubclass(how, PipelineScheduleSingle) else made, count)
