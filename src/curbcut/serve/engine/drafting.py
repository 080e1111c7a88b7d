"""Guesses by a small model with the same tokenizer (see `speculation`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.serve.engine import text
from curbcut.serve.engine.interface import Delta
from curbcut.serve.engine.loading import load_runner
from curbcut.serve.engine.pages import Pages
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import Runner
from curbcut.serve.engine.sampler import draw_tokens
from curbcut.serve.engine.text import Vocabulary

STEP_TOKENS = 256
"""Tokens of prompts that the small model reads between two steps at most."""


def of_folder(folder: Path, vocabulary: Vocabulary, vocab: int | None = None, *, sequences: int = 8,
              **how: Any) -> ModelDrafter:
    """The model of a folder as drafter for one with `vocabulary`; `how` as for `load_runner`.
    `vocab` is the width of that one's logits (default: the tokens of the vocabulary).

    Raises InputError where its tokenizer is another one, and as `load_runner` does.
    """
    theirs = text.load(folder).tokenizer.get_vocab(with_added_tokens=True)
    if theirs != vocabulary.tokenizer.get_vocab(with_added_tokens=True):
        raise InputError("a draft model must have the same tokenizer as the model it guesses for",
                         where=str(folder), mend="train the small model "
                         "on the same text with the same model.vocab")
    return ModelDrafter(load_runner(folder, sequences=sequences, **how),
                        vocab or vocabulary.size)


class ModelDrafter:
    """A `Drafter` on a runner of its own, with keys and values of its own for each request.

    A request has a shadow here: the same tokens and the guesses after them. Guesses that were
    wrong are written over. While it has not read all of a prompt it does not know (None), as where
    the pages are used up.
    """

    def __init__(self, runner: Runner, vocab: int, step_tokens: int = STEP_TOKENS) -> None:
        self.pages = Pages(runner.pages, runner.page_tokens)
        self._runner, self._vocab, self._step_tokens = runner, vocab, step_tokens
        self._shadows: dict[int, Request] = {}

    def draft(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int] | None]:
        """See `Drafter`: one step of the small model for each place, for all requests at once."""
        found: dict[int, list[int]] = {}
        lines: list[tuple[Request, Request, int]] = []
        pieces: list[Piece] = []
        left = self._step_tokens
        for request, count in zip(requests, most, strict=True):
            shadow = self._shadow(request)
            count = min(count, self._runner.context_tokens - len(request.tokens))
            if count < 1 or left < 1 or not self._grow(shadow, len(request.tokens) + count):
                continue
            taken = min(left, shadow.missing)
            left -= taken
            ready = taken == shadow.missing
            pieces.append(Piece(shadow, shadow.computed, taken, int(ready)))
            if ready:
                lines.append((request, shadow, count))
                found[request.ticket] = []
        for ahead in range(max(most, default=0)):
            if not pieces:
                break
            logits = self._runner.run(pieces)
            for piece in pieces:
                piece.request.computed = piece.start + piece.count
            guesses = draw_tokens(logits[:, : self._vocab], [one for one, _, _ in lines], ahead)
            for (request, shadow, _), token in zip(lines, guesses, strict=True):
                found[request.ticket].append(token)
                shadow.tokens.append(token)
            lines = [line for line in lines if line[2] > ahead + 1]
            pieces = [Piece(shadow, shadow.computed, 1, 1) for _, shadow, _ in lines]
        return [found.get(request.ticket) for request in requests]

    def forget(self, ticket: int) -> None:
        """See `Drafter`."""
        shadow = self._shadows.pop(ticket, None)
        if shadow is not None:
            self.pages.release(shadow.pages)
            self._runner.forget(shadow)

    def _shadow(self, request: Request) -> Request:
        """The request's shadow with its tokens, computed as far as these are the same."""
        shadow = self._shadows.get(request.ticket)
        if shadow is None:
            shadow = self._shadows[request.ticket] = Request(
                ticket=request.ticket, asked=request.asked, deliver=_nobody, tokens=[],
                prompt_tokens=request.prompt_tokens, text=request.text, sampling=request.sampling)
        same, end = min(shadow.known, len(request.tokens)), len(request.tokens)
        while same < min(end, len(shadow.tokens)) and shadow.tokens[same] == request.tokens[same]:
            same += 1
        shadow.tokens[same:] = request.tokens[same:]
        shadow.computed = min(shadow.computed, same, end - 1)
        shadow.known = end
        return shadow

    def _grow(self, shadow: Request, positions: int) -> bool:
        need = -(-positions // self.pages.page_tokens) - len(shadow.pages)
        taken = self.pages.take(need) if need > 0 else []
        shadow.pages += taken or []
        return taken is not None


def _nobody(delta: Delta) -> None:
    """A shadow tells nothing."""
