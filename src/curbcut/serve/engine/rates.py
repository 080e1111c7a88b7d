"""How fast this machine multiplies rows by weights of each kind: timed, a second or so each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from curbcut.errors import InputError
from curbcut.serve.engine.matrices import maker

OUTPUTS, INPUTS = 2432, 896
"""One matrix: that of a feed-forward of a model of a hundred million parameters."""
TOGETHER = 40
"""Matrices that take turns: in a byte each more than a CPU's caches hold, as those of a model."""
ROWS = (1, 8, 16, 64)


def rates(kind: str, rows: Sequence[int] = ROWS, *, dtype: torch.dtype = torch.bfloat16,
          device: str = "cpu", repeats: int = 5, matrices: int = TOGETHER,
          seconds: Callable[[], float] = time.perf_counter) -> dict[int, float]:
    """Parameters a second by number of rows: weights of a kind, of how many each row meets so many
    a second. Empty where the machine has no kernels for the kind; raises UnknownName for none.

    The median of `repeats` passes over `matrices` different ones, after one that is not counted.
    """
    make, chance = maker(kind), torch.Generator().manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS, generator=chance).to(device, dtype)
    try:
        made = [make(weight.clone(), None) for _ in range(matrices)]
    except InputError:
        return {}
    found = {}
    for count in rows:
        x = torch.randn(count, INPUTS, generator=chance).to(device, dtype)
        taken = []
        for _ in range(repeats + 1):
            _wait(device)
            start = seconds()
            for one in made:
                one(x)
            _wait(device)
            taken.append(seconds() - start)
        found[count] = OUTPUTS * INPUTS * matrices / statistics.median(taken[1:])
    return found


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
