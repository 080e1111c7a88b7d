"""One request on its way through the engine; only the engine's thread changes it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from curbcut.serve.engine.interface import Asked, Deliver, Sampling, TokenOdds
from curbcut.serve.engine.text import TextStream


@dataclass(eq=False, kw_only=True, slots=True)
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
    sampling: Sampling
    sampler: Any = None
    """State of chance, penalties and grammar: a `Chooser`, set by `chooser.begin`."""
    running: bool = False
    """Whether it holds pages and takes part in steps."""
    pages: list[int] = field(default_factory=list)
    """Where keys and values lie. A page may become another one of equal content between steps."""
    computed: int = 0
    """Positions whose keys and values lie in `pages`."""
    known: int = 0
    """Of `pages`, how many are remembered under their tokens (see `Pages.know`)."""
    link: Hashable = None
    """What the next page will be known to stand behind."""
    cached: int = 0
    """Positions that were remembered when it was first admitted."""
    drafts: list[int] = field(default_factory=list)
    """Guessed tokens after `tokens`, to be checked by the next step."""
    odds: list[TokenOdds] = field(default_factory=list)
    """Of tokens of the answer that no delta has told yet."""
    prompt_odds: list[TokenOdds | None] = field(default_factory=list)
    """Of the prompt's tokens, as its pieces are computed."""
    told: int = 0
    """Answer tokens that deltas have told."""
    newest_seconds: float = 0.0
    """When its newest token came; at first, when it was taken in."""

    @property
    def answer(self) -> list[int]:
        """Tokens of the answer so far."""
        return self.tokens[self.prompt_tokens:]

    @property
    def answered(self) -> int:
        """How many tokens the answer has so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def missing(self) -> int:
        """Tokens that the model has not seen: 1 while an answer goes on."""
        return len(self.tokens) - self.computed

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among others: who is first goes first, who is last gives way."""
        return self.asked.priority, self.ticket

    @property
    def root(self) -> Hashable:
        """What its first page is known to stand behind: only equals share pages."""
        return self.asked.salt, self.asked.adapter


@dataclass(frozen=True, slots=True)
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
        if len(known) < self.count:
            known += request.drafts[: self.count - len(known)]
        return known

    @property
    def last(self) -> bool:
        """Whether it catches its request up, so that a next token is to be taken."""
        return self.start + self.count >= len(self.request.tokens)
