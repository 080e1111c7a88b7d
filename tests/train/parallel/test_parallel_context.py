"""Context parallelism: sequences that several ranks share."""

from __future__ import annotations

import pytest
import torch

import ranks
from curbcut.train.parallel import context
from tiny import tiny_run

FOUR = {"heads": 4, "kv_heads": 2, "head_size": 8}
LAYOUTS = {
    "ring 2": ({"cp": 2}, {}),
    "ring 4": ({"cp": 4}, FOUR),
    "ring 2, fused": ({"cp": 2, "attention": "fused"}, FOUR),
    "ulysses 2": ({"cp": 2, "context": "ulysses"}, FOUR),
    "ulysses 4, two key heads": ({"cp": 4, "context": "ulysses"}, FOUR),
    "ring 2, tp 2": ({"cp": 2, "tp": 2}, FOUR),
    "ulysses 2, tp 2, sequence": ({"cp": 2, "context": "ulysses", "tp": 2,
                                   "sequence_parallel": True}, FOUR),
    "ring 2, shards 2": ({"cp": 2, "dp_shard": 2}, FOUR),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_one_process(tiny_corpus, layout):
    recipe, model = LAYOUTS[layout]
    # A high rate would show rounding of near-zero gradients: AdamW's first steps are of one size.
    run = tiny_run(steps=10, recipe={"learning_rate": 1e-4} | recipe, model=model)
    ranks.assert_equal(ranks.trace(run, tiny_corpus), ranks.trace(ranks.alone(run), tiny_corpus))


def attention_error(place, kind, fused, kv_heads, tokens, dtype):
    """Largest error of output and gradients against attention over the whole sequence in fp64."""
    from curbcut.model.decoder import math_attention

    source = torch.Generator().manual_seed(3)
    sizes = [(2, heads, tokens, 8) for heads in (4, kv_heads, kv_heads, 4)]
    whole = [torch.randn(size, generator=source, dtype=dtype) for size in sizes]
    cp = place.degree("cp")
    places = context.pieces(tokens, place.coordinate("cp"), cp)
    recipe = tiny_run(recipe={"cp": cp, "context": kind,
                              "attention": "fused" if fused else "math"}).recipe
    from curbcut.model.attention import causal_attention

    attend = context._attention(causal_attention, place, recipe)
    mine = [x[:, :, places].clone().requires_grad_() for x in whole[:3]]
    out = attend(*mine)
    out.backward(whole[3][:, :, places])
    wanted = [x.double().requires_grad_() for x in whole[:3]]
    mask = torch.full((1, 1, tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)
    expected = math_attention(*wanted, mask.expand(2, 1, tokens, tokens))
    expected.backward(whole[3].double())
    pairs = [(out, expected), *((x.grad, y.grad) for x, y in zip(mine, wanted, strict=True))]
    return max(float((x.double() - y[:, :, places]).abs().max() / y.abs().max()) for x, y in pairs)


@pytest.mark.parametrize(("kind", "fused"), [
    ("ring", False), ("ring", True), ("ulysses", False)])
@pytest.mark.parametrize("cp", [2, 4])
def test_attention_over_ranks_is_attention_over_the_sequence(kind, fused, cp):
    recipe = tiny_run(recipe={"cp": cp, "context": kind}).recipe
    for kv_heads, dtype, close in ((1, torch.float32, 2e-6), (2, torch.float32, 2e-6),
                                   (4, torch.bfloat16, 0.02)):
        errors = ranks.spawn(attention_error, recipe, kind, fused, kv_heads, 320, dtype)
        assert max(errors) < close


def test_a_ring_that_is_not_applied_does_not_pass_for_the_same(tiny_corpus, monkeypatch):
    from curbcut.train.parallel import build

    monkeypatch.setattr(build.context, "apply", lambda model, world, recipe: model)
    run = tiny_run(steps=2, recipe={"cp": 2})
    many, one = ranks.trace(run, tiny_corpus, 2), ranks.trace(ranks.alone(run), tiny_corpus, 2)
    with pytest.raises(AssertionError):
        ranks.assert_equal(many, one)
