"""Measured bandwidth of collectives on named clusters, by kind and number of nodes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table

KINDS = ("all_reduce", "all_gather", "reduce_scatter")


@dataclass(frozen=True)
class CollectiveBandwidth:
    """Bus bandwidth (as nccl-tests counts it) of one collective over whole nodes."""

    cluster: str
    kind: str
    nodes: int
    bytes_per_second: float
    message_bytes: float
    source: str
    date: str


def bandwidths() -> tuple[CollectiveBandwidth, ...]:
    """All measured points, in the order of the file."""
    return _all(table.overlay_folder())


@functools.cache
def _all(overlay: Path) -> tuple[CollectiveBandwidth, ...]:
    key = ("cluster", "kind", "nodes")
    return tuple(CollectiveBandwidth(
        cluster=row.text("cluster"), kind=row.choice("kind", KINDS), nodes=row.whole("nodes"),
        bytes_per_second=row.number("bytes_per_second"),
        message_bytes=row.number("message_bytes"), source=row.text("source"),
        date=row.text("date")) for row in table.rows("collectives", key))
