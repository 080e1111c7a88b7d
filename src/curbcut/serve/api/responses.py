"""POST /v1/responses: OpenAI's newer shape of a chat. Nothing is kept between requests."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from curbcut.serve.api import shapes
from curbcut.serve.api.answers import EventStream, Gathered, gathered, guarded, pieces_of
from curbcut.serve.api.asking import readied
from curbcut.serve.api.chats import asked_of, plain, read_whole, reader_of
from curbcut.serve.api.door import read
from curbcut.serve.api.flow import Flow
from curbcut.serve.api.house import Borrowed, House, caller_of
from curbcut.serve.api.odds import Spelling
from curbcut.serve.engine.calls import CallPiece
from curbcut.serve.engine.interface import Delta, TokenOdds
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.responses import Respond, respond


async def responses(house: House, request: Request) -> Response:
    """Answers in a conversation, in the shape of OpenAI's responses."""
    ask = respond(await read(request, house.limits), house.limits)
    async with AsyncExitStack() as stack:
        borrowed = await stack.enter_async_context(house.borrow(request, ask.chat.model))
        asked = await asked_of(house, borrowed, ask.chat, caller_of(request))
        await readied(borrowed, asked)
        flow = await house.begin(request, borrowed, asked, stream=ask.chat.stream,
                                 priority=ask.chat.priority)
        frame = _Frame(borrowed.name, ask.repeated)
        headers = {"X-Request-Id": frame.id}
        if ask.chat.stream:
            told = _Streaming(borrowed, ask, flow, frame)
            return EventStream(guarded(told.events(), told.failed), stack.pop_all().aclose,
                               headers)
        [answer] = await gathered(flow, 1)
        text, calls = read_whole(borrowed, ask.chat, answer)
        status = "completed" if answer.finish == "stop" else "incomplete"
        logprobs = _logprobs(borrowed, answer.odds, answer.spelt) if ask.with_logprobs else []
        output = ([_message(_new("msg"), text or "", status, logprobs)]
                  if text or not calls else []) \
            + [_call(_new("fc"), call, status) for call in calls]
        return JSONResponse(frame.filled(status, output, flow), headers=headers)


def _new(kind: str) -> str:
    return f"{kind}_{uuid4().hex}"


