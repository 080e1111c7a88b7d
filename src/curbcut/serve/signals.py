"""Signals that end a server: it drains first, and nothing is printed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn


@contextlib.contextmanager
def quiet(server: uvicorn.Server) -> Iterator[None]:
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
