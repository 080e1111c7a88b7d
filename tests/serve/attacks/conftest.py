"""A server with keys and a ledger that strangers, users and clients without manners meet."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from functools import partial

import httpx
import pytest
import sqlalchemy as sa

from curbcut.ledger import access, holds, open_ledger, schema
from curbcut.ledger.prices import Price, set_price
from curbcut.serve import port as port_
from curbcut.serve.gateway.till import Till
from curbcut.serve.server import serving
from slow_steps import slow_steps

ASK = {"model": "tiny", "prompt": "abcdef", "max_tokens": 8, "temperature": 0}
PRICE = Price(model="tiny", prompt_nanousd=10**12, cached_nanousd=10**12,
              output_nanousd=10**12)


class Target:
    """The server, its ledger, and the secret of one user of it."""

    def __init__(self, session, ledger, secret):
        self.session, self.url, self.ledger, self.secret = session, session.url, ledger, secret
        self.http = httpx.Client(base_url=session.url, timeout=60)
        host, port = session.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def connect(self):
        return socket.create_connection(self.address, timeout=60)

    def say(self, raw, patience=60):
        """Sends bytes; all that comes back until the other side closes, or is silent so long."""
        came = b""
        with self.connect() as wire, contextlib.suppress(TimeoutError, ConnectionError):
            wire.settimeout(patience)
            wire.sendall(raw)
            while part := wire.recv(65536):
                came += part
        return came

    def post(self, path="/v1/completions", secret=None, **given):
        body = {name: value for name, value in (ASK | given).items() if value is not None}
        return self.http.post(path, json=body, headers={
            "Authorization": f"Bearer {secret or self.secret}"})

    def request(self, body, path="/v1/completions"):
        """The same as raw bytes."""
        data = json.dumps(body).encode()
        return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {self.secret}\r\nContent-Length: {len(data)}\r\n\r\n"
                ).encode() + data

    def rest(self):
        """Lets go of the connections that were kept for the next request."""
        self.http.close()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def at_rest(self, seconds=60):
        """Waits until nothing runs, no page is used and nothing is held."""
        end = time.monotonic() + seconds
        while True:
            stats = self.session.stats()
            left = (stats.running, stats.waiting, stats.used_pages, holds.live(self.ledger))
            if left == (0, 0, 0, 0):
                return
            assert time.monotonic() < end, left
            time.sleep(0.01)

    def uses(self):
        with self.ledger.reading() as connection:
            return connection.execute(sa.select(schema.uses)).all()


def _little_buffers(host, port, listen=port_._listen):
    """A listener whose connections hold little of what is not read."""
    listener = listen(host, port)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return listener


@pytest.fixture(scope="module")
def target(folder, tmp_path_factory):
    with open_ledger(tmp_path_factory.mktemp("attacked") / "ledger.sqlite") as ledger, \
            pytest.MonkeyPatch.context() as patched:
        patched.setattr(port_, "_listen", _little_buffers)
        set_price(ledger, PRICE, actor="test")
        secret = access.issue_key(ledger, "ann", actor="test")
        till = Till(ledger)
        try:
            with serving(folder, max_batch=4, verify=partial(access.verify, ledger),
                         till=till) as session:
                yield Target(session, ledger, secret)
        finally:
            till.close()
        assert holds.live(ledger) == 0


@pytest.fixture
def slow(monkeypatch):
    """Steps of at least 5 ms."""
    slow_steps(monkeypatch, 0.005)
