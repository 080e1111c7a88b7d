import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from curbcut.model import attention
from curbcut.serve.engine import cache as module
from curbcut.serve.engine.cache import PagedCache, StepView
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=3, width=32, heads=6, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=256)
CPU = torch.device("cpu")


def made(shape=SHAPE, pages=12, size=4, dtype=torch.float32):
    return PagedCache(shape, pages, size, dtype, CPU)


def right(rows, heads, kv):
    """Causal attention of whole sequences: rows [n, heads + 2 kv, d] -> [n, heads * d]."""
    query, key, value = (part.transpose(0, 1) for part in rows.split([heads, kv, kv], 1))
    return F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True,
                                          enable_gqa=True)[0].transpose(0, 1).flatten(1)


def test_what_was_written_is_read_in_order_of_positions():
    cache = made()
    rows = torch.randn(12, 4, 8)
    pages = [7, 2, 10]
    slots = torch.tensor([pages[at // 4] * 4 + at % 4 for at in range(12)])
    cache.write(1, slots, rows)
    for table in (torch.tensor([pages]), torch.tensor([pages, pages])):
        keys, values = cache.read(1, table)
        for one in range(len(table)):
            assert torch.equal(keys[one].transpose(0, 1), rows[:, :2])
            assert torch.equal(values[one].transpose(0, 1), rows[:, 2:])
    assert not cache.store[0].any() and not cache.store[2].any()


def test_pages_one_after_another_are_read_where_they_are():
    cache = made()
    cache.store.normal_()
    there, copied = cache.read(0, slice(3, 6)), cache.read(0, torch.tensor([[3, 4, 5]]))
    for one, other in zip(there, copied, strict=True):
        assert torch.equal(one, other)
        assert one.untyped_storage().data_ptr() == cache.store.untyped_storage().data_ptr()


def test_bytes_are_those_of_all_pages():
    for dtype in (torch.float32, torch.bfloat16):
        cache = made(pages=9, size=16, dtype=dtype)
        assert cache.bytes_ == 9 * PagedCache.page_bytes(SHAPE, 16, dtype)
        assert cache.bytes_ == 2 * 3 * 9 * 16 * 2 * 8 * dtype.itemsize


@pytest.mark.skipif(not hasattr(module.mmap, "MAP_ANONYMOUS"), reason="needs /proc/self/statm")
def test_a_cache_takes_no_memory_before_it_is_used():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * module.mmap.PAGESIZE
    before = resident()
    cache = made(pages=100_000, size=16)
    assert cache.bytes_ > 300e6
    assert resident() - before < 50e6


@pytest.mark.parametrize("counts", [(1,) * 5, (3, 3), (9, 40), (1, 1, 4, 4, 30), (4, 1, 4)])
@pytest.mark.parametrize("heads, kv", [(6, 2), (2, 2), (4, 1)])
def test_each_row_sees_its_own_sequence_up_to_itself(counts, heads, kv):
    shape = replace(SHAPE, heads=heads, kv_heads=kv)
    cache = made(shape, pages=99)
    order = torch.randperm(99).tolist()
    sequences, spans, texts = [], [], []
    for i, count in enumerate(counts):
        start, pages = 5 * i, order[i * 19: (i + 1) * 19]
        text = torch.randn(start + count, heads + 2 * kv, 8)
        if start:
            StepView(cache, [(pages, 0, start)], heads // kv).attend(1, text[:start])
        sequences.append(right(text, heads, kv)[start:])
        spans.append((pages, start, count))
        texts.append(text[start:])
    view = StepView(cache, spans, heads // kv)
    assert view.positions.tolist() == [at for _, start, count in spans
                                       for at in range(start, start + count)]
    torch.testing.assert_close(view.attend(1, torch.cat(texts)), torch.cat(sequences),
                               atol=1e-5, rtol=1e-4)


def test_what_others_left_in_a_page_is_not_seen():
    cache = made(pages=2)
    cache.store.fill_(1e4)
    rows = torch.randn(3, 10, 8)
    found = StepView(cache, [([1], 0, 3)], 3).attend(0, rows)
    torch.testing.assert_close(found, right(rows, 6, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("block", [3, 16, 500])
@pytest.mark.parametrize("s, t", [(1, 1), (17, 17), (10, 40)])
def test_causal_blocks_of_any_size_equal_a_mask(monkeypatch, block, s, t):
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    query, keys, values = torch.randn(2, 3, s, 8), torch.randn(2, t, 8), torch.randn(2, t, 8)
    mask = torch.full((s, t), -math.inf).triu(t - s + 1)
    scores = torch.einsum("kgsd,ktd->kgst", query, keys) / math.sqrt(8) + mask
    expected = torch.einsum("kgst,ktd->kgsd", scores.softmax(-1), values)
    found = module._causal(query, keys, values, module._blocks(s, t, 3, torch.float32))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpus_attention_equals_the_cpus():
    shape, chance = SHAPE, torch.Generator().manual_seed(0)
    rows = torch.randn(40, 10, 8, generator=chance)
    found = []
    for device in (CPU, torch.device("cuda")):
        cache = PagedCache(shape, 12, 4, torch.float32, device)
        view = StepView(cache, [(list(range(10)), 0, 40)], 3)
        first = view.attend(0, rows.to(device))
        more = StepView(cache, [(list(range(10)), 39, 1)], 3).attend(0, rows[39:].to(device))
        found.append(torch.cat((first, more)).cpu())
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
