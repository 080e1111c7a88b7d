"""Start and stop: the port, the rule of keys, signals, draining."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from curbcut.errors import CurbcutError, InputError, MissingExtra
from curbcut.serve.books import book
from curbcut.serve.engine.shelf import Shelf, plain_name, total
from curbcut.serve.gateway.keys import Verify, check_exposure
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.opening import Dtype, Way
from curbcut.serve.sweep import Sweep

if TYPE_CHECKING:
    import uvicorn

    from curbcut.serve.api.flow import OnUse, Uses
    from curbcut.serve.engine.interface import OnStep, Stats
    from curbcut.serve.engine.models import Models
    from curbcut.serve.metrics import Metrics

DRAIN_SECONDS = 30
"""How long running answers may take to end after the first signal."""
_START_SECONDS = 30.0
TICKS_A_SECOND = 10
"""Of uvicorn's own loop."""


What = Path | Mapping[str, tuple[Path | None, Way]]
"""What to serve: one folder, or several models by name with how each is served; the first is
loaded at once, the others when they are asked for."""


@dataclass(frozen=True)
class Session:
    """A server that answers."""

    url: str
    """Base URL, as in "http://127.0.0.1:8000"."""
    model: str
    """Name under which the model is served; of several, the first."""
    stats: Callable[[], Stats]
    """What the engines have done so far."""
    models: Models
    """All models, to be asked in this process."""


def serve(what: What, host: str = "127.0.0.1", port: int = 8000, *, name: str = "",
          dtype: Dtype = "auto", max_batch: int = 8, way: Way | None = None,
          budget_bytes: int | None = None, verify: Verify | None = None,
          limits: Limits | None = None, on_use: OnUse | None = None,
          on_step: OnStep | None = None, metrics: Metrics | None = None,
          on_ready: Callable[[Session], None] | None = None) -> Stats:
    """Serves a folder's model (or several, in `budget_bytes` of memory) until SIGTERM or SIGINT,
    then lets running answers end.

    `name` and `way` (default: one with `dtype` and `max_batch`) are of one folder. `verify` None
    means that there are no keys. Returns what the engines have done. Raises InputError for an open
    address without keys, a port in use and a folder without a model.
    """
    limits = limits or Limits()
    with _listening(host, port, verify) as (listener, url), _uses(on_use) as uses, \
            _shelf(_ways(what, name, way or Way(dtype=dtype, max_batch=max_batch)), budget_bytes,
                   limits, on_step) as shelf:
        session = _session(url, shelf)
        with _server(shelf, verify, limits, uses, metrics,
                     on_ready=lambda: on_ready and on_ready(session)) as server, _signals(server):
            server.run(sockets=[listener])
        return session.stats()


@contextlib.contextmanager
def serving(what: What, *, name: str = "", host: str = "127.0.0.1", port: int = 0,
            dtype: Dtype = "auto", max_batch: int = 8, way: Way | None = None,
            budget_bytes: int | None = None, verify: Verify | None = None,
            limits: Limits | None = None, on_use: OnUse | None = None,
            on_step: OnStep | None = None,
            metrics: Metrics | None = None) -> Iterator[Session]:
    """Like `serve`, on a thread while the `with` block runs; port 0 is a free one.

    Raises what `serve` raises, and CurbcutError when the server does not come up.
    """
    limits = limits or Limits()
    with _listening(host, port, verify) as (listener, url), _uses(on_use) as uses, \
            _shelf(_ways(what, name, way or Way(dtype=dtype, max_batch=max_batch)), budget_bytes,
                   limits, on_step) as shelf:
        ready = threading.Event()
        with _server(shelf, verify, limits, uses, metrics, on_ready=ready.set) as server:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]},
                                      name="curbcut-server", daemon=True)
            thread.start()
            try:
                if not ready.wait(_START_SECONDS):
                    raise CurbcutError("the server did not start", where=url,
                                       mend="look at the log above")
                yield _session(url, shelf)
            finally:
                server.should_exit = True
                thread.join()


