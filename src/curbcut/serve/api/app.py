"""The routes. Each says in its lines what is held before what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from curbcut.serve.api import shapes
from curbcut.serve.api.flow import Flow, Uses
from curbcut.serve.engine import chat
from curbcut.serve.engine.interface import Engine, Sampling, Unfit
from curbcut.serve.gateway import fields
from curbcut.serve.gateway.keys import Verify, check_origin, identify
from curbcut.serve.gateway.limits import Limits, check_known, room_for_answer
from curbcut.serve.gateway.refusal import Refused


def build(engine: Engine, model: str, *, verify: Verify | None, limits: Limits,
          uses: Uses) -> FastAPI:
    """The application that serves `engine` under the name `model`.

    `verify` None serves anyone (on the loopback address; `server` sees to that).
    """
    app = FastAPI(title="Curbcut", docs_url=None, redoc_url=None, openapi_url=None)
    created = int(time.time())
    vocabulary = engine.vocabulary
    assert vocabulary is not None
    card = shapes.model_card(model, created, engine.context_tokens)

    async def admit(request: Request) -> str | None:
        check_origin(request.headers.get("host"), request.headers.get("origin"), verify)
        return await asyncio.to_thread(identify, request.headers.get("authorization"), verify)

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        await admit(request)
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{name:path}")
    async def one_model(request: Request, name: str) -> Response:
        await admit(request)
        _check_model(name, model)
        return JSONResponse(card)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        key = await admit(request)
        ask = fields.completion(await _read(request, limits), limits)
        _check_model(ask.model, model)
        if isinstance(ask.prompt, str):
            prompt = await asyncio.to_thread(vocabulary.encode, ask.prompt)
        else:
            prompt = list(ask.prompt)
            check_known(prompt, engine.vocab, "prompt")
        return await answer(request, "completion", key, ask, prompt, "prompt")

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        key = await admit(request)
        ask = fields.chat(await _read(request, limits), limits)
        _check_model(ask.model, model)
        try:
            text = await asyncio.to_thread(chat.render, vocabulary, ask.messages)
        except Unfit as unfit:
            raise Refused(400, str(unfit), param="messages", code="invalid_value") from None
        prompt = await asyncio.to_thread(vocabulary.encode, text)
        return await answer(request, "chat", key, ask, prompt, "messages")

    async def answer(request: Request, kind: shapes.Kind, key: str | None, ask: fields.Ask,
                     prompt: list[int], param: str) -> Response:
        room = room_for_answer(prompt, ask.max_tokens, engine.context_tokens, limits, param)
        flow = Flow(engine, uses, key, model, prompt, Sampling(
            max_tokens=room, temperature=ask.temperature, top_p=ask.top_p, seed=ask.seed,
            stop=ask.stop))
        head = shapes.Head(kind, model, int(time.time()))
        flow.start(request)
        if ask.stream:
            return StreamingResponse(_stream(flow, head, ask.include_usage),
                                     media_type="text/event-stream",
                                     headers={"Cache-Control": "no-cache"})
        return await _whole(flow, head)

    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)
    return app


async def _whole(flow: Flow, head: shapes.Head) -> Response:
    texts, finish = [], None
    async with aclosing(flow.deltas()) as deltas:
        async for delta in deltas:
            texts.append(delta.text)
            finish = delta.finish
    _check_end(finish)
    assert finish is not None
    return JSONResponse(shapes.whole(head, "".join(texts), finish,
                                     shapes.usage(len(flow.prompt), flow.tokens)))


async def _stream(flow: Flow, head: shapes.Head, include_usage: bool) -> AsyncIterator[str]:
    pending: dict[str, Any] = {"usage": None} if include_usage else {}
    try:
        async with aclosing(flow.deltas()) as deltas:
            for chunk in shapes.opening(head):
                yield shapes.event(chunk | pending)
            async for delta in deltas:
                if delta.text:
                    yield shapes.event(shapes.piece(head, delta.text) | pending)
                if delta.finish:
                    _check_end(delta.finish)
                    yield shapes.event(shapes.piece(head, "", delta.finish) | pending)
        if include_usage:
            counts = shapes.usage(len(flow.prompt), flow.tokens)
            yield shapes.event(shapes.closing(head, counts))
        yield shapes.event("[DONE]")
    except Refused as refused:  # the status line is long sent: the stream itself must say it
        yield shapes.event(refused.body)


async def _read(request: Request, limits: Limits) -> Mapping[str, Any]:
    """The body as a JSON object; stops reading (413) as soon as it is too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json":
        raise Refused(415, "Send the body as Content-Type: application/json.",
                      code="unsupported_media_type")
    too_large = Refused(413, f"The body is larger than {limits.body_bytes} bytes.",
                        code="body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limits.body_bytes:
            raise too_large
    return fields.read_json(bytes(body))


def _check_model(asked: str, served: str) -> None:
    if asked != served:
        raise Refused(404, f"The model {asked[:100]!r} does not exist; this server has "
                           f"{served!r}.", param="model", code="model_not_found")


def _check_end(finish: str | None) -> None:
    if finish == "failed":
        raise Refused(500, "The engine failed on this request.", code="engine_failed")
    if finish not in ("stop", "length"):
        raise Refused(503, "The server is shutting down.", code="shutting_down")


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    # after a refusal the body may be half unread: the connection cannot be used again
    headers = error.headers | ({"Connection": "close"} if error.status == 413 else {})
    return JSONResponse(error.body, error.status, headers=headers)


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{error.detail}: {request.method} "
                                         f"{request.url.path[:200]}", code="unknown_url")
    return JSONResponse(refused.body, refused.status, headers=error.headers)


def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse(Refused(500, "Something inside failed.", code="internal").body, 500)
