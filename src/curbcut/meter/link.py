"""What ranks of this computer pass to each other: a short gloo all-reduce between forked ranks.

Bandwidth is the bus bandwidth of an all-reduce, 2 (n-1)/n of its bytes over its seconds (as
nccl-tests counts it): the figure that the time model takes for a link. The quickest of several is
taken: other work on this computer only ever makes it slower.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.meter import forked
from curbcut.meter.clock import Clock, SystemClock

LARGE_BYTES, SMALL_BYTES = 8 * 2**20, 256
REPEATS, SMALL_REPEATS = 7, 60
HOPS = 0.2
"""Share of a collective's start that each further rank adds (`physics.collectives.HOPS`)."""


@dataclass(frozen=True)
class Link:
    """What one rank passes to the others of its computer."""

    ranks: int
    bytes_per_second: float
    """Bus bandwidth of a large all-reduce."""
    latency_seconds: float
    """Time to start one collective between two ranks."""


def probe(ranks: int, clock: Clock | None = None) -> Link:
    """Times all-reduces between so many forked ranks of this computer; about a second.

    Needs torch. Raises CurbcutError where the ranks cannot meet.
    """
    import torch.distributed  # noqa: F401  (imported once, before the fork)

    measured = clock or SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        large, small = forked.run(lambda rank: _rank(rank, ranks, store, measured), ranks)[0]
    twice = 2.0
    return Link(ranks, twice * (ranks - 1) / ranks * LARGE_BYTES / large,
                small / twice / (1 + HOPS * (ranks - 1)))


def _rank(rank: int, ranks: int, store: str, clock: Clock) -> list[float]:
    import os

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    large, small = torch.zeros(LARGE_BYTES // 4), torch.zeros(SMALL_BYTES // 4)
    times = [_timed(lambda: dist.all_reduce(large), REPEATS, clock),
             _timed(lambda: dist.all_reduce(small), SMALL_REPEATS, clock)]
    dist.barrier()
    dist.destroy_process_group()
    return times


def _timed(act: Callable[[], Any], repeats: int, clock: Clock) -> float:
    act()
    seconds = []
    for _ in range(repeats):
        start = clock.seconds()
        act()
        seconds.append(clock.seconds() - start)
    return min(seconds)
