"""Connections that ask for nothing: they are closed, so that many of them keep nobody else out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

HEADER_SECONDS = 10.0
"""How long a connection may take until its request's headers are whole. (Bodies and answers have
limits of their own, and uvicorn closes a connection that is silent after an answer.)"""


class Sweep:
    """Since when each connection has been without a request that runs, or waits to be closed for a
    client that does not read what is left.
    """

    def __init__(self) -> None:
        self._since: dict[Any, tuple[Any, float]] = {}
        """By connection: its last request, and when that was first seen to be over."""

    def close_idle(self, connections: Iterable[Any], now: float) -> int:
        """Closes those of uvicorn's `connections` that have had no request running for
        `HEADER_SECONDS` at `now` (seconds of any clock); returns how many.
        """
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete
                or one.transport.is_closing()]
        before, self._since = self._since, {}
        for one in idle:
            last, since = before.get(one, (None, now))
            # A short request may have come and gone between two looks.
            self._since[one] = (one.cycle, since if last is one.cycle else now)
        late = [one for one, (_, since) in self._since.items() if now - since >= HEADER_SECONDS]
        for one in late:
            one.transport.abort()
        return len(late)
