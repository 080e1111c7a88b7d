"""The routes, and what all of them do with an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from curbcut import __version__
from curbcut.ledger.access import Role
from curbcut.serve.api import shapes, texts
from curbcut.serve.api.chats import chats
from curbcut.serve.api.completions import completions
from curbcut.serve.api.door import Door, refusal
from curbcut.serve.api.house import House, caller_of
from curbcut.serve.api.responses import responses
from curbcut.serve.api.uses import Uses
from curbcut.serve.engine.models import Models
from curbcut.serve.gateway.gate import Gate
from curbcut.serve.gateway.keys import Verify
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.prompts import PromptLog
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.roles import ASK, EVERYBODY, WATCH, check_role
from curbcut.serve.metrics import CONTENT_TYPE, Metrics

Answer = Callable[[House, Request], Awaitable[Response]]


def build(models: Models, *, verify: Verify | None, limits: Limits, uses: Uses,
          metrics: Metrics | None = None, gate: Gate | None = None,
          prompts: PromptLog | None = None, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application that serves `models`.

    `verify` None serves anyone (on the loopback address; `server` sees to that); with keys, `gate`
    says who may ask how much. `metrics` counts what /metrics tells; with None the server has some
    of its own. `more` routes stand behind the same door, and see to the roles that they ask for.
    """
    house = House(models, limits, uses, metrics or Metrics(), gate, bool(more))
    posts: dict[str, Answer] = {
        "/v1/completions": _if_room(completions), "/v1/chat/completions": _if_room(chats),
        "/v1/embeddings": _if_room(texts.embed), "/v1/responses": _if_room(responses),
        "/v1/responses/input_tokens": texts.count_response,
        "/v1/chat/completions/input_tokens": texts.count_chat,
        "/tokenize": texts.tokenise_text, "/detokenize": texts.detokenise_tokens}
    gets: dict[str, tuple[Set[Role], Answer]] = {
        "/v1/models": (EVERYBODY, _models), "/v1/models/{name:path}": (EVERYBODY, _one_model),
        "/health": (EVERYBODY, _health), "/ping": (EVERYBODY, _health),
        "/version": (EVERYBODY, _version), "/openapi.json": (EVERYBODY, _published),
        "/metrics": (WATCH, _metrics)}
    tables = (("POST", {path: (ASK, answer) for path, answer in posts.items()}), ("GET", gets))
    routes = [Route(place, _bound(house, roles, answer), methods=[method])
              for method, table in tables
              for path, (roles, answer) in table.items()
              # clients whose base URL has no /v1 find the same routes
              for place in dict.fromkeys((path, path.removeprefix("/v1")))]
    app = Starlette(routes=[*routes, *more], exception_handlers={
        Refused: _refused, HTTPException: _no_route, ClientDisconnect: _gone, Exception: _failed})
    app.router.redirect_slashes = False
    return Door(app, verify, prompts)


def _bound(house: House, roles: Set[Role],
           answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        check_role(caller_of(request), roles, f"{request.method} {request.scope['path'][:100]}")
        return await answer(house, request)
    return route


def _if_room(answer: Answer) -> Answer:
    """An answer of an engine: where its queue is full, that is said before the body is read."""
    async def answered(house: House, request: Request) -> Response:
        house.check_room(caller_of(request))
        return await answer(house, request)
    return answered


async def _health(_house: House, _request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _version(_house: House, _request: Request) -> Response:
    return JSONResponse({"version": __version__})


async def _metrics(house: House, _request: Request) -> Response:
    stats = house.models.stats()
    if house.gate is not None:
        stats = {name: house.gate.admission.seen(name, one) for name, one in stats.items()}
    text = await asyncio.to_thread(house.metrics.text, stats)  # it reads the ledger
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


async def _published(house: House, request: Request) -> Response:
    from curbcut.serve.api.published import document

    names = [served.name for served in house.served(caller_of(request))]
    return JSONResponse(document(names, admin=house.managed))


async def _models(house: House, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [
        shapes.model_card(served) for served in house.served(caller_of(request))]})


async def _one_model(house: House, request: Request) -> Response:
    name = request.path_params["name"]
    for served in house.served(caller_of(request)):
        if served.name == name:
            return JSONResponse(shapes.model_card(served))
    raise house.not_found(name, caller_of(request))


# Functions that are no coroutines would each be run on a thread.
async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{error.detail}: {request.method} "
                                         f"{request.url.path[:200]}", code="unknown_url")
    return JSONResponse(refused.body, refused.status, headers=error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse(Refused(500, "Something inside failed.", code="internal").body, 500)
