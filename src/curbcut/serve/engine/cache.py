"""Keys and values in pages, and what the attention of one step reads and writes of them.

Attention is the library's, on copies of the pages in the order of the positions: copying is the
cheap part (a tenth of the time on a CPU). What is dear is a library that is asked the wrong way:
the queries that share a key head are rows of one matmul here, never copies of their keys. In bf16,
16 queries over 288 positions, 8 heads on 4 (2 threads of a Zen 5 CPU, torch 2.13.0): 2,200 us by
the library's own grouping, 280 us so.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.model.attention import blocks
from curbcut.spec.nouns import ModelShape

Span = tuple[Sequence[int], int, int]
"""A piece of a sequence: the pages of the sequence, the piece's first position, its tokens."""

SHORT = 8
"""Pieces of so many tokens at most are computed together with others of their length."""


class PagedCache:
    """Keys and values, [layers, pages, page_tokens, 2 * kv_heads, d]: of each position first the
    keys of all heads, then the values, as the network makes them.

    Starts as zeros, which, other than leftovers in memory, can never be NaN behind a mask; on a
    CPU the system makes them real as they are first written, so what is unused takes no memory.
    """

    def __init__(self, shape: ModelShape, pages: int, page_tokens: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        self.heads, self.dtype = 2 * shape.kv_heads, dtype
        self.page_tokens, self.size = page_tokens, shape.head_size
        size = (shape.layers, pages, page_tokens, self.heads, shape.head_size)
        if device.type == "cpu":
            self.store = torch.frombuffer(mmap.mmap(-1, math.prod(size) * dtype.itemsize),
                                          dtype=dtype).view(size)
        else:
            self.store = torch.zeros(size, dtype=dtype, device=device)
        self._rows = self.store.flatten(1, 2)
        self._pages = self.store.flatten(2)
        self._copy = self.store.new_empty(0)

    @property
    def bytes_(self) -> int:
        """Size of the cache, in bytes, used or not."""
        return self.store.nbytes

    @staticmethod
    def page_bytes(shape: ModelShape, page_tokens: int, dtype: torch.dtype) -> int:
        """Bytes of one page."""
        return 2 * shape.layers * page_tokens * shape.kv_heads * shape.head_size * dtype.itemsize

    def write(self, layer: int, slots: Tensor, rows: Tensor) -> None:
        """Keeps keys and values: rows [n, 2 * kv_heads, d] at `slots` [n]."""
        self._rows[layer].index_copy_(0, slots, rows)

    def read(self, layer: int, table: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Keys and values, each [b, kv_heads, t, d], of the pages of `table` [b, pages]; good until
        the next call, as all layers share one room for them on a CPU (which then stays near).
        Pages that lie one after another, a slice, are read where they are.
        """
        store = self._pages[layer]
        if isinstance(table, slice):
            return self._split(store[table], 1)
        if store.device.type != "cpu":
            return self._split(store.index_select(0, table.flatten()), len(table))
        wanted = table.numel() * store.shape[1]
        if len(self._copy) < wanted:
            self._copy = store.new_empty(wanted)
        found = self._copy[:wanted].view(-1, store.shape[1])
        torch.index_select(store, 0, table.flatten(), out=found)
        return self._split(found, len(table))

    def _split(self, pages: Tensor, b: int) -> tuple[Tensor, Tensor]:
        keys, values = pages.view(b, -1, 2, self.heads // 2, self.size).unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)


class _Block(NamedTuple):
    """Queries `start` to `end` of a long piece meet the first `seen` keys."""

    start: int
    end: int
    seen: int
    mask: Tensor
    """Additive, [1, group * (end - start), seen]."""


@dataclass(frozen=True)
class _Group:
    """Pieces of one length that are computed together: rows `row` to `row + b * count`."""

    row: int
    b: int
    count: int
    end: int
    """Positions that the longest of them sees."""
    table: Tensor | slice
    """Pages of each, [b, pages]; short ones are filled with their last. A slice where one piece is
    alone and its pages lie one after another."""
    mask: Tensor | None
    """Additive, [b, 1, 1 or group * count, t]; None for a long piece, which is causal."""
    blocks: tuple[_Block, ...] = ()
    """Of a long piece on a CPU."""


class StepView:
    """The cache as the pieces of one step see it. Rows are the step's new tokens, in the order of
    the pieces; pieces of one length must lie together, or they are computed apart.
    """

    def __init__(self, cache: PagedCache, pieces: Sequence[Span], group: int,
                 pages: int = 0) -> None:
        """`group` queries share a key head; tables have `pages` columns (0: as many as needed)."""
        self._cache, self._group, self._columns = cache, group, pages
        device, size = cache.store.device, cache.page_tokens
        positions: list[int] = []
        slots: list[int] = []
        for own, start, count in pieces:
            for at in range(start, start + count):
                positions.append(at)
                slots.append(own[at // size] * size + at % size)
        self.positions, self._slots = torch.tensor((positions, slots), device=device)
        """Position of each row, [n], and where its keys and values go."""
        self._groups: list[_Group] = []
        row = 0
        for count, same in groupby(pieces, key=lambda piece: piece[2]):
            together = list(same)
            for some in [together] if count <= SHORT else [[piece] for piece in together]:
                self._groups.append(self._grouped(some, row))
                row += count * len(some)

    def _grouped(self, pieces: Sequence[Span], row: int) -> _Group:
        cache, b, count = self._cache, len(pieces), pieces[0][2]
        ends = [start + count for _, start, count in pieces]
        most = max(-(-max(ends) // cache.page_tokens), self._columns)
        device = self.positions.device
        first = pieces[0][0][0]
        table: Tensor | slice = slice(first, first + most)
        if b > 1 or self._columns or list(pieces[0][0][:most]) != list(range(first, first + most)):
            table = torch.tensor([[*pages[:most], *[pages[-1]] * (most - len(pages))]
                                  for pages, _, _ in pieces], device=device)
        mask = None
        if count <= SHORT:
            reach = torch.arange(most * cache.page_tokens, device=device)
            beyond = reach > self.positions[row: row + b * count].view(b, 1, count, 1)
            if count > 1:
                beyond = beyond.repeat(1, 1, self._group, 1)
            mask = torch.zeros(beyond.shape, dtype=cache.dtype, device=device)
            mask.masked_fill_(beyond, -math.inf)
        blocks = _blocks(count, max(ends), self._group, cache.dtype) if (
            mask is None and device.type == "cpu") else ()
        return _Group(row, b, count, max(ends), table, mask, blocks)

    def become(self, other: StepView) -> None:
        """Takes over what another view of the same sizes, all pieces of one token, holds."""
        (mine,), (theirs,) = self._groups, other._groups
        self.positions.copy_(other.positions)
        self._slots.copy_(other._slots)
        for into, values in ((mine.table, theirs.table), (mine.mask, theirs.mask)):
            assert isinstance(into, Tensor) and isinstance(values, Tensor)
            into.copy_(values)

    def attend(self, layer: int, rows: Tensor) -> Tensor:
        """rows [n, heads + 2 * kv_heads, d]: queries, keys and values -> [n, heads * d].

        Keeps the keys and values; each row sees its own request's positions up to its own.
        """
        cache, width = self._cache, self._cache.size
        heads = rows.shape[1] - cache.heads
        cache.write(layer, self._slots, rows[:, heads:])
        parts = []
        for one in self._groups:
            keys, values = cache.read(layer, one.table)
            query = rows[one.row: one.row + one.b * one.count, :heads]
            query = query.view(one.b, one.count, -1, self._group, width).permute(0, 2, 3, 1, 4)
            if one.mask is None:
                part = _causal(query[0], keys[0, :, : one.end], values[0, :, : one.end],
                               one.blocks)[None]
            else:
                part = _masked(query.flatten(2, 3), keys, values, one.mask)
            part = part.view(one.b, -1, self._group, one.count, width).permute(0, 3, 1, 2, 4)
            parts.append(part.reshape(-1, heads * width))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _masked(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """query [b, kv_heads, s, d], keys and values [b, kv_heads, t, d] -> as query.

    A single row is asked for twice: for one the library's bf16 kernel of CPUs takes a product that
    is three times slower than the one for two.
    """
    rows = query.shape[2]
    if rows == 1 and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        query = query.expand(-1, -1, 2, -1)
    return F.scaled_dot_product_attention(query, keys, values, mask)[:, :, :rows]


def _blocks(count: int, t: int, group: int, dtype: torch.dtype) -> tuple[_Block, ...]:
    """The blocks in which the last `count` of t positions meet the keys; all layers use them."""
    found = []
    for start, end in blocks(count):
        seen = t - count + end
        one = torch.full((end - start, seen), -math.inf, dtype=dtype).triu_(1 + t - count + start)
        found.append(_Block(start, end, seen, one.repeat(group, 1)[None]))
    return tuple(found)


def _causal(query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[_Block]) -> Tensor:
    """query [kv_heads, group, s, d] of the last s of t positions, keys and values [kv_heads, t, d]
    -> as query.

    On a CPU in blocks of queries that meet the keys up to their own end only, as in
    `model.attention`; its kernel of the library is slower (bf16, s = t = 512: 1.3 against 3.5 ms).
    """
    kv, group, s, d = query.shape
    if not blocks:
        from torch.nn.attention.bias import causal_lower_right
        flat = query.flatten(0, 1)[None]
        return F.scaled_dot_product_attention(
            flat, keys[None], values[None], attn_mask=causal_lower_right(s, keys.shape[1]),
            enable_gqa=group > 1)[0]
    keys, values = keys.contiguous(), values.contiguous()  # each block reads them again
    out = query.new_empty(query.shape)
    for start, end, seen, mask in blocks:
        scores = torch.baddbmm(mask, query[:, :, start:end].reshape(kv, -1, d),
                               keys[:, :seen].transpose(1, 2), alpha=1 / math.sqrt(d))
        found = torch.bmm(scores.softmax(-1), values[:, :seen])
        out[:, :, start:end] = found.view(kv, group, end - start, d)
    return out
