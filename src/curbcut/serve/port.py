"""A port to listen on, and what to say where it cannot be had."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from curbcut.errors import InputError


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens on (host, port), 0 for any free port, and its URL.

    Raises InputError for no port, a port in use and an address that is not of this machine.
    """
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
