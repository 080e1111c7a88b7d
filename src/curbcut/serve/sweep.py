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
        self._since: dict[Any, float] = {}

    def close_idle(self, connections: Iterable[Any], now: float) -> int:
        """Closes those of uvicorn's `connections` that have had no request running for
        `HEADER_SECONDS` at `now` (seconds of any clock); returns how many.
        """
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete
                or one.transport.is_closing()]
        self._since = {one: self._since.get(one, now) for one in idle}
        late = [one for one, since in self._since.items() if now - since >= HEADER_SECONDS]
        for one in late:
            one.transport.abort()
        return len(late)
