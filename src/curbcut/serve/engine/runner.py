"""A step's pieces through the network and its cache; logits where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.adapters import Adapters
from curbcut.serve.engine.byte_cache import maker_of_cache
from curbcut.serve.engine.cache import PagedCache, StepView
from curbcut.serve.engine.graphs import MOST_ROWS, DecodeGraphs
from curbcut.serve.engine.network import Network
from curbcut.serve.engine.request import Piece, Request

PAGE_TOKENS = 16
EMBEDDED_TOKENS = 512
"""Tokens of a prompt to embed that are computed at once."""


class Runner(Protocol):
    """What the engine needs of whatever computes. One thread owns it."""

    vocab: int
    context_tokens: int
    page_tokens: int
    pages: int
    shares_pages: bool
    """Whether one page's keys and values may serve several requests."""
    weights_bytes: int
    cache_bytes: int

    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """Computes pieces; logits [sum of wanted, vocab] in fp32, in the
        order of the pieces.
        """
        ...

    def embed(self, prompt: Sequence[int]) -> Tensor:
        """The mean of a prompt's hidden states, scaled to length 1, [width] in fp32."""
        ...

    def forget(self, request: Request) -> None:
        """A request ended or was preempted: what is kept for it beside pages can go."""
        ...


class TorchRunner:
    """A decoder with weights of a `kind` (`matrices.KINDS`), and a paged cache of `cache_tokens`
    positions (`byte_cache.KINDS`).
    """

    shares_pages = True

    def __init__(self, model: Decoder, cache_tokens: int, *, kind: str = "same",
                 cache: str = "same", context_tokens: int | None = None,
                 page_tokens: int = PAGE_TOKENS) -> None:
        shape = model.shape
        self.network = Network(model.eval(), kind)
        self._new_cache = maker_of_cache(cache)
        self.vocab, self.page_tokens = shape.vocab, page_tokens
        self.context_tokens = min(context_tokens or shape.context_tokens, shape.context_tokens)
        self.pages = -(-cache_tokens // page_tokens)
        self.cache = self._cache_of(self.pages)
        self.weights_bytes, self.cache_bytes = self.network.bytes_, self.cache.bytes_
        self._group = shape.heads // shape.kv_heads
        self._graphs: DecodeGraphs | None = None
        if self.network.device.type == "cuda" and kind == cache == "same" and not shape.experts:
            self._graphs = DecodeGraphs(self.network, self.cache, self._group)
        self.adapters: Adapters | None = None
        """LoRA adapters by the names that requests ask for; set before the first step."""

    @torch.inference_mode()
    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner.run`; pieces may come in any order."""
        order = sorted(range(len(pieces)), key=lambda place: pieces[place].count)
        inside = [pieces[place] for place in order]
        fed = [token for piece in inside for token in piece.tokens]
        spans = [(piece.request.pages, piece.start, piece.count) for piece in inside]
        touch = None if self.adapters is None else self.adapters.touch(
            [(piece.request.asked.adapter, piece.count) for piece in inside], self.network.device)
        if (self._graphs is not None and touch is None and len(fed) <= MOST_ROWS
                and all(piece.count == piece.wanted == 1 for piece in inside)):
            return self._graphs.logits(fed, spans)
        tokens = torch.tensor(fed, device=self.network.device)
        view = StepView(self.cache, spans, self._group)
        hidden = self.network.hidden(tokens, view, touch)
        ends = dict(zip(order, accumulate(piece.count for piece in inside), strict=True))
        rows = [row for place, piece in enumerate(pieces)
                for row in range(ends[place] - piece.wanted, ends[place])]
        if rows != list(range(len(tokens))):
            hidden = hidden[torch.tensor(rows, dtype=torch.long, device=hidden.device)]
        return self.network.logits(hidden)

    @torch.inference_mode()
    def embed(self, prompt: Sequence[int]) -> Tensor:
        """See `Runner.embed`. Its keys and values lie in pages of its own, which then go."""
        pages = range(-(-len(prompt) // self.page_tokens))
        cache = self._cache_of(len(pages))
        total = torch.zeros(self.network.shape.width, device=self.network.device)
        for start in range(0, len(prompt), EMBEDDED_TOKENS):
            tokens = torch.tensor(prompt[start: start + EMBEDDED_TOKENS], device=total.device)
            view = StepView(cache, [(pages, start, len(tokens))], self._group)
            total += self.network.hidden(tokens, view).float().sum(0)
        return F.normalize(total, dim=0)

    def forget(self, request: Request) -> None:
        """Nothing is kept beside pages."""

    def _cache_of(self, pages: int) -> PagedCache:
        return self._new_cache(self.network.shape, pages, self.page_tokens, self.network.dtype,
                               self.network.device)
