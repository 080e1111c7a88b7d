"""A step's pieces through the network and its cache; logits where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.cache import PagedCache, StepView
from curbcut.serve.engine.network import Network
from curbcut.serve.engine.request import Piece, Request

PAGE_TOKENS = 16


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
        """Computes pieces (of one token first); logits [sum of wanted, vocab] in fp32, in the
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
    """A decoder with a paged cache of `cache_tokens` positions."""

    shares_pages = True

    def __init__(self, model: Decoder, cache_tokens: int, *, kind: str = "same",
                 context_tokens: int | None = None, page_tokens: int = PAGE_TOKENS) -> None:
        shape = model.shape
        self.network = Network(model.eval(), kind)
        self.vocab, self.page_tokens = shape.vocab, page_tokens
        self.context_tokens = min(context_tokens or shape.context_tokens, shape.context_tokens)
        self.pages = -(-cache_tokens // page_tokens)
        self.cache = PagedCache(shape, self.pages, page_tokens, self.network.dtype,
                                self.network.device)
        self.weights_bytes, self.cache_bytes = self.network.bytes_, self.cache.bytes_

    @torch.inference_mode()
    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner.run`."""
        tokens = torch.tensor([token for piece in pieces for token in piece.tokens],
                              device=self.network.device)
        hidden = self.network.hidden(tokens, StepView(self.cache, pieces))
        rows: list[int] = []
        end = 0
        for piece in pieces:
            end += piece.count
            rows += range(end - piece.wanted, end)
        if len(rows) < len(tokens):
            hidden = hidden[torch.tensor(rows, dtype=torch.long, device=hidden.device)]
        return self.network.logits(hidden)

    @torch.inference_mode()
    def embed(self, prompt: Sequence[int]) -> Tensor:
        """See `Runner.embed`."""
        raise NotImplementedError

    def forget(self, request: Request) -> None:
        """Nothing is kept beside pages."""
