"""Who may use the CPU's cores for matmuls: the engine's thread, and it alone.

Each thread of a process that computes in parallel gets workers of its own. Once those of all
threads together are more than the cores (GNU OpenMP counts them, at work or not), none of them
waits actively for its next part any more, but sleeps and has to be woken, hundreds of times a
step: a step of one token took 5.5 in place of 3.1 ms (30M parameters, 2 cores) only because the
weights had been loaded by another thread. So whoever loads weights does it without workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def without_workers() -> Iterator[None]:
    """The block computes on its own thread only; afterwards all is as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
