"""One request on its way through the engine; only the engine's thread changes it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from curbcut.serve.engine.interface import Asked, Deliver, Finish, Sampling
from curbcut.serve.engine.text import TextStream


@dataclass(eq=False)
class Request:
    """Tokens, how many of them the model has seen, and where their keys and values lie.

    Invariant: `computed <= len(tokens)`, and `pages` have room for `computed` positions. The one
    thing that a step does for a request is to move `computed` towards `len(tokens)`; once there,
    logits of the last token give the next one. Reading a prompt in pieces, a remembered prompt,
    decoding, checking drafts and starting over after preemption are all that same thing.
    """

    ticket: int
    asked: Asked
    deliver: Deliver
    tokens: list[int]
    """Prompt, then answer."""
    prompt_tokens: int
    text: TextStream
    source: torch.Generator
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    """Positions whose keys and values lie in `pages`."""
    cached: int = 0
    """Of these, those that were remembered when it was first admitted."""
    drafts: list[int] = field(default_factory=list)
    """Guessed tokens after `tokens`, to be checked by the next step."""
    sampler: Any = None
    """State of penalties and grammar, kept by `sampler`."""
    odds: list[Any] = field(default_factory=list)
    """Log-probabilities that no delta has told yet."""
    told: int = 0
    """Answer tokens that deltas have told."""
    asked_seconds: float = field(default_factory=time.perf_counter)
    newest_seconds: float = field(default_factory=time.perf_counter)
    """When its newest token came; at first, when it was taken in."""
    finish: Finish | None = None

    @property
    def sampling(self) -> Sampling:
        """How its tokens are chosen."""
        return self.asked.sampling

    @property
    def answer(self) -> list[int]:
        """Tokens of the answer so far."""
        return self.tokens[self.prompt_tokens:]

    @property
    def answered(self) -> int:
        """How many they are."""
        return len(self.tokens) - self.prompt_tokens


@dataclass(frozen=True)
class Piece:
    """One request's part of a step: positions `start` to `start + count` are computed, and of the
    last `wanted` of them the logits are wanted.
    """

    request: Request
    start: int
    count: int
    wanted: int

    @property
    def tokens(self) -> list[int]:
        """What is fed: known tokens, then drafts."""
        request, end = self.request, self.start + self.count
        known = request.tokens[self.start: end]
        return known + request.drafts[: self.count - len(known)]
