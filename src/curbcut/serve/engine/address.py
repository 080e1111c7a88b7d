"""HTTP to another server, with what the standard library has: one connection a request.

Redirects are not followed, and nothing of unbounded length is read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from curbcut.errors import InputError

CONNECT_SECONDS = 10.0
_MOST_LINE_BYTES = 8_000_000
ERRORS = (OSError, http.client.HTTPException, ValueError)
"""What a connection may raise."""


class Failed(Exception):
    """The other side refused, or said what cannot be read. `status` is HTTP's, 0 for none, and
    `code` OpenAI's name of the error, "" for none.
    """

    def __init__(self, why: str, status: int = 0, again_seconds: float = 1.0,
                 code: str = "") -> None:
        super().__init__(why)
        self.status, self.again_seconds, self.code = status, again_seconds, code


def refuses(status: int) -> bool:
    """Whether a status says that the request itself is wrong, so that nobody would take it; not
    who asks (401, 403), where (404), or when (408, 429).
    """
    return 400 <= status < 500 and status not in (401, 403, 404, 408, 429)


@dataclass(frozen=True)
class Address:
    """Where a server is, and the key that it wants."""

    secure: bool
    host: str
    port: int
    root: str
    """Path before /v1."""
    key: str

    @classmethod
    def of(cls, url: str, key: str = "") -> Address:
        """From a base URL, with or without /v1 at its end; raises InputError."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.username:
            raise InputError(f"{url!r} is no address of a server", where="url",
                             mend="write it like http://127.0.0.1:8000")
        secure = parts.scheme == "https"
        root = parts.path.rstrip("/").removesuffix("/v1")
        return cls(secure, host, port or (443 if secure else 80), root, key)

    def connect(self, idle_seconds: float) -> http.client.HTTPConnection:
        """An open connection; raises OSError."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        found = kind(self.host, self.port, timeout=CONNECT_SECONDS)
        found.connect()
        found.sock.settimeout(idle_seconds)
        return found

    def headers(self) -> dict[str, str]:
        """Of each request."""
        said = {"Content-Type": "application/json", "Connection": "close"}
        return said | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def reaches(self, path: str) -> bool:
        """Whether a path answers with 200. Raises Failed where nobody listens."""
        try:
            with contextlib.closing(self.connect(CONNECT_SECONDS)) as connection:
                connection.request("GET", self.root + path, headers=self.headers())
                return connection.getresponse().status == 200
        except ERRORS as error:
            raise Failed(f"{self.host}:{self.port} cannot be reached ({error})") from None

    def ask(self, path: str, content: Mapping[str, Any] | None = None,
            idle_seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
        """The JSON object at a path. Raises Failed."""
        try:
            with contextlib.closing(self.connect(idle_seconds)) as connection:
                connection.request("GET" if content is None else "POST", self.root + path,
                                   None if content is None else json.dumps(content),
                                   self.headers())
                return whole(accepted(connection.getresponse()))
        except ERRORS as error:
            raise Failed(f"{self.host}:{self.port} cannot be reached ({error})") from None


def accepted(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """The response, where it is one; raises Failed with what the other side said."""
    if response.status == 200:
        return response
    said = response.read(65_536)
    try:
        told = json.loads(said)
        inner = told.get("error", told)
        why = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        code = inner.get("code") if isinstance(inner, dict) else None
    except (ValueError, AttributeError, RecursionError):
        why, code = said.decode(errors="replace").strip(), None
    again = response.headers.get("Retry-After", "")
    raise Failed(f"HTTP {response.status}: {why[:500]}", response.status,
                 min(float(again), 60.0) if again.isdigit() else 1.0,
                 code[:64] if isinstance(code, str) else "")


def whole(response: http.client.HTTPResponse) -> dict[str, Any]:
    """The response's JSON object; raises Failed."""
    content = response.read(_MOST_LINE_BYTES * 8)
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise Failed("the server's answer is no JSON") from None
    if not isinstance(told, dict):
        raise Failed("the server's answer is no JSON object")
    return told


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to [DONE]."""
    while line := response.readline(_MOST_LINE_BYTES):
        name, _, data = line.strip().partition(b":")
        if name != b"data":
            continue
        if data.strip() == b"[DONE]":
            return
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            raise Failed("the server's stream is no JSON") from None
        if not isinstance(told, dict):
            raise Failed("the server's stream is no JSON object")
        if error := told.get("error"):
            why = error.get("message", error) if isinstance(error, dict) else error
            raise Failed(str(why)[:500])
        yield told
