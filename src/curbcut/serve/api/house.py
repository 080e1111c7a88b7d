"""What all routes share: the models, the limits, and the way from a request to an engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request

from curbcut import __version__
from curbcut.errors import CurbcutError
from curbcut.serve.api.flow import Asker, Crossing, Flow, Use, Uses
from curbcut.serve.engine.chat import Conversation, Prompter
from curbcut.serve.engine.interface import Asked, Closed, Engine, Message, Sampling, Unfit
from curbcut.serve.engine.models import Models, NoRoom, UnknownModel
from curbcut.serve.engine.text import Vocabulary
from curbcut.serve.gateway.completion import Prompt
from curbcut.serve.gateway.fields import Ask
from curbcut.serve.gateway.limits import Limits, check_known, room_for_answer
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.metrics import Metrics

INLINE_CHARACTERS = 8192
"""Texts up to here are tokenised where they are: a thread would take longer to wake."""


@dataclass(frozen=True)
class Borrowed:
    """An engine for as long as one request takes, and how it goes about it."""

    name: str
    """What the model is called."""
    engine: Engine
    adapter: str
    prompter: Prompter | None
    """None where only the engine knows the tokens of a text."""
    fingerprint: str

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Text to tokens and back."""
        return self.engine.vocabulary

    def needs_vocabulary(self) -> Vocabulary:
        """The vocabulary; raises Refused (400) where only the engine knows it."""
        if self.vocabulary is None:
            raise Refused(400, f"The tokenizer of {self.name!r} is not here.", param="model",
                          code="unsupported_model")
        return self.vocabulary


@dataclass
class House:
    """One server."""

    models: Models
    limits: Limits
    uses: Uses
    metrics: Metrics
    _prompters: WeakKeyDictionary[Engine, Prompter] = field(default_factory=WeakKeyDictionary)
    _crossing: Crossing | None = None

    @contextlib.asynccontextmanager
    async def borrow(self, name: str | None) -> AsyncIterator[Borrowed]:
        """The engine of a model; None asks for the only one. Raises Refused (400, 404, 503)."""
        if name is None:
            own = [served.name for served in self.models.names() if not served.parent]
            if len(own) != 1:
                raise Refused(400, f"You must provide model: this server has {_shown(own)}.",
                              param="model", code="missing_required_parameter")
            name = own[0]
        async with AsyncExitStack() as stack:
            try:
                leased = await stack.enter_async_context(self.models.lease(name))
            except UnknownModel:
                raise self.not_found(name) from None
            except NoRoom as full:
                raise Refused(503, f"The model cannot be loaded now: {full}", code="no_room",
                              retry_after_seconds=5) from None
            except Closed:
                raise Refused(503, "The server is shutting down.", code="shutting_down") from None
            except CurbcutError as error:
                raise Refused(503, f"The model cannot be loaded: {error}",
                              code="model_not_loaded") from None
            engine = leased.engine
            yield Borrowed(name, engine, leased.adapter, self._prompter(engine),
                           fingerprint(name, engine))

    def not_found(self, name: str) -> Refused:
        """The refusal of a name that no model has."""
        known = _shown([served.name for served in self.models.names()])
        return Refused(404, f"The model {name[:100]!r} does not exist; this server has {known}.",
                       param="model", code="model_not_found")

    def tell(self, use: Use) -> None:
        """Counts a request that has ended, and hands it to who wants to know; does not wait."""
        self.metrics.ended(use.model, finish=use.finish, seconds=use.seconds,
                           ttft_seconds=use.ttft_seconds, answer_tokens=use.output_tokens)
        self.uses.tell(use)

    def crossing(self) -> Crossing:
        """The way from engines' threads to this event loop."""
        if self._crossing is None:
            self._crossing = Crossing()
        return self._crossing

    async def begin(self, request: Request, borrowed: Borrowed, asked: Sequence[Asked],
                    each: int = 1) -> Flow:
        """Takes questions in; raises Refused."""
        asker = Asker(request.scope.get("curbcut.key"), borrowed.name, borrowed.adapter)
        still = request.scope.get("curbcut.still")
        flow = Flow(borrowed.engine, self.tell, asker, asked, each, still and still.check)
        await flow.start(self.crossing(), request.receive)
        return flow

    def _prompter(self, engine: Engine) -> Prompter | None:
        if engine.vocabulary is None:
            return None
        found = self._prompters.get(engine)
        if found is None:
            found = self._prompters[engine] = Prompter(engine.vocabulary)
        return found


