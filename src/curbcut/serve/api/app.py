"""The routes, and what all of them do with an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from curbcut import __version__
from curbcut.serve.api import shapes, texts
from curbcut.serve.api.chats import chats
from curbcut.serve.api.completions import completions
from curbcut.serve.api.door import Door, refusal
from curbcut.serve.api.flow import Uses
from curbcut.serve.api.house import House
from curbcut.serve.api.responses import responses
from curbcut.serve.engine.models import Models
from curbcut.serve.gateway.keys import Verify
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.metrics import CONTENT_TYPE, Metrics

Answer = Callable[[House, Request], Awaitable[Response]]


def build(models: Models, *, verify: Verify | None, limits: Limits, uses: Uses,
          metrics: Metrics | None = None) -> ASGIApp:
    """The application that serves `models`.

    `verify` None serves anyone (on the loopback address; `server` sees to that). `metrics` counts
    what /metrics tells; with None the server has some of its own.
    """
    house = House(models, limits, uses, metrics or Metrics())
    posts: dict[str, Answer] = {
        "/v1/completions": completions, "/v1/chat/completions": chats,
        "/v1/embeddings": texts.embed, "/v1/responses": responses,
        "/v1/responses/input_tokens": texts.count_response,
        "/v1/chat/completions/input_tokens": texts.count_chat,
        "/tokenize": texts.tokenise_text, "/detokenize": texts.detokenise_tokens}
    gets: dict[str, Answer] = {
        "/v1/models": _models, "/v1/models/{name:path}": _one_model, "/health": _health,
        "/ping": _health, "/version": _version, "/metrics": _metrics,
        "/openapi.json": _published}
    routes = [Route(place, _bound(house, answer), methods=[method])
              for method, table in (("POST", posts), ("GET", gets))
              for path, answer in table.items()
              # clients whose base URL has no /v1 find the same routes
              for place in dict.fromkeys((path, path.removeprefix("/v1")))]
    app = Starlette(routes=routes, exception_handlers={
        Refused: _refused, HTTPException: _no_route, ClientDisconnect: _gone, Exception: _failed})
    app.router.redirect_slashes = False
    return Door(app, verify)


def _bound(house: House, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        return await answer(house, request)
    return route


async def _health(_house: House, _request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _version(_house: House, _request: Request) -> Response:
    return JSONResponse({"version": __version__})


async def _metrics(house: House, _request: Request) -> Response:
    return Response(house.metrics.text(house.models.stats()),
                    headers={"Content-Type": CONTENT_TYPE})


async def _published(house: House, _request: Request) -> Response:
    from curbcut.serve.api.published import document

    return JSONResponse(document([served.name for served in house.models.names()]))


async def _models(house: House, _request: Request) -> Response:
    return JSONResponse({"object": "list",
                         "data": [shapes.model_card(served) for served in house.models.names()]})


async def _one_model(house: House, request: Request) -> Response:
    name = request.path_params["name"]
    for served in house.models.names():
        if served.name == name:
            return JSONResponse(shapes.model_card(served))
    raise house.not_found(name)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{error.detail}: {request.method} "
                                         f"{request.url.path[:200]}", code="unknown_url")
    return JSONResponse(refused.body, refused.status, headers=error.headers)


def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse(Refused(500, "Something inside failed.", code="internal").body, 500)
