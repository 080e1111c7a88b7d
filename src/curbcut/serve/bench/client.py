"""Asks over HTTP/1.1 and stamps what comes back; reads it only when all is over.

Client and server may share two cores, so while answers stream the client only notes bytes and
times. `Answer.events` takes them apart afterwards.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curbcut.serve.engine.address import Address

CONNECT_SECONDS = 30.0
_END = b"\r\n0\r\n\r\n"
"""The last chunk behind another one."""


def url(where: Address) -> str:
    """The address as people write it, without /v1."""
    host = f"[{where.host}]" if ":" in where.host else where.host
    return f"http{'s' if where.secure else ''}://{host}:{where.port}{where.root}"


def near(where: Address) -> bool:
    """Whether it is surely this computer."""
    return where.host in ("localhost", "::1") or where.host.startswith("127.")


@dataclass
class Answer:
    """What came back of one request, and when; seconds are `time.perf_counter`'s."""

    began: float = 0.0
    """When the request was on its way."""
    ended: float = 0.0
    status: int = 0
    """0 where there was no answer."""
    error: str = ""
    """What went wrong with the connection."""
    parts: list[tuple[float, bytes]] = field(default_factory=list)
    """Bytes of the body as they came."""
    chunked: bool = False

    def body(self) -> bytes:
        """The body as it was meant."""
        return b"".join(data for _, data in self._pieces())

    def events(self) -> list[tuple[float, bytes]]:
        """Data of each server-sent event, and when its last byte was there."""
        found, rest = [], b""
        for when, data in self._pieces():
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            found += [(when, line[5:].strip()) for line in lines if line.startswith(b"data:")]
        if rest.startswith(b"data:"):
            found.append((self.ended, rest[5:].strip()))
        return found

    def _pieces(self) -> list[tuple[float, bytes]]:
        return _dechunked(self.parts) if self.chunked else self.parts


def _dechunked(parts: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """The payload of chunks (RFC 9112, 7.1), each piece with the time of its last bytes."""
    found: list[tuple[float, bytes]] = []
    rest = b""
    for when, data in parts:
        rest += data
        while True:
            line = rest.find(b"\r\n")
            if line < 0:
                break
            try:
                size = int(rest[:line].split(b";")[0], 16)
            except ValueError:
                return found
            if size == 0 or len(rest) < line + 2 + size + 2:
                break
            found.append((when, rest[line + 2: line + 2 + size]))
            rest = rest[line + 2 + size + 2:]
    return found


class _Connection(asyncio.Protocol):
    """One connection, one request after another; notes an answer and says when it is whole."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] | None = None
        self.answer = Answer()
        self.open = True
        self._head: bytes | None = b""
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer ends here, if it has not yet: well only if nothing said how long it is."""
        self.open = False
        whole = self._head is None and not self.answer.chunked and self._left is None
        self._finish("" if whole else f"the connection was lost ({exc or 'closed'})")

    def ask(self, request: bytes) -> asyncio.Future[None]:
        """Sends a request; the future is done when its answer is whole or lost."""
        assert self.transport is not None
        self.answer, self._head, self._left = Answer(time.perf_counter()), b"", None
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        """Notes bytes and time; takes only the head apart."""
        now = time.perf_counter()
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self._head = self._head[:end], self._head[end + 4:], None
            self._read_head(head)
        if data:
            self.answer.parts.append((now, data))
        if self.answer.chunked:
            parts = self.answer.parts
            if data.endswith(_END) or data == _END[2:] or (
                    len(data) < len(_END) and b"".join(p for _, p in parts[-8:]).endswith(_END)):
                self._finish()
        elif self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._finish()

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.answer.status = int(first.split(" ")[1]) if first.startswith("HTTP/1.") else 0
        fields = {name.strip().lower(): value.strip().lower()
                  for name, _, value in (line.partition(":") for line in lines)}
        self.answer.chunked = fields.get("transfer-encoding", "") == "chunked"
        length = fields.get("content-length", "")
        self._left = int(length) if length.isdigit() else None
        self._close = fields.get("connection") == "close"

    def _finish(self, error: str = "") -> None:
        if self.done is None or self.done.done():
            return
        self.answer.ended, self.answer.error = time.perf_counter(), error
        self.done.set_result(None)
        if self.transport is not None and getattr(self, "_close", False):
            self.open = False
            self.transport.close()


class Client:
    """Asks one server; connections that are free again are used again."""

    def __init__(self, where: Address) -> None:
        self.where = where
        self._free: list[_Connection] = []
        self._context = ssl.create_default_context() if where.secure else None

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """A request as it goes out: POST with a body, else GET."""
        content = b"" if body is None else json.dumps(body).encode()
        host = f"[{self.where.host}]" if ":" in self.where.host else self.where.host
        lines = [f"{'GET' if body is None else 'POST'} {self.where.root}{path} HTTP/1.1",
                 f"Host: {host}:{self.where.port}", "Accept: */*", "User-Agent: curbcut"]
        if self.where.key:
            lines.append(f"Authorization: Bearer {self.where.key}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Sends a request and waits for the whole answer, `seconds` at most."""
        began = time.perf_counter()
        try:
            connection = await self._connection()
        except (OSError, TimeoutError, ssl.SSLError) as error:
            return Answer(began, time.perf_counter(), error=f"no connection ({error})")
        try:
            await asyncio.wait_for(connection.ask(request), seconds)
        except TimeoutError:
            self._abort(connection)
            answer = connection.answer
            answer.ended, answer.error = time.perf_counter(), f"no end after {seconds:g} s"
            return answer
        except asyncio.CancelledError:
            self._abort(connection)
            raise
        if connection.open:
            self._free.append(connection)
        return connection.answer

    async def get(self, path: str, seconds: float = CONNECT_SECONDS) -> Answer:
        """The answer to a GET."""
        return await self.ask(self.request(path), seconds)

    def close(self) -> None:
        """Closes what is open."""
        for connection in self._free:
            self._abort(connection)
        self._free.clear()

    async def _connection(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await asyncio.wait_for(
            loop.create_connection(_Connection, self.where.host, self.where.port,
                                   ssl=self._context), CONNECT_SECONDS)
        return made

    @staticmethod
    def _abort(connection: _Connection) -> None:
        connection.open = False
        if connection.transport is not None:
            connection.transport.abort()
