"""Keys and values in a byte each, with one scale for each head and position.

A scale of its own for each head's vector bears the few dimensions of keys that are many times
larger than the rest (KIVI, arXiv:2402.02750, section 3) without looking at other positions, so
that a position is written once and for all. Half the memory of bf16: d + 2 bytes for 2 d. What is
read is turned back into the network's own dtype, so that attention stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curbcut.errors import UnknownName
from curbcut.serve.engine.cache import PagedCache
from curbcut.spec.nouns import ModelShape

SCALE = torch.bfloat16


def in_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., d] -> int8 [..., d] and scales [..., 1] in bf16: x = int8 * scale, within about half
    a scale (the scale itself is rounded before it divides).
    """
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) / 127).to(SCALE)
    steps = scale.float().clamp_(min=torch.finfo(torch.float32).tiny)
    return (wide / steps).round_().clamp_(-127, 127).to(torch.int8), scale


def from_bytes(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What `in_bytes` made, back again: codes [..., d] and scales [..., 1] -> [..., d]."""
    return codes.to(dtype).mul_(scale)


class ByteCache(PagedCache):
    """A `PagedCache` whose pages hold bytes; what it gives is in `dtype` as ever."""

    def __init__(self, shape: ModelShape, pages: int, page_tokens: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        super().__init__(shape, pages, page_tokens, torch.int8, device)
        self.dtype = dtype
        self._scales = torch.zeros(*self.store.shape[:-1], 1, dtype=SCALE, device=device)
        self._scale_pages = self._scales.flatten(2)

    @property
    def bytes_(self) -> int:
        """Size of the cache, in bytes, used or not."""
        return super().bytes_ + self._scales.nbytes

    @staticmethod
    def page_bytes(shape: ModelShape, page_tokens: int, dtype: torch.dtype) -> int:
        """Bytes of one page, whatever the network's `dtype`."""
        own = PagedCache.page_bytes(shape, page_tokens, torch.int8)
        return own + own // shape.head_size * SCALE.itemsize

    def write(self, layer: int, slots: Tensor, rows: Tensor) -> None:
        """Keeps keys and values: rows [n, 2 * kv_heads, d] at `slots` [n]."""
        codes, scale = in_bytes(rows)
        super().write(layer, slots, codes)
        self._scales[layer].flatten(0, 1).index_copy_(0, slots, scale)

    def read(self, layer: int, table: Tensor | slice) -> tuple[Tensor, Tensor]:
        """See `PagedCache.read`."""
        pages, scales = self._pages[layer], self._scale_pages[layer]
        if isinstance(table, slice):
            codes, scale, b = pages[table], scales[table], 1
        else:
            flat, b = table.flatten(), len(table)
            codes, scale = pages.index_select(0, flat), scales.index_select(0, flat)
        return self._split(from_bytes(codes.view(-1, self.size), scale.view(-1, 1), self.dtype), b)


KINDS: Mapping[str, type[PagedCache]] = {"same": PagedCache, "int8": ByteCache}
"""By the names of `ServeJob.cache_precision`."""


def maker_of_cache(kind: str) -> type[PagedCache]:
    """What makes a cache of a kind; raises UnknownName for one that is not run here."""
    if kind not in KINDS:
        raise UnknownName("kind of cache", kind, KINDS, where="cache_precision")
    return KINDS[kind]