def fingerprint(name: str, engine: Engine) -> str:
    """The same for the same model, engine and version."""
    told = f"{name} {engine.context_tokens} {engine.vocab} {type(engine).__name__} {__version__}"
    return f"b{hashlib.blake2s(told.encode(), digest_size=6).hexdigest()}"


async def encoded(borrowed: Borrowed, prompt: Prompt, around: bool, param: str) -> tuple[int, ...]:
    """The tokens of a prompt; raises Refused (400) for tokens that the model does not have."""
    if not isinstance(prompt, str):
        check_known(prompt, borrowed.engine.vocab, param)
        return prompt
    vocabulary = borrowed.needs_vocabulary()

    def encode() -> tuple[int, ...]:
        return tuple(vocabulary.encode(prompt, around=around))
    return encode() if len(prompt) <= INLINE_CHARACTERS else await asyncio.to_thread(encode)


async def conversed(borrowed: Borrowed, conversation: Conversation,
                    around: bool) -> tuple[int, ...]:
    """The tokens of a conversation; raises Refused (400) where the template refuses it."""
    prompter = borrowed.prompter
    assert prompter is not None

    def encode() -> tuple[int, ...]:
        return tuple(prompter.tokens(conversation, around=around))
    length = sum(len(str(message.get("content"))) for message in conversation.messages)
    try:
        if length <= INLINE_CHARACTERS and not conversation.tools:
            return encode()
        return await asyncio.to_thread(encode)
    except Unfit as unfit:
        raise Refused(400, str(unfit), param="messages", code="invalid_value") from None


async def readied(borrowed: Borrowed, asked: Sequence[Asked]) -> None:
    """Reads the questions' grammar off the event loop, which it could hold up: the engine then
    finds it read. Whatever is wrong with it, the engine will say.
    """
    grammar, vocabulary = asked[0].sampling.grammar, borrowed.vocabulary
    if grammar is not None and vocabulary is not None:
        from curbcut.serve.engine.grammar import prepare

        with contextlib.suppress(Unfit):
            await asyncio.to_thread(prepare, grammar, vocabulary)


def questions(borrowed: Borrowed, ask: Ask, prompts: Sequence[tuple[int, ...] | str |
              tuple[Message, ...]], each: int, limits: Limits, param: str, key: str | None,
              sampling: Sampling, extra: Mapping[str, Any] | None = None) -> list[Asked]:
    """`each` questions of every prompt; raises Refused (400) for what does not fit.

    Prompts are remembered among requests of one key only.
    """
    engine = borrowed.engine
    check_known(tuple(sampling.logit_bias), engine.vocab, "logit_bias")
    check_known(sampling.stop_tokens, engine.vocab, "stop_token_ids")
    salt = f"{key}/{ask.salt}" if key else ask.salt
    asked = []
    for prompt in prompts:
        known = borrowed.vocabulary is not None or (prompt and isinstance(prompt[0], int))
        limit = None if ask.max_tokens is None else max(1, ask.max_tokens)
        if known:
            prompt = _kept(prompt, ask, engine.context_tokens - (limit or 1))  # type: ignore[arg-type]
            room = room_for_answer(prompt, limit, engine.context_tokens, limits, param)
        else:
            room = limit or min(limits.answer_tokens, engine.context_tokens)
        if sampling.min_tokens > room:
            raise Refused(400, f"Invalid min_tokens: there is room for {room} tokens.",
                          param="min_tokens", code="invalid_value")
        for place in range(each):
            seed = sampling.seed if sampling.seed is None or not place \
                else (sampling.seed + place) % 2**63
            asked.append(Asked(prompt=prompt, adapter=borrowed.adapter, salt=salt,
                               priority=ask.priority, extra=extra or {},
                               sampling=replace(sampling, max_tokens=room, seed=seed)))
    return asked


def _kept(prompt: tuple[int, ...], ask: Ask, room: int) -> tuple[int, ...]:
    """The last (or first) tokens of a prompt, as many as asked for."""
    if ask.truncate is None:
        return prompt
    kept = max(1, room) if ask.truncate < 0 else ask.truncate
    return prompt[:kept] if ask.keep_first else prompt[-kept:]


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
