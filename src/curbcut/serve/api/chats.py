"""POST /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from curbcut.ledger.access import Caller
from curbcut.serve.api import shapes
from curbcut.serve.api.answers import (
    EventStream,
    Gathered,
    begun,
    counted,
    gathered,
    guarded,
    pieces_of,
)
from curbcut.serve.api.asking import conversed, questions, readied
from curbcut.serve.api.door import read
from curbcut.serve.api.flow import Flow
from curbcut.serve.api.house import Borrowed, House, caller_of
from curbcut.serve.api.odds import Spelling
from curbcut.serve.engine.calls import Arguments, CallPiece, Listed, Reader, reader_for
from curbcut.serve.engine.interface import Asked, Delta, Message
from curbcut.serve.gateway.chat import Chat, chat

_MARKS = {"hermes": "<tool_call>", "llama": "<|python_tag|>", "mistral": "[TOOL_CALLS]"}


async def chats(house: House, request: Request) -> Response:
    """Answers in a conversation."""
    ask = chat(await read(request, house.limits), house.limits)
    async with AsyncExitStack() as stack:
        borrowed = await stack.enter_async_context(house.borrow(request, ask.model))
        asked = await asked_of(house, borrowed, ask, caller_of(request))
        head = shapes.Head("chat", borrowed.name, borrowed.fingerprint)
        headers = {"X-Request-Id": head.id}
        await readied(borrowed, asked)
        flow = await house.begin(request, borrowed, asked, each=ask.n, stream=ask.stream,
                                 priority=ask.priority)
        if ask.stream:
            told = Streaming(borrowed, ask, flow, head, asked[0].prompt)
            events = told.events() if borrowed.vocabulary else await begun(told.events())
            return EventStream(guarded(events, lambda r: shapes.event(r.body)),
                               stack.pop_all().aclose, headers)
        answers = await gathered(flow, ask.n)
        choices = [_choice(borrowed, ask, index, answer) for index, answer in enumerate(answers)]
        more: dict[str, Any] = {"usage": counted(flow)}
        if ask.return_ids and isinstance(asked[0].prompt, tuple):
            more["prompt_token_ids"] = list(asked[0].prompt)
        if ask.sampling.prompt_logprobs is not None:
            more["prompt_logprobs"] = Spelling(borrowed.vocabulary).prompt(answers[0].prompt_odds)
        return JSONResponse(head.part(choices, chunk=False) | more, headers=headers)


async def asked_of(house: House, borrowed: Borrowed, ask: Chat,
                   caller: Caller | None) -> list[Asked]:
    """The questions of a chat; raises Refused (400)."""
    sampling = ask.sampling
    extra: dict[str, Any] = {}
    prompt: Any = tuple(map(_as_sent, ask.conversation.messages))
    if borrowed.prompter is not None:
        prompt = await conversed(borrowed, ask.conversation, ask.add_special)
        if _by_text(ask) and _MARKS[borrowed.prompter.call_kind] in borrowed.prompter.specials:
            sampling = replace(sampling, special_text=True)
    else:
        extra = _elsewhere(ask)
        if ask.choice.mode in ("required", "named"):
            sampling = replace(sampling, grammar=None)  # the engine there sees to it
    return questions(borrowed, ask, [prompt], ask.n, house.limits, "messages", caller,
                     sampling, extra)


def _elsewhere(ask: Chat) -> dict[str, Any]:
    """What an engine elsewhere has to know beside the messages."""
    given = ask.conversation
    extra: dict[str, Any] = {} if ask.max_tokens is not None else {"max_tokens": None}
    if ask.tools:
        extra |= {"tools": list(ask.tools), "parallel_tool_calls": ask.parallel,
                 "tool_choice": {"type": "function", "function": {"name": ask.choice.name}}
                 if ask.choice.mode == "named" else ask.choice.mode}
    if given.variables:
        extra["chat_template_kwargs"] = dict(given.variables)
    if given.documents:
        extra["documents"] = list(given.documents)
    if not given.begins:
        extra |= {"add_generation_prompt": False, "continue_final_message": given.goes_on}
    return extra


def _as_sent(message: Message) -> Message:
    """A message with the arguments of its calls as text again."""
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [{**call, "function": {
        **call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]]}


def _by_text(ask: Chat) -> bool:
    """Whether the model itself decides to call a tool, so that its text has to be read."""
    return ask.choice.mode == "auto" and bool(ask.tools)


def reader_of(borrowed: Borrowed, ask: Chat) -> Reader | None:
    """What reads calls of tools in one answer; None where there are none to be read."""
    if borrowed.prompter is None or ask.choice.mode == "none" or not ask.tools:
        return None
    if ask.choice.mode == "named":
        return Arguments(ask.choice.name)
    names = [tool["function"]["name"] for tool in ask.tools]
    return Listed(names) if ask.choice.mode == "required" \
        else reader_for(borrowed.prompter.call_kind, names)


def plain(borrowed: Borrowed, ask: Chat, text: str) -> str:
    """Text without the special tokens that were asked for only to find calls."""
    if borrowed.prompter is not None and not ask.sampling.special_text and _by_text(ask) \
            and _MARKS[borrowed.prompter.call_kind] in borrowed.prompter.specials:
        for special in borrowed.prompter.specials:
            text = text.replace(special, "")
    return text


def read_whole(borrowed: Borrowed, ask: Chat,
               answer: Gathered) -> tuple[str | None, list[CallPiece]]:
    """The text of an answer and its calls."""
    reader = reader_of(borrowed, ask)
    if reader is None:
        merged = _merged(answer.calls)
        return (answer.text or None) if merged else answer.text, merged
    pieces = [*reader.add(answer.text), *reader.finish()]
    text = plain(borrowed, ask, "".join(piece for piece in pieces if isinstance(piece, str)))
    calls = [piece for piece in pieces if isinstance(piece, CallPiece)]
    return (text or None) if calls else text, calls


def written_call(call: CallPiece, *, streamed: bool) -> dict[str, Any]:
    """A call as OpenAI writes it; a piece that goes on has no name."""
    function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
    written: dict[str, Any] = {"index": call.index} if streamed else {}
    if call.name:
        written |= {"id": call.id, "type": "function"}
    return written | {"function": function}


def finish_of(finish: str | None, called: bool) -> str:
    """How an answer ended."""
    return "tool_calls" if called and finish == "stop" else str(finish)


def _choice(borrowed: Borrowed, ask: Chat, index: int, answer: Gathered) -> dict[str, Any]:
    text, calls = read_whole(borrowed, ask, answer)
    if ask.echo and ask.conversation.goes_on:
        text = f"{ask.conversation.messages[-1]['content']}{text or ''}"
    logprobs = Spelling(borrowed.vocabulary, ask.tokens_as_ids).chat(answer.odds, answer.spelt) \
        if ask.sampling.logprobs is not None else None
    said = shapes.message(text, [written_call(call, streamed=False) for call in calls])
    choice = shapes.chat_choice(index, said, finish_of(answer.finish, bool(calls)), logprobs)
    if answer.stopped_by is not None:
        choice["stop_reason"] = answer.stopped_by
    return choice | ({"token_ids": answer.ids} if ask.return_ids else {})


def _merged(pieces: Iterable[CallPiece]) -> list[CallPiece]:
    """Whole calls of pieces."""
    calls: dict[int, CallPiece] = {}
    for piece in pieces:
        before = calls.get(piece.index)
        calls[piece.index] = piece if before is None else replace(
            before, arguments=before.arguments + piece.arguments)
    return [calls[index] for index in sorted(calls)]


class Streaming:
    """Chunks of a chat's answers."""

    def __init__(self, borrowed: Borrowed, ask: Chat, flow: Flow, head: shapes.Head,
                 prompt: Any) -> None:
        self._borrowed, self._ask, self._flow, self._prompt = borrowed, ask, flow, prompt
        self._events = shapes.Events(head, ask.include_usage)
        self._readers = [reader_of(borrowed, ask) for _ in range(ask.n)]
        self._spelling = Spelling(borrowed.vocabulary, ask.tokens_as_ids)
        self._begun = [False] * ask.n
        self._called = [False] * ask.n
        self._bare = ask.sampling.logprobs is None and not ask.return_ids \
            and not ask.running_usage
        self._untold = [Gathered() for _ in range(ask.n)]

    async def events(self) -> AsyncGenerator[str, None]:
        """All events, [DONE] included; raises Refused."""
        async with aclosing(self._flow.deltas()) as batches:
            async for deltas in batches:
                written = [event for index, delta in deltas for event in self._of(index, delta)]
                if written:
                    yield "".join(written)
        closing = self._events.counts(counted(self._flow)) if self._ask.include_usage else ""
        yield closing + shapes.event("[DONE]")

    def _of(self, index: int, delta: Delta) -> list[str]:
        reader = self._readers[index]
        if self._bare and reader is None and self._begun[index] and not delta.finish \
                and not delta.extra:
            return [self._events.text(index, delta.text)] if delta.text else []
        self._untold[index].add(delta)
        written = [] if self._begun[index] else self._opening(index, delta)
        pieces: list[str | CallPiece] = [*pieces_of(delta)]
        if reader is None:
            pieces += [delta.text] if delta.text else []
        else:
            pieces += reader.add(delta.text)
            pieces += reader.finish() if delta.finish else []
        for piece in pieces:
            if isinstance(piece, CallPiece):
                self._called[index] = True
                written.append(self._chunk(index, {
                    "tool_calls": [written_call(piece, streamed=True)]}))
            elif text := plain(self._borrowed, self._ask, piece):
                written.append(self._chunk(index, {"content": text}))
        if delta.finish:
            written.append(self._chunk(index, {}, finish_of(delta.finish, self._called[index])))
        return written

    def _opening(self, index: int, delta: Delta) -> list[str]:
        """Who speaks, before what is said."""
        self._begun[index] = True
        said = {"role": "assistant", "content": ""}
        if self._ask.echo and self._ask.conversation.goes_on:
            said["content"] = str(self._ask.conversation.messages[-1]["content"])
        more: dict[str, Any] = {}
        if self._ask.return_ids and isinstance(self._prompt, tuple):
            more["prompt_token_ids"] = list(self._prompt)
        if self._ask.sampling.prompt_logprobs is not None:
            more["prompt_logprobs"] = self._spelling.prompt(delta.prompt_odds)
        return [self._events.choice(shapes.chat_piece(index, said), self._running(), **more)]

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> str:
        """A chunk, with what belongs to the tokens that are not told yet."""
        untold = self._untold[index]
        self._untold[index] = Gathered(stopped_by=untold.stopped_by)
        logprobs = self._spelling.chat(untold.odds, untold.spelt) \
            if self._ask.sampling.logprobs is not None and (
                untold.odds or untold.spelt or not finish) else None
        choice = shapes.chat_piece(index, delta, finish, logprobs)
        if self._ask.return_ids:
            choice["token_ids"] = untold.ids
        if finish and untold.stopped_by is not None:
            choice["stop_reason"] = untold.stopped_by
        return self._events.choice(choice, self._running())

    def _running(self) -> dict[str, Any] | None:
        """The counts so far, where every chunk has them."""
        return counted(self._flow) if self._ask.running_usage and self._ask.include_usage \
            else None
