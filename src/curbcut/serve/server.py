"""Start and stop: the port, the rule of keys, signals, draining."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from curbcut.errors import CurbcutError, InputError, MissingExtra
from curbcut.serve.gateway.keys import Verify, check_exposure
from curbcut.serve.gateway.limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from curbcut.serve.api.flow import OnUse
    from curbcut.serve.engine.interface import Stats
    from curbcut.serve.engine.local import LocalEngine

Dtype = Literal["auto", "fp32", "bf16"]
DRAIN_SECONDS = 30
"""How long running answers may take to end after the first signal."""
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Session:
    """A server that answers."""

    url: str
    """Base URL, as in "http://127.0.0.1:8000"."""
    model: str
    """Name under which the model is served."""
    stats: Callable[[], Stats]
    """What the engine has done so far."""


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8000, *, name: str = "",
          dtype: Dtype = "auto", max_batch: int = 8, verify: Verify | None = None,
          limits: Limits | None = None, on_use: OnUse | None = None,
          on_ready: Callable[[Session], None] | None = None) -> Stats:
    """Serves the model in `folder` until SIGTERM or SIGINT, then lets running answers end.

    `verify` None means that there are no keys. Returns what the engine has done. Raises
    InputError for an open address without keys, a port in use and a folder without a model.
    """
    with _listening(host, port, verify) as (listener, url), \
            _engine(folder, dtype, max_batch, limits or Limits()) as engine:
        session = Session(url, name or name_of(folder), engine.stats)
        with _server(engine, session.model, verify, limits or Limits(), on_use,
                     on_ready=lambda: on_ready and on_ready(session)) as server, _signals(server):
            server.run(sockets=[listener])
        return engine.stats()


@contextlib.contextmanager
def serving(folder: Path, *, name: str = "", host: str = "127.0.0.1", port: int = 0,
            dtype: Dtype = "auto", max_batch: int = 8, verify: Verify | None = None,
            limits: Limits | None = None, on_use: OnUse | None = None) -> Iterator[Session]:
    """Serves the model in `folder` on a thread while the `with` block runs; port 0 is a free one.

    Raises what `serve` raises, and CurbcutError when the server does not come up.
    """
    with _listening(host, port, verify) as (listener, url), \
            _engine(folder, dtype, max_batch, limits or Limits()) as engine:
        session = Session(url, name or name_of(folder), engine.stats)
        ready = threading.Event()
        with _server(engine, session.model, verify, limits or Limits(), on_use,
                     on_ready=ready.set) as server:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]},
                                      name="curbcut-server", daemon=True)
            thread.start()
            try:
                if not ready.wait(_START_SECONDS):
                    raise CurbcutError("the server did not start", where=url,
                                       mend="look at the log above")
                yield session
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


@contextlib.contextmanager
def _engine(folder: Path, dtype: Dtype, max_batch: int, limits: Limits) -> Iterator[LocalEngine]:
    """The engine on the model of a folder, closed at the end."""
    if max_batch < 1:
        raise InputError(f"{max_batch} requests at once are none", where="--max-batch",
                         mend="give at least 1")
    try:
        import torch

        from curbcut.model import weights
        from curbcut.serve.engine import text
        from curbcut.serve.engine.local import LocalEngine
        from curbcut.serve.engine.runner import TorchRunner
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model, shape = weights.load(folder, dtype=wanted, device=device)
    vocabulary = text.load(folder)
    if vocabulary.size > shape.vocab:
        raise InputError(f"the tokenizer has {vocabulary.size} tokens, the model {shape.vocab}",
                         where=str(folder), mend="use the tokenizer that the model was trained on")
    runner = TorchRunner(model.requires_grad_(False), max_batch * shape.context_tokens)
    engine = LocalEngine(runner, vocabulary, max_batch=max_batch, max_waiting=limits.queue)
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def _server(engine: LocalEngine, model: str, verify: Verify | None, limits: Limits,
            on_use: OnUse | None, on_ready: Callable[[], object]) -> Iterator[uvicorn.Server]:
    """The HTTP server of an engine, not yet running; all uses are told when the block ends."""
    try:
        import uvicorn

        from curbcut.serve.api.app import build
        from curbcut.serve.api.flow import Uses
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None

    class Server(uvicorn.Server):
        """Says when it answers."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    uses = Uses(on_use)
    app = build(engine, model, verify=verify, limits=limits, uses=uses)
    try:
        yield Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off",
                                    timeout_graceful_shutdown=DRAIN_SECONDS,
                                    server_header=False))
    finally:
        uses.close()


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
    """runs/NAME/model is NAME; any other folder goes by its own name."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name
