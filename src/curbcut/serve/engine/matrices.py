"""How a weight matrix lies in memory while serving, and how rows are multiplied by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Matrix(Protocol):
    """A linear map that serving uses: [n, inputs] -> [n, outputs]."""

    bytes_: int
    """Size in memory."""

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, inputs] -> [n, outputs] in x's dtype."""
        ...


class Plain:
    """The weight as it was trained, [outputs, inputs], with or without a bias [outputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias
        self.bytes_ = weight.nbytes + (bias.nbytes if bias is not None else 0)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return F.linear(x, self._weight, self._bias)


Make = Callable[[Tensor, "Tensor | None"], Matrix]
"""A weight [outputs, inputs] and a bias become a matrix of some kind."""

KINDS: Mapping[str, Make] = {"same": Plain}
"""By the names of `ServeJob.weight_precision`."""
