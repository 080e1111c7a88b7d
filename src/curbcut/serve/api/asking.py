"""From what a request asks for to questions that an engine takes: tokens, room, salt, seeds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from curbcut.ledger.access import Caller
from curbcut.serve.api.house import Borrowed
from curbcut.serve.engine.chat import Conversation
from curbcut.serve.engine.interface import Asked, Message, Sampling, Unfit
from curbcut.serve.gateway.completion import Prompt
from curbcut.serve.gateway.fields import Ask
from curbcut.serve.gateway.limits import Limits, check_known, room_for_answer
from curbcut.serve.gateway.refusal import Refused

INLINE_CHARACTERS = 8192
"""Texts up to here are tokenised where they are: a thread would take longer to wake."""



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
              tuple[Message, ...]], each: int, limits: Limits, param: str, caller: Caller | None,
              sampling: Sampling, extra: Mapping[str, Any] | None = None) -> list[Asked]:
    """`each` questions of every prompt; raises Refused (400) for what does not fit.

    Prompts are remembered among requests of one project only, and nobody's priority puts the
    requests of other keys back.
    """
    engine = borrowed.engine
    check_known(tuple(sampling.logit_bias), engine.vocab, "logit_bias")
    check_known(sampling.stop_tokens, engine.vocab, "stop_token_ids")
    salt = f"{caller.project}/{ask.salt}" if caller else ask.salt
    priority = 0 if caller else ask.priority
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
                               priority=priority, extra=extra or {},
                               sampling=replace(sampling, max_tokens=room, seed=seed)))
    return asked


def _kept(prompt: tuple[int, ...], ask: Ask, room: int) -> tuple[int, ...]:
    """The last (or first) tokens of a prompt, as many as asked for."""
    if ask.truncate is None:
        return prompt
    kept = max(1, room) if ask.truncate < 0 else ask.truncate
    return prompt[:kept] if ask.keep_first else prompt[-kept:]
