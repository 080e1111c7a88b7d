from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.spec import Recipe
from curbcut.train.parallel.stages import head_layers, holders, stages
from tiny import tiny_run

RUN = tiny_run()


def cut(layers: int, pp: int, pipeline: str = "1f1b", virtual: int = 1, vocab: int = 300):
    shape = replace(RUN.model, layers=layers, vocab=vocab)
    return stages(shape, recipe(pp, pipeline, virtual))


def recipe(pp: int, pipeline: str = "1f1b", virtual: int = 1) -> Recipe:
    return replace(RUN.recipe, pp=pp, pipeline=pipeline, virtual_stages=virtual)


@pytest.mark.parametrize(("pipeline", "virtual", "held"), [
    ("1f1b", 1, [0, 1, 2]), ("zero-bubble", 1, [0, 1, 2]), ("interleaved", 2, [0, 1, 2, 0, 1, 2]),
    ("dualpipev", 1, [0, 1, 2, 2, 1, 0])])
def test_which_rank_holds_which_stage(pipeline, virtual, held):
    assert holders(recipe(3, pipeline, virtual)) == held


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from(["1f1b", "dualpipev"]),
       st.integers(10, 200_000))
def test_every_layer_has_one_stage_and_every_stage_a_layer(pp, layers, pipeline, vocab):
    layers = max(layers, 2 * pp)
    found = cut(layers, pp, pipeline, vocab=vocab)
    assert [i for stage in found for i in stage.layers] == list(range(layers))
    assert all(len(stage.layers) for stage in found)
    assert [stage.first for stage in found].count(True) == 1 and found[-1].last


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(1, 6))
def test_layers_that_divide_are_dealt_out_evenly_as_the_plan_prices_them(pp, each):
    assert {len(stage.layers) for stage in cut(pp * each, pp)} == {each}
    assert {len(stage.layers) for stage in cut(2 * pp * each, pp, "interleaved", 2)} == {each}
    assert {len(stage.layers) for stage in cut(2 * pp * each, pp, "dualpipev")} == {each}


@settings(max_examples=60)
@given(st.integers(2, 5), st.integers(5, 30), st.integers(100, 50_000))
def test_what_does_not_divide_is_cut_by_work(pp, layers, vocab):
    # no other whole number of layers for the head's rank lets the slowest rank be faster
    layers += layers % pp == 0
    found = cut(layers, pp, vocab=vocab)
    head = head_layers(replace(RUN.model, layers=layers, vocab=vocab), RUN.recipe)
    slowest = max(len(stage.layers) + head * stage.last for stage in found)
    best = min(max(last + head, math.ceil((layers - last) / (pp - 1)))
               for last in range(1, layers - pp + 2))
    assert slowest == pytest.approx(best)


def test_a_large_head_takes_layers_off_its_rank():
    assert [len(stage.layers) for stage in cut(11, 2, vocab=100)] == [6, 5]
    assert [len(stage.layers) for stage in cut(11, 2, vocab=2000)] == [9, 2]  # 6.25 layers
