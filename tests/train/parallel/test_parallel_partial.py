"""Parts of an attention put together are the whole, and their gradients add up to its."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model.decoder import math_attention
from curbcut.train.parallel.partial import Fused, Math, Whole, join, kernel


def together(way, query, key, value, grad, cut):
    """Output and gradients of queries that see `cut` keys, then as many as they are causally."""
    before = (key[:, :, :cut].contiguous(), value[:, :, :cut].contiguous())
    own = (key[:, :, cut:].contiguous(), value[:, :, cut:].contiguous())
    out, logs = way.part(query, *own, causal=True)
    join(out, logs, *way.part(query, *before, causal=False))
    whole = Whole(grad, out.to(query.dtype), logs)
    mine = way.gradients(query, *own, whole, causal=True)
    theirs = way.gradients(query, *before, whole, causal=False)
    return [out, mine.query + theirs.query, torch.cat((theirs.key, mine.key), 2),
            torch.cat((theirs.value, mine.value), 2)]


def error(way, group, s, cut, dtype=torch.float32, device="cpu", d=8):
    source = torch.Generator().manual_seed(s + cut)
    query, key, value, grad = (
        torch.randn(size, generator=source).to(device, dtype)
        for size in ((2, 2 * group, s, d), (2, 2, s + cut, d), (2, 2, s + cut, d),
                     (2, 2 * group, s, d)))
    found = together(way, query, key, value, grad, cut)
    wide = [x.double().requires_grad_() for x in (query, key, value)]
    mask = torch.full((s, s + cut), -torch.inf, dtype=torch.float64, device=device).triu(cut + 1)
    out = math_attention(*wide, mask.expand(2, 1, s, s + cut))
    out.backward(grad.double())
    wanted = [out.detach(), *(x.grad for x in wide)]
    return max(float((a.double() - b).abs().max() / b.abs().max())
               for a, b in zip(found, wanted, strict=True))


@settings(max_examples=12, deadline=None)
@given(group=st.integers(1, 3), s=st.integers(2, 200), cut=st.integers(1, 150),
       fused=st.booleans())
def test_parts_are_the_whole(group, s, cut, fused):
    assert error(Fused() if fused else Math(), group, s, cut) < 3e-6


@pytest.mark.parametrize("way", [Math(), Fused()])
def test_parts_in_bf16_are_the_whole_to_its_rounding(way):
    assert error(way, 2, 150, 64, torch.bfloat16) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("way", [Math(), Fused()])
def test_parts_on_a_gpu(way):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert error(way, 2, 256, 128, torch.bfloat16, "cuda", d=64) < 0.02


def test_flash_is_taken_where_the_recipe_wants_it():
    assert isinstance(kernel(True, torch.zeros(1, 1, 2, 8)), Fused)
    assert isinstance(kernel(False, torch.zeros(1, 1, 2, 8)), Math)
    assert isinstance(kernel(True, torch.zeros(1, 1, 2, 8, device="meta")), Math)


def test_a_part_that_sees_nothing_new_of_weight_changes_nothing():
    out, logs = torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3)
    join(out, logs, torch.full_like(out, 9.0), torch.full_like(logs, -200.0))
    assert torch.equal(out, torch.ones_like(out)) and torch.equal(logs, torch.zeros_like(logs))
