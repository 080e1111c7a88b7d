"""Keys and values in bytes: half the memory, a stated error, and no position disturbs another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import UnknownName
from curbcut.model.decoder import Decoder
from curbcut.serve.engine.byte_cache import ByteCache, from_bytes, in_bytes, maker_of_cache
from curbcut.serve.engine.cache import PagedCache
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                   context_tokens=128)
CPU = torch.device("cpu")


def piece_of(tokens, pages, start=0, count=None):
    sampling = Sampling(max_tokens=1)
    made = Request(ticket=0, asked=Asked(prompt=tuple(tokens), sampling=sampling), deliver=print,
                   tokens=list(tokens), prompt_tokens=len(tokens), text=None, sampling=sampling,
                   pages=list(pages))
    count = count or len(tokens)
    return Piece(made, start, count, count)



@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e-6, 1.0, 1e4]))
def test_a_vector_comes_back_within_its_error(seed, factor):
    x = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(seed)) * factor
    x[0, 0] = 0
    codes, scale = in_bytes(x)
    again = from_bytes(codes, scale, torch.float32)
    # Half a step, and what the largest element loses where the scale was rounded down.
    assert ((again - x).abs() <= x.abs().amax(-1, keepdim=True) * (0.5 / 127 + 2.0 ** -8)).all()
    assert (again[0, 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_hold_half_of_bf16_and_say_so(dtype):
    big = ModelShape(layers=2, width=128, heads=2, kv_heads=1, head_size=64, ffn=48, vocab=264,
                     context_tokens=128)
    plain = PagedCache(big, 6, 16, torch.bfloat16, CPU)
    narrow = ByteCache(big, 6, 16, dtype, CPU)
    assert narrow.bytes_ == 6 * ByteCache.page_bytes(big, 16, dtype)
    assert narrow.bytes_ / plain.bytes_ == pytest.approx(66 / 128)


def test_what_is_written_is_read_and_nothing_else_moves():
    cache = ByteCache(SHAPE, 4, 4, torch.float32, CPU)
    rows = torch.randn(5, 4, 8)
    cache.write(1, torch.tensor([0, 1, 2, 3, 9]), rows)
    before = [one.clone() for one in cache.read(1, torch.tensor([[0, 2]]))]
    torch.testing.assert_close(before[0][0, :, :4], rows[:4, :2].transpose(0, 1), atol=0.04,
                               rtol=0)
    torch.testing.assert_close(before[1][0, :, 5], rows[4, 2:], atol=0.04, rtol=0)
    cache.write(1, torch.tensor([13]), rows[:1] * 100)
    cache.write(0, torch.tensor([0]), rows[:1])
    for old, new in zip(before, cache.read(1, torch.tensor([[0, 2]])), strict=True):
        assert torch.equal(old, new)
    for table, part in ((slice(0, 1), torch.tensor([[0]])), (slice(2, 3), torch.tensor([[2]]))):
        for one, other in zip(cache.read(1, table), cache.read(1, part), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_over_bytes_says_nearly_the_same(dtype):
    model = Decoder(SHAPE).to(dtype)
    plain, narrow = (TorchRunner(model, 128, cache=kind) for kind in ("same", "int8"))
    assert narrow.cache_bytes < plain.cache_bytes
    tokens = [(7 * i) % 264 for i in range(40)]
    whole = [runner.run([piece_of(tokens, range(8))]) for runner in (plain, narrow)]
    assert (whole[1] - whole[0]).norm() < 0.03 * whole[0].norm()
    parts = [narrow.run([piece_of(tokens, range(8), start, 8)]) for start in range(0, 40, 8)]
    torch.testing.assert_close(torch.cat(parts), whole[1], atol=0.05, rtol=0.05)


def test_an_unknown_kind_is_named():
    with pytest.raises(UnknownName, match="int8"):
        maker_of_cache("int3")
