"""How a weight matrix lies in memory while serving, and how rows are multiplied by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from curbcut.errors import UnknownName
from curbcut.serve.engine.packed import Packed, packable
from curbcut.serve.engine.quantised import Int4, Int8, Int8Dynamic


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


def same(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """The weight in its own precision, packed where this machine has kernels for that."""
    return Packed(weight, bias) if packable(weight) else Plain(weight, bias)


Make = Callable[[Tensor, "Tensor | None"], Matrix]
"""A weight [outputs, inputs] and a bias become a matrix of some kind."""

KINDS: Mapping[str, Make] = {"same": same, "int8": Int8, "int8-dynamic": Int8Dynamic,
                             "int4": Int4}
"""By the names of `ServeJob.weight_precision`."""


def maker(kind: str) -> Make:
    """What makes matrices of a kind; raises UnknownName for one that no kernel here is for."""
    if kind not in KINDS:
        raise UnknownName("kind of weights", kind, KINDS, where="weight_precision")
    return KINDS[kind]


def maker_of_head(kind: str) -> Make:
    """The same of the head, whose errors go straight into the odds: never below a byte."""
    return KINDS["int8"] if kind == "int4" else maker(kind)
