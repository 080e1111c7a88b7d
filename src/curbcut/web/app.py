"""The pages as one application: routes of all of them behind one door."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from curbcut import __version__
from curbcut.errors import CurbcutError
from curbcut.web import access, budget, live, planner, runs, series
from curbcut.web.answers import answered, refused
from curbcut.web.door import Door, Token
from curbcut.web.pages import static_route
from curbcut.web.site import Site

PAGES = (live, runs, series, planner, access, budget)
"""Modules whose `routes(site)` make up the pages."""


def build(site: Site, token: Token | None, host: str = "127.0.0.1") -> ASGIApp:
    """The application that shows `site`; `token` None asks nobody for the link.

    The site must have been started, and is closed by whoever started it.
    """
    routes = [static_route(), Route("/api/version", _version),
              *(route for page in PAGES for route in page.routes(site))]
    app = Starlette(routes=routes, exception_handlers={
        HTTPException: _no_route, CurbcutError: _refused, Exception: _failed})
    app.router.redirect_slashes = False
    return Door(app, token, host)


async def _version(_request: Request) -> Response:
    return answered({"version": __version__})


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, CurbcutError)
    return refused(error)


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith("/api/"):
        return Response(f"{error.detail}: there is no such page. The runs are at /\n",
                        error.status_code, media_type="text/plain")
    return answered({"error": {"what": error.detail, "where": request.url.path[:200], "mend": ""}},
                    error.status_code)


def _failed(_request: Request, _error: Exception) -> Response:
    return answered({"error": {"what": "something inside failed", "where": "",
                               "mend": "the terminal of `curbcut ui` says what"}}, 500)