def _logprobs(borrowed: Borrowed, odds: list[TokenOdds],
              spelt: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Spelling(borrowed.vocabulary).chat(odds, spelt)["content"]
    return found


def _text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _message(name: str, text: str, status: str,
             logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "assistant", "status": status,
            "content": [_text_part(text, logprobs)]}


def _call(name: str, call: CallPiece, status: str) -> dict[str, Any]:
    return {"id": name, "type": "function_call", "call_id": call.id, "name": call.name,
            "arguments": call.arguments, "status": status}


@dataclass(frozen=True)
class _Frame:
    """What every telling of one response has."""

    model: str
    repeated: Mapping[str, Any]
    id: str = field(default_factory=lambda: _new("resp"))
    created: int = field(default_factory=lambda: int(time.time()))

    def filled(self, status: str, output: list[dict[str, Any]],
               flow: Flow | None = None) -> dict[str, Any]:
        """The response, with the counts once it has ended."""
        return {"id": self.id, "object": "response", "created_at": self.created,
                "status": status, "error": None, "model": self.model, "output": output,
                "incomplete_details": {"reason": "max_output_tokens"}
                if status == "incomplete" else None,
                "usage": None if flow is None else _usage(flow), **self.repeated}


def _usage(flow: Flow) -> dict[str, Any]:
    read_tokens, answered = sum(flow.prompt_tokens), sum(flow.tokens)
    return {"input_tokens": read_tokens, "output_tokens": answered,
            "total_tokens": read_tokens + answered,
            "input_tokens_details": {"cached_tokens": sum(flow.cached_tokens),
                                     "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0}}


class _Streaming:
    """The events of one response, in OpenAI's order: an item is added, filled, and done before
    the next one begins.
    """

    def __init__(self, borrowed: Borrowed, ask: Respond, flow: Flow, frame: _Frame) -> None:
        self._borrowed, self._ask, self._flow, self._frame = borrowed, ask, flow, frame
        self._reader = reader_of(borrowed, ask.chat)
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._odds: list[TokenOdds] = []
        self._spelt: list[Mapping[str, Any]] = []

    async def events(self) -> AsyncGenerator[str, None]:
        """All events; raises Refused."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}",
                              response=self._frame.filled("in_progress", []))
        last = Gathered()
        async with aclosing(self._flow.deltas()) as batches:
            async for deltas in batches:
                written = []
                for _, delta in deltas:
                    last.add(delta)
                    written += self._of(delta)
                if written:
                    yield "".join(written)
        status = "completed" if last.finish == "stop" else "incomplete"
        if not self._output:
            yield "".join(self._text(""))
        yield "".join(self._done(status)) + self._event(
            f"response.{status}", response=self._frame.filled(status, self._output, self._flow))

    def failed(self, refused: Refused) -> str:
        """The event of an answer that broke."""
        return self._event("error", code=refused.code, message=refused.message,
                           param=refused.param)

    def _event(self, kind: str, **content: Any) -> str:
        self._number += 1
        return shapes.event({"type": kind, "sequence_number": self._number - 1, **content}, kind)

    def _of(self, delta: Delta) -> list[str]:
        self._odds += delta.odds
        self._spelt += delta.extra.get("logprobs") or ()
        pieces: list[str | CallPiece] = [*pieces_of(delta)]
        if self._reader is None:
            pieces.append(delta.text)
        else:
            pieces += self._reader.add(delta.text)
            pieces += self._reader.finish() if delta.finish else []
        written: list[str] = []
        for piece in pieces:
            if isinstance(piece, CallPiece):
                written += self._called(piece)
            elif text := plain(self._borrowed, self._ask.chat, piece):
                written += self._text(text)
        return written

    def _text(self, text: str) -> list[str]:
        written: list[str] = []
        if self._open is None or self._open["type"] != "message":
            written += self._done("completed")
            self._open = _message(_new("msg"), "", "in_progress", [])
            written.append(self._added({**self._open, "content": []}))
            written.append(self._within("response.content_part.added", content_index=0,
                                        part=_text_part("", [])))
        part = self._open["content"][0]
        odds, self._odds, spelt, self._spelt = self._odds, [], self._spelt, []
        logprobs = _logprobs(self._borrowed, odds, spelt) if self._ask.with_logprobs else []
        part["text"] += text
        part["logprobs"] += logprobs
        if text:
            written.append(self._within("response.output_text.delta", content_index=0, delta=text,
                                        logprobs=_short(logprobs)))
        return written

    def _called(self, piece: CallPiece) -> list[str]:
        written: list[str] = []
        if piece.name:
            written += self._done("completed")
            self._open = _call(_new("fc"), piece, "in_progress") | {"arguments": ""}
            written.append(self._added(self._open))
        assert self._open is not None
        self._open["arguments"] += piece.arguments
        if piece.arguments:
            written.append(self._within("response.function_call_arguments.delta",
                                        delta=piece.arguments))
        return written

    def _done(self, status: str) -> list[str]:
        """Closes the item that is open."""
        item = self._open
        if item is None:
            return []
        written = []
        if item["type"] == "message":
            part = item["content"][0]
            written.append(self._within("response.output_text.done", content_index=0,
                                        text=part["text"], logprobs=_short(part["logprobs"])))
            written.append(self._within("response.content_part.done", content_index=0, part=part))
        else:
            written.append(self._within("response.function_call_arguments.done",
                                        arguments=item["arguments"]))
        item["status"] = status
        written.append(self._event("response.output_item.done", item=item,
                                   output_index=len(self._output) - 1))
        self._open = None
        return written

    def _added(self, item: dict[str, Any]) -> str:
        assert self._open is not None
        self._output.append(self._open)
        return self._event("response.output_item.added", item=item,
                           output_index=len(self._output) - 1)

    def _within(self, kind: str, **content: Any) -> str:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], output_index=len(self._output) - 1,
                           **content)


def _short(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log-probabilities as the events have them, without bytes."""
    return [{"token": one["token"], "logprob": one["logprob"], "top_logprobs": [
        {"token": top["token"], "logprob": top["logprob"]} for top in one["top_logprobs"]]}
        for one in logprobs]
