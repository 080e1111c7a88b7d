"""`/api/stream`: says that something is new; what it is, is asked for by cursor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from curbcut.web.site import Site

QUIET_SECONDS = 15.0
"""After so long without news a comment keeps the connection."""
POLL_SECONDS = 0.5
"""So soon a stream notices that the server ends, or the browser left."""
MOST_STREAMS = 64
MOST_NAMES = 50
"""Runs that one piece of news names; for more it says how many."""


def routes(site: Site) -> list[Route]:
    """The stream of news."""
    open_streams: set[object] = set()

    async def stream(request: Request) -> Response:
        if len(open_streams) >= MOST_STREAMS:
            return Response("too many pages are open\n", 503, {"Retry-After": "10"})
        site.wake()
        after = request.query_params.get("after", "")
        return StreamingResponse(_news(site, request, after, open_streams),
                                 media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return [Route("/api/stream", stream)]


async def _news(site: Site, request: Request, after: str,
                open_streams: set[object]) -> AsyncIterator[bytes]:
    me = object()
    open_streams.add(me)
    loop = asyncio.get_running_loop()
    try:
        with site.table.listening() as changed:
            quiet = loop.time()
            yield b"retry: 2000\n\n"
            while not site.closing and not await request.is_disconnected():
                cursor, names = site.table.names_since(after)
                if cursor != after:
                    after, quiet = cursor, loop.time()
                    yield _said(cursor, names)
                elif loop.time() - quiet > QUIET_SECONDS:
                    quiet = loop.time()
                    yield b": still here\n\n"
                changed.clear()
                try:
                    await asyncio.wait_for(changed.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue
    finally:
        open_streams.discard(me)


def _said(cursor: str, names: tuple[str, ...]) -> bytes:
    body = json.dumps({"cursor": cursor, "runs": names[:MOST_NAMES], "more": len(names)})
    return f"id: {cursor}\ndata: {body}\n\n".encode()
