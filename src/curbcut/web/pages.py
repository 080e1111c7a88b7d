"""Routes of HTML pages and of the files that they load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from curbcut.web.shell import render, static_files

FOREVER = "public, max-age=31536000, immutable"
"""Of a file whose address has its digest."""


def page(template: str, address: str, status: int = 200, **values: Any) -> Response:
    """The page of `templates/TEMPLATE`; `address` is the navigation's that it belongs to."""
    return Response(render(template, page=address, **values), status,
                    media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})


def page_route(path: str, template: str, address: str,
               values: Callable[[Request], dict[str, Any]] | None = None) -> Route:
    """The route of one page; `values` gives what it is filled with."""
    def endpoint(request: Request) -> Response:
        return page(template, address, **(values(request) if values else {}))
    return Route(path, endpoint)


def static_route() -> Route:
    """What pages load, by plain names from a fixed list."""
    def endpoint(request: Request) -> Response:
        found = static_files().get(request.path_params["name"])
        if found is None:
            return Response("no such file\n", 404, media_type="text/plain")
        fresh = request.query_params.get("v") == found.digest
        return Response(found.body, media_type=found.media_type,
                        headers={"Cache-Control": FOREVER if fresh else "no-cache"})
    return Route("/static/{name}", endpoint)
