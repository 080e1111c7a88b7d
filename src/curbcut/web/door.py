"""Who may open the pages: whoever has the link that `curbcut ui` printed.

Any program of this machine, and any web page in its browser, can reach a loopback port. The link
holds a secret; opening it sets a cookie that other sites' pages cannot send (SameSite=Strict) and
that scripts cannot read. `Host` must name this machine, else a foreign name could be made to point
here; what is not a GET must come from these pages themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from curbcut.serve.gateway.keys import is_loopback
from curbcut.web.shell import POLICY

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""On every answer."""
MOST_TARGET_BYTES = 16_384
"""Path and query of a request: more is refused."""

_OPENED = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0;url={target}"><title>Curbcut</title></head>
<body><p><a href="{target}">Open the pages</a></p></body></html>"""
_CLOSED = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Curbcut</title>
<link rel="icon" href="data:,"></head><body><h1>This page needs its link</h1>
<p>Open the link that <code>curbcut ui</code> printed
in the terminal: it ends in <code>?token=…</code>.</p></body></html>"""


@dataclass(frozen=True)
class Token:
    """The secret of the link, and the cookie that stands for it."""

    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def cookie(self) -> str:
        """What the browser keeps: the link's secret cannot be had from it."""
        return hmac.new(self.secret.encode(), b"cookie", hashlib.sha256).hexdigest()

    def opens(self, given: str) -> bool:
        """Whether `given` is the secret; in fixed time, whatever text it is."""
        return _equal(given, self.secret)

    def keeps(self, given: str) -> bool:
        """Whether `given` is the cookie; in fixed time."""
        return _equal(given, self.cookie)


class Door:
    """Lets in who may, and puts the headers of safety on every answer. Decides before routing."""

    def __init__(self, app: ASGIApp, token: Token | None, host: str = "127.0.0.1") -> None:
        """`token` None asks nobody; `host` is the address that is listened on."""
        self._app, self._token = app, token
        self._names = {"localhost", host.casefold(), socket.gethostname().casefold(),
                       socket.getfqdn().casefold()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; anything but HTTP is turned away."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._judge(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _judge(self, scope: Scope) -> Response | None:
        """Why not, or None to go on."""
        headers = Headers(scope=scope)
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_TARGET_BYTES:
            return _said("the address is too long", 414)
        if not self._known(headers.getlist("host")):
            return _said("Host does not name this machine", 403)
        if scope["method"] not in ("GET", "HEAD") and not _own(headers):
            return _said("only these pages may ask for this", 403)
        if self._token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and scope["method"] == "GET":
            return self._open(scope, given, [pair for pair in query if pair[0] != "token"])
        kept = cookie_parser(headers.get("cookie", "")).get(cookie_name(headers["host"]), "")
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if self._token.keeps(kept) or (scheme.casefold() == "bearer"
                                       and self._token.opens(bearer.strip())):
            return None
        return Response(_CLOSED, 401, media_type="text/html; charset=utf-8")

    def _open(self, scope: Scope, given: str, rest: list[tuple[str, str]]) -> Response:
        """Sets the cookie and goes on without the secret in the address.

        Not by a redirect: after a link of another site (a mail, a chat) the browser would follow
        one without the cookie.
        """
        assert self._token is not None
        if not self._token.opens(given):
            return Response(_CLOSED, 401, media_type="text/html; charset=utf-8")
        # One slash: "//elsewhere" would be another site.
        target = f"/{quote(scope['path'].lstrip('/'))}{f'?{urlencode(rest)}' if rest else ''}"
        answer = Response(_OPENED.format(target=escape(target)),
                          media_type="text/html; charset=utf-8")
        answer.set_cookie(cookie_name(Headers(scope=scope)["host"]), self._token.cookie,
                          httponly=True, samesite="strict", path="/")
        return answer

    def _known(self, hosts: list[str]) -> bool:
        """Whether `Host` is an address, or a name of this machine. Addresses cannot be made to
        point elsewhere, so they are safe whatever they are."""
        if len(hosts) != 1:
            return False
        name = host_name(hosts[0])
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return is_loopback(name) or name in self._names or name.endswith(".localhost")


def host_name(host: str) -> str:
    """The name in "localhost:8080" or "[::1]:8080", in small letters."""
    if host.startswith("["):
        return host[1:].partition("]")[0].casefold()
    return host.partition(":")[0].casefold()


def cookie_name(host: str) -> str:
    """Ports share cookies, so that its name has the port, as the browser knows it."""
    port = host.rpartition("]")[2].rpartition(":")[2] if ":" in host else ""
    return f"curbcut-{port}" if port.isdecimal() else "curbcut"


def _own(headers: Headers) -> bool:
    """Whether a page of ours sent it: browsers always tell the origin of what is not a GET."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if origin is None:
        return site in (None, "same-origin") and "cookie" not in headers
    return origin.partition("://")[2] == headers.get("host") and site in (None, "same-origin")


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _said(text: str, status: int) -> Response:
    return Response(f"{text}\n", status, media_type="text/plain")
