"""Weights in fewer bits: each product stays within its stated error of the exact one.

Tolerances: a row's result is the same in any company for "int8-dynamic" (integers are added up
exactly); for "int8" and "int4" kernels differ by the number of rows, which moves a result by the
rounding of bf16: `BF16` of the largest result.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.model.decoder import Decoder
from curbcut.serve.engine import quantised
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.matrices import KINDS, Plain, maker, maker_of_head
from curbcut.serve.engine.quantised import GROUP, Int4, Int8, Int8Dynamic, by_group, by_output
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape

BF16 = 2.0 ** -7
NARROW = ("int8", "int8-dynamic", "int4")
sizes = st.tuples(st.integers(1, 140), st.integers(1, 140), st.integers(1, 40))


def piece_of(tokens, pages, start=0, count=None):
    sampling = Sampling(max_tokens=1)
    made = Request(ticket=0, asked=Asked(prompt=tuple(tokens), sampling=sampling), deliver=print,
                   tokens=list(tokens), prompt_tokens=len(tokens), text=None, sampling=sampling,
                   pages=list(pages))
    count = count or len(tokens)
    return Piece(made, start, count, count)


def usable(kind):
    try:
        KINDS[kind](torch.ones(64, 32))
    except InputError as refused:
        pytest.skip(str(refused))


def case(outputs, inputs, rows, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return (torch.randn(outputs, inputs, generator=chance),
            torch.randn(outputs, generator=chance), torch.randn(rows, inputs, generator=chance))


def bound(kind, weight, x):
    """The largest error that rounding of weights and rows allows, [n, outputs]."""
    size = x.abs().sum(1, keepdim=True)
    if kind == "int4":
        padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % GROUP))
        groups = padded.unflatten(1, (-1, GROUP))
        step = (groups.amax(-1) - groups.amin(-1)).amax(1)
        return size * step  # groups may be cut off at 0.8 of their range
    step = weight.abs().amax(1) / 127
    rows = x.abs().amax(1, keepdim=True) / 127 * weight.abs().sum(1)
    return size * step + (rows if kind == "int8-dynamic" else 0)


@pytest.mark.parametrize("kind", NARROW)
@settings(max_examples=25, deadline=None)
@given(size=sizes)
def test_products_of_any_shape_are_within_their_error(kind, size):
    usable(kind)
    weight, bias, x = case(*size)
    exact = torch.nn.functional.linear(x, weight, bias)
    found = KINDS[kind](weight, bias)(x)
    assert found.shape == exact.shape and found.dtype == x.dtype
    rounding = BF16 * (x.abs() @ weight.abs().t() + bias.abs())
    assert ((found - exact).abs() <= bound(kind, weight, x) + rounding).all()


def test_more_bits_are_nearer():
    weight, _, x = case(192, 256, 5)
    exact = x @ weight.t()
    errors = []
    for kind in ("same", *NARROW):
        usable(kind)
        errors.append(float((KINDS[kind](weight)(x) - exact).norm() / exact.norm()))
    assert errors == sorted(errors)
    assert errors[0] < 1e-5 and errors[1] < 0.01 and errors[2] < 0.015 and errors[3] < 0.08


@pytest.mark.parametrize("kind", NARROW)
def test_a_row_alone_and_in_company(kind):
    usable(kind)
    weight, bias, x = case(130, 96, 120)
    matrix = KINDS[kind](weight.bfloat16(), bias.bfloat16())
    together = matrix(x.bfloat16()).float()
    for rows in (1, 3, 8, 25, 60):
        alone = matrix(x[:rows].bfloat16()).float()
        if kind == "int8-dynamic":
            assert torch.equal(alone, together[:rows])
        assert (alone - together[:rows]).abs().max() <= BF16 * together.abs().max()


@pytest.mark.parametrize("kind", ["same", *NARROW])
def test_the_same_twice_no_rows_and_rows_that_lie_apart(kind):
    usable(kind)
    weight, bias, x = case(64, 64, 4)
    matrix = KINDS[kind](weight, bias)
    assert torch.equal(matrix(x), matrix(x))
    assert matrix(x[:0]).shape == (0, 64)
    wide = torch.randn(4, 128)
    torch.testing.assert_close(matrix(wide[:, ::2]), matrix(wide[:, ::2].contiguous()))


def test_bytes_are_what_the_bits_say():
    weight = torch.randn(512, 256).bfloat16()
    full = Plain(weight).bytes_
    for kind, most in (("int8", 0.51), ("int8-dynamic", 0.55), ("int4", 0.3130)):
        usable(kind)
        assert most - 0.06 < KINDS[kind](weight).bytes_ / full < most


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.sampled_from([7, 15, 31, 63, 127]))
def test_a_byte_is_within_half_a_scale_and_more_levels_are_nearer(seed, levels):
    weight, _, _ = case(3, 40, 1, seed)
    codes, scale = by_output(weight, levels)
    off = (codes * scale[:, None] - weight).abs()
    assert (off <= scale[:, None] * 0.5001).all() and codes.abs().max() == levels
    fewer = by_output(weight, levels // 2)
    assert off.norm() < (fewer[0] * fewer[1][:, None] - weight).norm()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_groups_bear_outliers_and_cutting_off_is_never_worse(seed):
    weight, _, _ = case(4, 2 * GROUP, 1, seed)
    weight[:, 3] *= 50
    codes, scale, zero = by_group(weight)
    assert codes.min() >= 0 and codes.max() <= 15

    def error(codes, scale, zero):
        again = (codes.view(4, 2, GROUP) - 8) * scale.float()[..., None] + zero.float()[..., None]
        return (again.flatten(1) - weight).square().view(4, 2, GROUP).sum(-1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised, "SHRINKS", (1.0,))
        whole = error(*by_group(weight))
    assert (error(codes, scale, zero) <= whole * 1.001).all()
    assert error(codes, scale, zero)[:, 1].max() < GROUP * 0.2 ** 2  # the group without outliers


def test_weights_of_zero_and_a_row_of_zero_give_the_bias():
    bias = torch.arange(5.0)
    for kind in NARROW:
        usable(kind)
        for weight, x in ((torch.zeros(5, 7), torch.randn(2, 7)),
                          (torch.randn(5, 7), torch.zeros(2, 7))):
            torch.testing.assert_close(KINDS[kind](weight, bias)(x), bias.expand(2, 5), atol=1e-5,
                                       rtol=0)


def test_without_the_kernels_there_is_a_way_or_a_word(monkeypatch):
    weight, bias, x = case(66, 70, 3)
    found = Int8(weight, bias)(x)
    monkeypatch.setattr(quantised, "has", lambda operation, device: False)
    torch.testing.assert_close(Int8(weight, bias)(x), found, atol=0.2, rtol=BF16)
    with pytest.raises(InputError, match="int8"):
        Int4(weight)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(InputError, match="VNNI") as refused:
        Int8Dynamic(weight)
    assert '"int8"' in str(refused.value)


def test_an_unknown_layout_of_four_bits_is_multiplied_by_the_kernel(monkeypatch):
    usable("int4")
    weight, _, x = case(64, 64, 130)
    matrix = Int4(weight)
    found = matrix(x)
    monkeypatch.setattr(quantised, "blocked", lambda: False)
    torch.testing.assert_close(matrix(x), found, atol=0.2, rtol=BF16)


def test_kinds_are_told_by_name():
    with pytest.raises(UnknownName, match="int8"):
        maker("int9")
    assert maker_of_head("int4") is Int8 and maker_of_head("same") is maker("same")


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("changes", [{}, {"experts": 4, "experts_per_token": 2, "expert_ffn": 24}])
def test_a_model_of_ragged_sizes_is_served_smaller(kind, changes):
    usable(kind)
    shape = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                       context_tokens=128, qk_norm=True, **changes)
    model = Decoder(shape)
    runners = [TorchRunner(model, 64, kind=one) for one in ("same", kind)]
    assert runners[1].weights_bytes < runners[0].weights_bytes
    tokens, pages = [5, 6, 7, 200, 263], list(range(4))
    logits = []
    for runner in runners:
        logits.append(runner.run([piece_of(tokens, pages)]))
    off = (logits[1] - logits[0]).norm() / logits[0].norm()
    assert off < (0.3 if kind == "int4" else 0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("kind", NARROW)
def test_products_on_a_gpu(kind):
    weight, bias, x = (one.cuda() for one in case(130, 96, 20))
    exact = torch.nn.functional.linear(x, weight, bias)
    for rows in (1, 20):
        found = KINDS[kind](weight, bias)(x[:rows])
        assert (found - exact[:rows]).norm() < 0.1 * exact[:rows].norm()
