"""One person's conversation with a model."""

from __future__ import annotations

import queue
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curbcut.errors import CurbcutError, InputError
from curbcut.serve.engine.interface import (
    Asked,
    Busy,
    Closed,
    Delta,
    Engine,
    Finish,
    Sampling,
    Unfit,
)

Turn = Mapping[str, str]
"""A message: `role` (system, user, assistant) and `content`."""


@dataclass(frozen=True)
class Told:
    """How an answer went. Seconds are from when it was asked for."""

    tokens: int = 0
    first_seconds: float | None = None
    """To its first text; None where there was none."""
    seconds: float = 0.0
    finish: Finish | str = ""
    counted: bool = True
    """Whether tokens are counted; else they are pieces of a stream."""

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens after the first; None for an answer too short to say."""
        if self.first_seconds is None or self.tokens < 2 or self.seconds <= self.first_seconds:
            return None
        return (self.tokens - 1) / (self.seconds - self.first_seconds)


@dataclass
class Talk:
    """Asks an engine. Where it has no vocabulary here (an address), it gets turns as they are."""

    engine: Engine
    model: str
    plain: bool = False
    """Whether somebody wants it to go on with a text, whatever it can."""
    told: Told = field(default_factory=Told)
    """Of the last answer, once its iterator has ended or was closed."""

    @property
    def turns(self) -> bool:
        """Whether it answers turns; else it goes on with the text of the last one."""
        vocabulary = self.engine.vocabulary
        return not self.plain and (vocabulary is None or vocabulary.chat_template is not None)

    def say(self, turns: Sequence[Turn], sampling: Sampling) -> Generator[str, None, None]:
        """The answer's text piece by piece; closing the iterator ends the answer. Raises
        InputError for what the model cannot take.
        """
        prompt = self._prompt(turns)
        known = len(prompt) if self.engine.vocabulary is not None else 0
        room = self.engine.context_tokens - known
        if room < 1:
            raise InputError(f"the model takes {self.engine.context_tokens} tokens, and these are "
                             f"{len(prompt)}", where=self.model, mend="/reset, or write less")
        deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        began = time.perf_counter()
        self.told = Told()
        try:
            ticket = self.engine.submit(
                Asked(prompt=prompt, sampling=replace(
                    sampling, max_tokens=min(sampling.max_tokens, room))), deltas.put)
        except (Unfit, Busy, Closed, ValueError) as error:
            raise InputError(str(error), where=self.model, mend="ask for something else") from None
        finish: Finish | None = None
        try:
            while finish is None:
                delta = deltas.get()
                now, finish = time.perf_counter() - began, delta.finish
                first = self.told.first_seconds
                self.told = Told(delta.tokens, now if first is None and delta.text else first, now,
                                 finish or "", not delta.extra.get("estimated"))
                if delta.text:
                    yield delta.text
        finally:
            if finish is None:
                self.engine.cancel(ticket)
        if finish == "failed":
            why = delta.extra.get("reason", "see the log")
            raise CurbcutError(f"the engine failed on this: {why}", where=self.model)

    def _prompt(self, turns: Sequence[Turn]) -> Any:
        vocabulary = self.engine.vocabulary
        if vocabulary is None:
            return tuple(turns) if self.turns else turns[-1]["content"]
        from curbcut.serve.engine.chat import Conversation, Prompter

        try:
            tokens = (Prompter(vocabulary).tokens(Conversation(messages=tuple(turns)))
                      if self.turns else vocabulary.encode(turns[-1]["content"]))
        except (Unfit, ValueError) as error:
            raise InputError(str(error), where=self.model,
                             mend="/reset, or write something else") from None
        if not tokens:
            raise InputError("nothing was written, and this model needs a beginning",
                             where=self.model, mend="write some words")
        return tuple(tokens)
