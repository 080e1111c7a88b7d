"""Published fits of benchmarks against loss, each with the loss law that it was chained to."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import UnknownName
from curbcut.facts import table

DEFAULT = "top1-error-17-redpajama"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Error = epsilon - k exp(-gamma L), L in nats a token of the law `law`."""

    name: str
    law: str
    epsilon: float
    k: float
    gamma: float
    error_low: float
    """Factor on the error at the low end of its interval."""
    error_high: float
    tasks: str
    note: str
    source: str
    date: str


def proxy(name: str = DEFAULT) -> Proxy:
    """The proxy `name`; raises UnknownName with the nearest names."""
    found = _by_name(table.overlay_folder())
    if name not in found:
        raise UnknownName("benchmark proxy", name, found)
    return found[name]


def proxies() -> list[Proxy]:
    """All proxies, in the order of the file."""
    return list(_by_name(table.overlay_folder()).values())


@functools.cache
def _by_name(overlay: Path) -> dict[str, Proxy]:
    return {
        row.text("name"): Proxy(
            name=row.text("name"), law=row.text("law"), epsilon=row.number("epsilon"),
            k=row.number("k"), gamma=row.number("gamma"), error_low=row.number("error_low"),
            error_high=row.number("error_high"), tasks=row.text("tasks"),
            note=row.maybe_text("note"), source=row.text("source"), date=row.text("date"))
        for row in table.rows("downstream", ("name",))
    }
