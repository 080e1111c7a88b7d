from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curbcut.train.adamw8 import BLOCK, LEAST_ELEMENTS, AdamW8, code, coded, decoded

CPU = torch.device("cpu")


def group(parameter, **changes):
    return [{"params": [parameter], "lr": 0.01, "weight_decay": 0.1} | changes]


@pytest.mark.parametrize("signed", [True, False])
def test_a_code_fits_in_a_byte_and_has_its_ends(signed):
    values = code(signed, CPU)
    assert len(values) <= 256 and values.unique().numel() == len(values)
    assert values.max() == 1 and values.min() == (-1 if signed else 0) and 0 in values
    if signed:
        assert torch.equal(values, -values.flip(0))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 3 * BLOCK), seed=st.integers(0, 999), signed=st.booleans(),
       power=st.floats(-12, 6))
def test_opened_and_kept_again_is_the_same_to_the_bit(n, seed, signed, power):
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 10 ** power
    values = values if signed else values.square()
    kept, scale = coded(values, signed=signed)
    opened = decoded(kept, scale, values.shape, signed=signed)
    again, same = coded(opened, signed=signed)
    assert torch.equal(scale, same)
    assert torch.equal(decoded(again, same, values.shape, signed=signed), opened)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), signed=st.booleans())
def test_no_element_is_far_from_its_code(seed, signed):
    values = torch.randn(2 * BLOCK, generator=torch.Generator().manual_seed(seed)).abs()
    kept, scale = coded(values, signed=signed)
    opened = decoded(kept, scale, values.shape, signed=signed)
    # within a tenth of the scale 64 (128) steps, below it fewer, but each of a tenth of the size
    assert (opened - values).abs().max() <= (0.008 if signed else 0.004) * scale.max()
    assert (opened / values - 1).abs()[values > 0.01 * scale.max()].max() < 0.15


def test_zeros_stay_zeros():
    kept, scale = coded(torch.zeros(BLOCK), signed=True)
    assert torch.equal(decoded(kept, scale, torch.Size([BLOCK]), signed=True), torch.zeros(BLOCK))


@pytest.mark.parametrize("size", [(10,), (80, 80)])
def test_follows_adamw(size):
    begin = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(begin.clone()), nn.Parameter(begin.clone())
    small = AdamW8(group(ours), (0.9, 0.95))
    exact = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for seed in range(20):
        grad = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = grad, grad.clone()
        small.step()
        exact.step()
    moved = (theirs - begin).detach().norm()
    far = (ours - theirs).detach().norm() / moved
    assert far < (1e-6 if begin.numel() < LEAST_ELEMENTS else 0.03)


def test_moments_take_a_byte_an_element_and_a_scale_a_block():
    parameter = nn.Parameter(torch.zeros(64, 128))
    parameter.grad = torch.ones(64, 128)
    small = AdamW8(group(parameter), (0.9, 0.95))
    small.step()
    held = sum(t.nbytes for name, t in small.state[parameter].items() if name != "step")
    assert held == 2 * (64 * 128 + 4 * 64 * 128 // BLOCK)
