"""Latency objectives as people write them: "ttft=0.2,tpot=50ms"."""

from __future__ import annotations

from curbcut import units
from curbcut.errors import InputError, UnknownName

NAMES = ("ttft", "tpot")


def read(text: str) -> dict[str, float]:
    """Seconds by name; a bare number is seconds. Raises InputError, UnknownName."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip()
        if name not in NAMES:
            raise UnknownName("objective", name, NAMES, where="--objective")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = units.parse(value.strip(), "seconds", "--objective")
        if not 0 < found[name] < 1e6:
            raise InputError(f"{part!r} is no time", where="--objective",
                             mend="like ttft=0.2,tpot=50ms")
    return found
