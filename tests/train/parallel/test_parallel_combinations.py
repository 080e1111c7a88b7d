"""Methods together on four ranks, each equal to one process. More stand with each method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ranks
from tiny import tiny_run

SHAPE = {"layers": 4, "kv_heads": 2}
STEPS = 4
"""Each method alone is held to ten; together they can differ in what they do to one another."""
TOGETHER = {
    "pp x fsdp": {"pp": 2, "dp_shard": 2},
    "pp x zero-1": {"pp": 2, "dp_shard": 2, "shard": "optimiser"},
    "pp x ddp": {"pp": 2, "dp_replicate": 2},
    "pp x tp, along the sequence": {"pp": 2, "tp": 2, "sequence_parallel": True},
    "pp x cp": {"pp": 2, "cp": 2},
    "interleaved x fsdp": {"pp": 2, "dp_shard": 2, "pipeline": "interleaved", "virtual_stages": 2},
    "zero-bubble x fsdp": {"pp": 2, "dp_shard": 2, "pipeline": "zero-bubble"},
    "zero-bubble x tp": {"pp": 2, "tp": 2, "pipeline": "zero-bubble"},
    "ddp x tp": {"dp_replicate": 2, "tp": 2},
    "ddp x cp": {"dp_replicate": 2, "cp": 2},
    "dualpipev x tp": {"pp": 2, "tp": 2, "pipeline": "dualpipev"},
}


def together(tied: bool = True, **recipe):
    return tiny_run(steps=STEPS, model={**SHAPE, "tied_embeddings": tied},
                    recipe={"micro_batch": 1, "global_batch": 8, **recipe})


@pytest.fixture(scope="module")
def one_process(tiny_corpus):
    """All layouts of one batch are held against the same single process."""
    return ranks.trace(ranks.alone(together()), tiny_corpus, STEPS)


@pytest.mark.parametrize("name", TOGETHER)
def test_methods_together_are_equal_to_one_process(name, tiny_corpus, one_process):
    many = ranks.trace(together(**TOGETHER[name]), tiny_corpus, STEPS)
    ranks.assert_equal(many, one_process)


def test_biases_are_cut_staged_and_split_like_their_matrices(tiny_corpus):
    plain = together(**TOGETHER["zero-bubble x tp"])
    run = replace(plain, model=replace(plain.model, qkv_bias=True))
    many, one = (ranks.trace(each, tiny_corpus, STEPS) for each in (run, ranks.alone(run)))
    ranks.assert_equal(many, one)
    assert np.abs(many.weights["model.layers.0.self_attn.q_proj.bias"]).max() > 0
