"""Start and stop: the port, the rule of keys, signals, draining."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from curbcut.serve.port import listening
from curbcut.serve.signals import quiet
from curbcut.serve.sweep import Sweep

if TYPE_CHECKING:
    import uvicorn
    from starlette.routing import BaseRoute

    from curbcut.serve.api.uses import OnUse, Uses
    from curbcut.serve.engine.interface import OnStep, Stats
    from curbcut.serve.engine.models import Models
    from curbcut.serve.gateway.gate import Gate
    from curbcut.serve.gateway.prompts import PromptLog
    from curbcut.serve.gateway.till import Till
    from curbcut.serve.metering import StepMeter
    from curbcut.serve.metrics import Metrics

DRAIN_SECONDS = 30
"""How long running answers may take to end after the first signal."""
SWITCH_SECONDS = 0.0005
"""How long a thread of Python's may keep the others waiting."""
_START_SECONDS = 30.0
_AHEAD = 4
"""One request for so many rows waits inside the engine."""
TICKS_A_SECOND = 10
"""Of uvicorn's own loop."""


Ways = Mapping[str, tuple[Path | None, Way]]
What = Path | Ways
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
          till: Till | None = None, meter: StepMeter | None = None,
          prompts: PromptLog | None = None, more: Sequence[BaseRoute] = (),
          limits: Limits | None = None, on_use: OnUse | None = None,
          on_step: OnStep | None = None, metrics: Metrics | None = None,
          on_ready: Callable[[Session], None] | None = None) -> Stats:
    """Serves a folder's model (or several, in `budget_bytes` of memory) until SIGTERM or SIGINT,
    then lets running answers end.

    `name` and `way` (default: one with `dtype` and `max_batch`) are of one folder. `verify` None
    means that there are no keys; with them, what requests may take is held in `till`. `meter` is
    told of every step (else `on_step` is). `more` routes stand behind the same door. Returns what
    the engines have done. Raises InputError for an open address without keys, a port in use and a
    folder without a model.
    """
    limits = limits or Limits()
    ways = _ways(what, name, way or Way(dtype=dtype, max_batch=max_batch))
    with _listening(host, port, verify) as (listener, url), _uses(on_use) as uses, \
            _shelf(ways, budget_bytes, limits, _listeners(meter, on_step)) as shelf:
        session = _session(url, shelf)
        gate = _gate(ways, limits, verify, till, meter)
        with _server(shelf, verify, limits, uses, metrics, gate, prompts, more,
                     on_ready=lambda: on_ready and on_ready(session)) as server, quiet(server):
            server.run(sockets=[listener])
        return session.stats()


@contextlib.contextmanager
def serving(what: What, *, name: str = "", host: str = "127.0.0.1", port: int = 0,
            dtype: Dtype = "auto", max_batch: int = 8, way: Way | None = None,
            budget_bytes: int | None = None, verify: Verify | None = None,
            till: Till | None = None, meter: StepMeter | None = None,
            prompts: PromptLog | None = None, more: Sequence[BaseRoute] = (),
            limits: Limits | None = None, on_use: OnUse | None = None,
            on_step: OnStep | None = None,
            metrics: Metrics | None = None) -> Iterator[Session]:
    """Like `serve`, on a thread while the `with` block runs; port 0 is a free one.

    Raises what `serve` raises, and CurbcutError when the server does not come up.
    """
    limits = limits or Limits()
    ways = _ways(what, name, way or Way(dtype=dtype, max_batch=max_batch))
    with _listening(host, port, verify) as (listener, url), _uses(on_use) as uses, \
            _shelf(ways, budget_bytes, limits, _listeners(meter, on_step)) as shelf:
        ready = threading.Event()
        gate = _gate(ways, limits, verify, till, meter)
        with _server(shelf, verify, limits, uses, metrics, gate, prompts, more,
                     on_ready=ready.set) as server:
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
    with listening(host, port) as listener:
        yield listener


def _ways(what: What, name: str, way: Way) -> Ways:
    return {name or name_of(what): (what, way)} if isinstance(what, Path) else what


def _listeners(meter: StepMeter | None,
               on_step: OnStep | None) -> Callable[[str], OnStep | None]:
    """Who is told of a model's steps."""
    return (lambda _model: on_step) if meter is None else meter.listener


def _gate(ways: Ways, limits: Limits, verify: Verify | None, till: Till | None,
          meter: StepMeter | None) -> Gate | None:
    """What requests of keys pass; None where there are no keys."""
    if verify is None:
        return None
    from curbcut.serve.gateway.admission import Admission
    from curbcut.serve.gateway.gate import Gate
    from curbcut.serve.gateway.quotas import Quotas

    slots = {name: _slots(way, limits) for name, (_, way) in ways.items()}
    return Gate(Quotas(), Admission(slots.__getitem__, limits.queue),
                till, meter.take if meter else None)


def _slots(way: Way, limits: Limits) -> int:
    """Answers that a model's engine is asked for at a time: a few more than it works on, so that
    it never waits for the next one. A server elsewhere has a queue of its own.
    """
    if "://" in way.engine:
        return (way.max_batch + limits.queue) * len(set(way.engine.split()))
    return way.max_batch + max(1, way.max_batch // _AHEAD)


@contextlib.contextmanager
def _shelf(ways: Ways, budget_bytes: int | None, limits: Limits,
           on_step: Callable[[str], OnStep | None]) -> Iterator[Shelf]:
    """All models on a shelf, the first of them in memory; closed at the end."""
    if not ways:
        raise InputError("there is no model to serve", where="serve", mend="name at least one")
    try:
        books = {name: book(folder, replace(way, max_waiting=limits.queue), on_step(name))
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
        from curbcut.serve.api.uses import Uses
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None
    uses = Uses(on_use)
    try:
        yield uses
    finally:
        uses.close()


@contextlib.contextmanager
def _server(models: Models, verify: Verify | None, limits: Limits, uses: Uses,
            metrics: Metrics | None, gate: Gate | None, prompts: PromptLog | None,
            more: Sequence[BaseRoute], on_ready: Callable[[], object]) -> Iterator[uvicorn.Server]:
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
    app = build(models, verify=verify, limits=limits, uses=uses, metrics=metrics, gate=gate,
                prompts=prompts, more=more)
    with _turns_often():
        yield Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off",
                                    timeout_graceful_shutdown=DRAIN_SECONDS,
                                    server_header=False))


@contextlib.contextmanager
def _turns_often() -> Iterator[None]:
    """Python's threads (engine, event loop, till) take turns more often while the block runs: with
    each write and each commit a thread has to wait for its next turn.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def name_of(folder: Path) -> str:
    """runs/NAME/model is NAME; any other folder goes by its own name, as far as names may go."""
    folder = folder.resolve()
    return plain_name(folder.parent.name if folder.name == "model" else folder.name)