@contextlib.contextmanager
def running(folder: Path, *, name: str = "", dtype: Dtype = "auto",
            max_batch: int = 8) -> Iterator[str]:
    """Like `serving`, for this machine only, for whom the base URL is all there is to know."""
    with serving(folder, name=name, dtype=dtype, max_batch=max_batch) as session:
        yield session.url


@contextlib.contextmanager
def _listening(host: str, port: int, verify: Verify | None) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens on (host, port), before any model is loaded, and its URL."""
    check_exposure(host, verify)
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port", where="--port", mend="give one from 1 to 65535")
    with contextlib.closing(_listen(host, port)) as listener:
        bound = listener.getsockname()[1]
        yield listener, f"http://{f'[{host}]' if ':' in host else host}:{bound}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(f"{host!r} is no address of this machine ({error})", where="--host",
                         mend="give 127.0.0.1, or an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            free = _next_free(host, port)
            mend = f"--port {free}" if free else "choose another port"
            raise InputError(f"port {port} is in use", where=host, mend=mend) from None
        raise InputError(f"cannot listen on port {port} ({error.strerror})", where=host,
                         mend="choose an address of this machine and a port above 1023") from None
    return listener


def _next_free(host: str, port: int) -> int | None:
    """The first free port of the hundred after `port`."""
    for candidate in range(port + 1, min(port + 101, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, candidate))
                return candidate
    return None


def _ways(what: What, name: str, way: Way) -> Mapping[str, tuple[Path | None, Way]]:
    return {name or name_of(what): (what, way)} if isinstance(what, Path) else what


@contextlib.contextmanager
def _shelf(ways: Mapping[str, tuple[Path | None, Way]], budget_bytes: int | None, limits: Limits,
           on_step: OnStep | None) -> Iterator[Shelf]:
    """All models on a shelf, the first of them in memory; closed at the end."""
    if not ways:
        raise InputError("there is no model to serve", where="serve", mend="name at least one")
    try:
        books = {name: book(folder, replace(way, max_waiting=limits.queue), on_step)
                 for name, (folder, way) in ways.items()}
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None
    shelf = Shelf(books, budget_bytes)
    try:
        with shelf.hold(next(iter(books))):
            pass
        yield shelf
    finally:
        shelf.close()


def _session(url: str, shelf: Shelf) -> Session:
    return Session(url, shelf.names()[0].name, lambda: total([*shelf.stats().values()]), shelf)


@contextlib.contextmanager
def _uses(on_use: OnUse | None) -> Iterator[Uses]:
    """Who is told of each use; all are told when the block, with the engines in it, ends."""
    try:
        from curbcut.serve.api.flow import Uses
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None
    uses = Uses(on_use)
    try:
        yield uses
    finally:
        uses.close()


@contextlib.contextmanager
def _server(models: Models, verify: Verify | None, limits: Limits, uses: Uses,
            metrics: Metrics | None,
            on_ready: Callable[[], object]) -> Iterator[uvicorn.Server]:
    """The HTTP server of models, not yet running."""
    try:
        import uvicorn

        from curbcut.serve.api.app import build
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None

    sweep = Sweep()

    class Server(uvicorn.Server):
        """Says when it answers; closes connections that ask for nothing; from the first signal
        on, takes no more requests.
        """

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            if self.force_exit:  # requests that are cut off are no news to who pressed twice
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)

        async def on_tick(self, counter: int) -> bool:
            if counter % TICKS_A_SECOND == 0:
                sweep.close_idle(self.server_state.connections, time.monotonic())
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            models.drain()
            await super().shutdown(sockets)

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = build(models, verify=verify, limits=limits, uses=uses, metrics=metrics)
    yield Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off",
                                timeout_graceful_shutdown=DRAIN_SECONDS, server_header=False))


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """Quiet handlers under the server's own, which raises its signal again once it has drained;
    a signal that comes before the server listens still ends it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def name_of(folder: Path) -> str:
    """runs/NAME/model is NAME; any other folder goes by its own name, as far as names may go."""
    folder = folder.resolve()
    return plain_name(folder.parent.name if folder.name == "model" else folder.name)
