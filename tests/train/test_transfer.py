"""muP (arXiv:2203.03466): what must not move with width, and a rate that carries over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from curbcut.train import norm, optimiser, precision, transfer
from curbcut.train.parallel.build import build
from curbcut.train.world import World
from tiny import tiny_run

BASE = 32


def run_of(width, *, base=BASE, optimiser="adamw", rate=1e-2):
    return tiny_run(model={"width": width, "heads": width // 16, "kv_heads": width // 16,
                           "ffn": 2 * width, "vocab": 64, "head_size": 16},
                    recipe={"mup_base_width": base, "optimiser": optimiser, "weight_decay": 0.0,
                            "learning_rate": rate, "sequence_tokens": 16,
                            "micro_batch": 16, "global_batch": 16})


def text(step, sequences=16):
    """Sequences in which each token tells the next: something to learn."""
    generator = torch.Generator().manual_seed(step)
    first = torch.randint(64, (sequences, 1), generator=generator)
    return (first * 5 + torch.arange(17) * 7) % 64


def trained(run, steps):
    """Losses of some steps, and the model."""
    model, weights, passes = build(run, World())
    updater = optimiser.updater(weights.masters, run.recipe,
                                transfer.ratio(run.model, run.recipe))
    losses = []
    for step in range(steps):
        tokens = text(step)
        losses.append(passes.gradients(tokens[:, :-1], tokens[:, 1:]))
        precision.reduce_gradients(weights)
        norm.scale(weights.masters, math.sqrt(norm.square_sum(weights.masters, World(), 1)), 1.0)
        updater.step(run.recipe.learning_rate)
        updater.forget_gradients()
    return losses, model


def coordinates(width, optimiser, base, steps=4):
    """How far some steps move hidden states and scores, as root mean squares."""
    run = run_of(width, optimiser=optimiser, base=base)
    before, after = build(run, World())[0], trained(run, steps)[1]
    tokens = text(999)[:, :-1]
    with torch.no_grad():
        scores = [model.logits(model(tokens)) for model in (before, after)]
        inner = [model.model.layers[1].mlp(torch.nn.functional.rms_norm(
            model.model.embed_tokens(tokens), (width,))) for model in (before, after)]
    return {"scores": (scores[1] - scores[0]).square().mean().sqrt().item(),
            "block": (inner[1] - inner[0]).square().mean().sqrt().item()}


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_activations_move_alike_at_every_width(optimiser):
    narrow, wide = (coordinates(width, optimiser, BASE) for width in (BASE, 8 * BASE))
    for name, moved in narrow.items():
        assert wide[name] / moved == pytest.approx(1, abs=0.75), (name, moved, wide[name])


def test_without_it_they_grow_with_width():
    narrow, wide = (coordinates(width, "adamw", 0) for width in (BASE, 8 * BASE))
    assert wide["block"] > 2 * narrow["block"] and wide["scores"] > 2 * narrow["scores"]


@pytest.mark.slow
def test_the_best_rate_of_a_narrow_model_is_the_wide_ones():
    rates = [2.0 ** -power for power in (9, 6, 3)]

    def best(width):
        ends = {rate: sum(trained(run_of(width, rate=rate), 20)[0][-5:]) for rate in rates}
        return min(ends, key=ends.__getitem__)

    assert best(64) == best(256)


def test_the_table_at_the_base_width_is_one_and_hidden_rates_fall_with_width():
    hidden, router = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate.weight"
    for name, dims in ((hidden, 2), (router, 2), (transfer.LAST_NORM, 1),
                       ("model.embed_tokens.weight", 2), ("lm_head.weight", 2)):
        assert transfer.rate_factor(name, dims, 1.0) == 1
        assert transfer.first_factor(name, dims, 1.0) == 1
    assert transfer.rate_factor(hidden, 2, 4.0) == 0.25
    assert transfer.rate_factor(hidden, 2, 4.0, muon=True) == 0.5
    assert transfer.rate_factor("model.layers.0.mlp.experts.up_proj", 3, 4.0) == 0.25
    assert transfer.first_factor(hidden, 2, 4.0) == 0.5
    assert transfer.rate_factor(transfer.LAST_NORM, 1, 4.0) == 0.25
    assert transfer.rate_factor("model.embed_tokens.weight", 2, 4.0) == 1


def test_rate_times_decay_is_the_same_for_every_matrix():
    run = run_of(4 * BASE)
    recipe = replace(run.recipe, weight_decay=0.1)
    _, weights, _ = build(run, World())
    updater = optimiser.updater(weights.masters, recipe, 4.0)
    for group in updater.parts[0].param_groups:
        matrices = group["params"][0].ndim > 1
        assert group["rate_factor"] * group["weight_decay"] == pytest.approx(
            0.1 if matrices else 0.0)


def test_first_weights_are_scaled_and_the_default_is_not():
    plain, scaled = (dict(build(run_of(4 * BASE, base=base), World())[0].named_parameters())
                     for base in (0, BASE))
    for name, parameter in plain.items():
        factor = transfer.first_factor(name, parameter.ndim, 4.0)
        assert torch.equal(scaled[name], parameter * factor), name
    assert torch.equal(scaled[transfer.LAST_NORM], torch.full((4 * BASE,), 0.25))
