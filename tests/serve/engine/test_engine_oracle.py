"""Our network gives transformers' logits, for each shape it has, however the tokens come."""

from __future__ import annotations

import random

import pytest
import torch

import families
from curbcut.model import weights
from curbcut.serve.engine.loading import load_runner
from curbcut.serve.engine.runner import TorchRunner

ALLOWED = 1e-4


@pytest.fixture(scope="module", params=families.OURS)
def both(request, tmp_path_factory):
    """A model of transformers, and the folder that it saved itself in."""
    kind, changes = families.OURS[request.param]
    model = families.build(kind, **changes)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, folder


def test_distributions_are_sharp(both):
    likeliest = families.whole(both[0], list(range(40))).softmax(-1).max(-1).values
    assert likeliest.median() > 0.3


@pytest.mark.parametrize("page_tokens", [1, 5, 16])
def test_logits_over_ragged_batches_pieces_pages_and_preemption(both, page_tokens):
    model, folder = both
    runner = TorchRunner(weights.load(folder)[0], 4 * 48, page_tokens=page_tokens)
    chance = random.Random(page_tokens)
    longest = {1: 1, 5: 7, 16: 40}[page_tokens]
    assert families.largest_difference(runner, model, chance, longest=longest) < ALLOWED


def test_the_decoder_that_trains_gives_them_too(both):
    model, folder = both
    tokens = list(range(50))
    ours, _ = weights.load(folder, "math")
    with torch.no_grad():
        logits = ours.logits(ours(torch.tensor([tokens])))[0]
    assert (logits - families.whole(model, tokens)).abs().max() < ALLOWED


def test_a_shape_says_all_of_the_config_and_all_parameters(both):
    from transformers import AutoModelForCausalLM

    model, folder = both
    ours, shape = weights.load(folder)
    assert weights.shape_of(weights.config(shape)) == shape
    older = {k: v for k, v in weights.config(shape).items() if k != "rope_parameters"}
    assert weights.shape_of(older) == shape
    assert sum(one.numel() for one in ours.parameters()) == shape.parameters
    weights.save(ours, shape, folder / "again")
    theirs = AutoModelForCausalLM.from_pretrained(folder / "again")
    tokens = list(range(40))
    assert (families.whole(theirs, tokens) - families.whole(model, tokens)).abs().max() < 1e-5


def test_our_own_engine_is_chosen_for_them(both):
    assert isinstance(load_runner(both[1], cache_tokens=64), TorchRunner)


def test_a_wrong_rotation_or_bias_would_be_seen(tmp_path):
    """The oracle can fail: what tells these shapes apart changes logits by far more."""
    from dataclasses import replace

    from curbcut.model.decoder import Decoder

    for name, field in (("Llama 3.1", {"rope_factor": 1.0}), ("Qwen3", {"norm_eps": 1e-2})):
        kind, changes = families.OURS[name]
        model = families.build(kind, **changes)
        model.save_pretrained(tmp_path / kind)
        ours, shape = weights.load(tmp_path / kind)
        other = Decoder(replace(shape, **field))
        other.load_state_dict(ours.state_dict())
        runner = TorchRunner(other, 4 * 48)
        assert families.largest_difference(runner, model, random.Random(0)) > 100 * ALLOWED
