"""What stands before every route: who asks, how large the body is, how refusals are written."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from curbcut.errors import CurbcutError
from curbcut.ledger.access import Caller
from curbcut.serve.gateway.body import read_json
from curbcut.serve.gateway.keys import Verify, check_origin, identify
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.prompts import PromptLog
from curbcut.serve.gateway.refusal import Refused

_log = logging.getLogger(__name__)
OPEN_PATHS = frozenset(("/health", "/ping", "/version"))
"""Paths that tell nothing, and ask for no key."""
BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
KNOWN_SECONDS = 1.0
"""A key that was good is asked about again after so long."""


class Still:
    """Whether a request's key is still good, asked as often as its answer goes on."""

    def __init__(self, until: float,
                 ask: Callable[[], Awaitable[tuple[Caller | None, float]]]) -> None:
        self._until, self._ask = until, ask

    async def check(self) -> None:
        """Raises Refused (401) once the key is no longer good."""
        if time.monotonic() >= self._until:
            _, self._until = await self._ask()


class Door:
    """Lets no request through to any path, known or not, before it is known who asks.

    It decides on the path that the routes see, and closes where it does not know.
    """

    def __init__(self, app: ASGIApp, verify: Verify | None,
                 prompts: PromptLog | None = None) -> None:
        self._app, self._verify, self._prompts = app, verify, prompts
        self._known: dict[bytes, tuple[float, Caller | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = scope["curbcut.headers"] = {}
            send = _with_headers(send, headers)
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                request = Request(scope)
                caller, until = await self._who(request)
                scope["curbcut.caller"], scope["curbcut.key"] = caller, caller and caller.key
                scope["curbcut.still"] = Still(until, partial(self._who, request))
                scope["curbcut.prompts"] = self._prompts
            except Refused as refused:
                await refusal(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _who(self, request: Request) -> tuple[Caller | None, float]:
        """Who asks, and until when that is known."""
        given = request.headers.getlist("authorization")
        check_origin(request.headers.get("host"), request.headers.get("origin"), self._verify)
        if self._verify is None:
            return None, math.inf
        if len(given) > 1:
            raise Refused(401, "There are two Authorization headers.", code="invalid_api_key")
        secret = given[0] if given else None
        digest = hashlib.sha256((secret or "").encode("utf-8", "surrogateescape")).digest()
        now = time.monotonic()
        until, caller = self._known.get(digest, (0.0, None))
        if until < now:
            caller = await asyncio.to_thread(_identified, secret, self._verify)
            if len(self._known) > 1000:
                self._known.clear()
            until = now + KNOWN_SECONDS
            if caller is not None and caller.expires is not None:
                until = min(until, now + max(0.0, caller.expires - time.time()))
            self._known[digest] = until, caller
        return caller, until


async def read(request: Request, limits: Limits) -> Mapping[str, Any]:
    """The body as a JSON object; stops reading (413) as soon as it is too large.

    A compressed body is refused (415): a few bytes of it may be a gigabyte.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json":
        raise Refused(415, "Send the body as Content-Type: application/json.",
                      code="unsupported_media_type")
    coding = request.headers.get("content-encoding", "identity").strip().casefold()
    if coding not in ("", "identity"):
        raise Refused(415, "Send the body without Content-Encoding.",
                      code="unsupported_content_encoding")
    too_large = Refused(413, f"The body is larger than {limits.body_bytes} bytes.",
                        code="body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limits.body_bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"The body did not come within {BODY_SECONDS:g} s.",
                      code="request_timeout") from None
    content, prompts = read_json(bytes(body)), request.scope.get("curbcut.prompts")
    if prompts is not None:
        await asyncio.to_thread(prompts.write, request.scope.get("curbcut.caller"),
                                request.scope["path"], content)
    return content


def _identified(authorization: str | None, verify: Verify) -> Caller | None:
    """Like `identify`; raises Refused (503) where the ledger cannot be read."""
    try:
        return identify(authorization, verify)
    except CurbcutError as error:
        _log.warning("a key could not be looked up: %s", error)
        raise Refused(503, "Keys cannot be looked up now: come again in a moment.",
                      code="ledger_unavailable", retry_after_seconds=5) from None


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Adds what was found out about a request's limits to its answer, whatever it becomes."""
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and headers:
            message["headers"] = [*message["headers"], *(
                (name.encode(), value.encode()) for name, value in headers.items())]
        await send(message)
    return sending


def refusal(refused: Refused) -> Response:
    """A refusal as an answer."""
    # after a refusal the body may be half unread: the connection cannot be used again
    late = {"Connection": "close"} if refused.status in (408, 413) else {}
    return JSONResponse(refused.body, refused.status, headers=refused.headers | late)
