"""Start and stop of the pages: the port, the link, signals."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable
from types import FrameType

import anyio.to_thread
import uvicorn

from curbcut.errors import InputError
from curbcut.serve.gateway.keys import is_loopback
from curbcut.serve.port import listening
from curbcut.serve.signals import quiet
from curbcut.web.app import build
from curbcut.web.door import Token
from curbcut.web.site import Site

END_SECONDS = 2
"""How long running answers may take to end after the first signal."""
FIRST_LOOK_SECONDS = 3.0
"""So long the link waits at most for the table of runs: a first page need not."""
WORKERS = 12
"""Requests that are computed at a time: more than may wait for the planner, so that runs are still
shown while it thinks."""


def show(site: Site, host: str = "127.0.0.1", port: int = 8090, *, asked: bool = True,
         on_ready: Callable[[str], None] | None = None) -> None:
    """Shows `site` until SIGTERM or SIGINT. `on_ready` gets the link.

    `asked` False opens the pages to every program of this machine. Raises InputError for a port in
    use, and for an address that others can reach while nobody is asked for the link.
    """
    if not asked and not is_loopback(host):
        raise InputError(f"{host} can be reached from other machines, and these pages would be "
                         "open to all of them", where="--no-token", mend="leave it out, or use "
                         "--host 127.0.0.1 and an ssh tunnel")
    token = Token() if asked else None
    with listening(host, port) as (listener, url):
        link = f"{url}/?token={token.secret}" if token else f"{url}/"
        site.start()
        site.wait(FIRST_LOOK_SECONDS)
        try:
            with quiet(made := server(site, token, host, lambda: on_ready and on_ready(link))):
                made.run(sockets=[listener])
        finally:
            site.close()


def server(site: Site, token: Token | None, host: str,
           on_ready: Callable[[], object]) -> uvicorn.Server:
    """The HTTP server of the pages, not yet running."""
    class Server(uvicorn.Server):
        """Says when it answers; ends streams at the first signal."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            gc.freeze()  # what was imported stays: no collection need look through it again
            anyio.to_thread.current_default_thread_limiter().total_tokens = WORKERS
            await super().startup(sockets)
            on_ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            site.end()
            super().handle_exit(sig, frame)

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return Server(uvicorn.Config(
        build(site, token, host), log_config=None, access_log=False, lifespan="off",
        server_header=False, timeout_graceful_shutdown=END_SECONDS))
