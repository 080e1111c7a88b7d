"""Keys and values in pages, and what the attention of one step reads and writes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.serve.engine.request import Piece
from curbcut.spec.nouns import ModelShape


class PagedCache:
    """Keys and values, each [layers, pages, page_tokens, kv_heads, d].

    Starts as zeros, which, other than leftovers in memory, can never be NaN behind a mask.
    """

    def __init__(self, shape: ModelShape, pages: int, page_tokens: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        size = (shape.layers, pages, page_tokens, shape.kv_heads, shape.head_size)
        self.keys = torch.zeros(size, dtype=dtype, device=device)
        self.values = torch.zeros(size, dtype=dtype, device=device)
        self.page_tokens = page_tokens

    @property
    def bytes_(self) -> int:
        """Size of the cache, in bytes, used or not."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @staticmethod
    def page_bytes(shape: ModelShape, page_tokens: int, dtype: torch.dtype) -> int:
        """Bytes of one page."""
        return 2 * shape.layers * page_tokens * shape.kv_heads * shape.head_size * dtype.itemsize


class StepView:
    """The cache as the pieces of one step see it. Rows are the step's new tokens, in the order of
    the pieces: first all pieces of one token, then the others.
    """

    def __init__(self, cache: PagedCache, pieces: Sequence[Piece]) -> None:
        self._cache, device = cache, cache.keys.device
        size = cache.page_tokens
        slots: list[int] = []
        positions: list[int] = []
        for piece in pieces:
            for at in range(piece.start, piece.start + piece.count):
                slots.append(piece.request.pages[at // size] * size + at % size)
                positions.append(at)
        self.positions = torch.tensor(positions, device=device)
        """Position of each row, [n]."""
        self._slots = torch.tensor(slots, device=device)
        self._ones = sum(piece.count == 1 for piece in pieces)
        assert all(piece.count == 1 for piece in pieces[: self._ones])
        self._single = self._table(pieces[: self._ones]) if self._ones else None
        self._long = [(piece.count, piece.start + piece.count,
                       self._table([piece])) for piece in pieces[self._ones:]]
        if self._ones:
            reach = self._single.shape[1] * size  # type: ignore[union-attr]
            beyond = torch.arange(reach, device=device) > self.positions[: self._ones, None]
            self._mask = torch.zeros(beyond.shape, dtype=cache.keys.dtype, device=device)
            self._mask = self._mask.masked_fill_(beyond, -math.inf)[:, None, None]

    def _table(self, pieces: Sequence[Piece]) -> Tensor:
        """Pages of each piece, [pieces, most pages]; short ones are filled with page 0."""
        size = self._cache.page_tokens
        lists = [piece.request.pages[: -(-(piece.start + piece.count) // size)]
                 for piece in pieces]
        most = max(map(len, lists))
        return torch.tensor([one + [0] * (most - len(one)) for one in lists],
                            device=self._cache.keys.device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [n, heads, d], key and value [n, kv_heads, d] of the new rows -> [n, heads, d].

        Keeps the keys and values; each row sees its own request's positions up to its own.
        """
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.view(-1, *key.shape[1:]).index_copy_(0, self._slots, key)
        values.view(-1, *value.shape[1:]).index_copy_(0, self._slots, value)
        parts, ones = [], self._ones
        if self._single is not None:
            parts.append(_attention(query[:ones, :, None], self._read(keys, self._single),
                                    self._read(values, self._single), self._mask)[:, :, 0])
        row = ones
        for count, end, table in self._long:
            near = [self._read(store, table)[:, :, :end] for store in (keys, values)]
            mask = torch.ones(count, end, dtype=torch.bool,
                              device=query.device).tril(end - count)
            mine = query[row: row + count].transpose(0, 1)[None]
            parts.append(_attention(mine, near[0], near[1], mask)[0].transpose(0, 1))
            row += count
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def _read(store: Tensor, table: Tensor) -> Tensor:
        """[b, kv_heads, t, d] of the pages of `table` [b, pages]."""
        found = store.index_select(0, table.flatten())
        return found.view(table.shape[0], -1, *store.shape[2:]).transpose(1, 2)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask,
                                          enable_gqa=query.shape[1] != key.shape[1])
