"""Names of tensors on disk: Hugging Face's, where each expert's matrix is a tensor of its own.

Inside, the experts of a layer are one stack, `mlp.experts.gate_proj` [experts, ...]. On disk it is
`mlp.experts.0.gate_proj.weight`, ... (Qwen3-MoE), or `block_sparse_moe.experts.0.w1.weight`, ...
(Mixtral).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import Tensor

from curbcut.model.config import kind_of
from curbcut.spec.nouns import ModelShape

_STACK = re.compile(r"(?P<layer>.*\.)mlp\.experts\.(?P<matrix>(gate|up|down)_proj)")
_MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def expert_names(name: str, count: int) -> list[str]:
    """The name of each of `count` experts' own matrix in a stack, as Qwen3-MoE has it; none for
    any other tensor.
    """
    stack = _STACK.fullmatch(name)
    if stack is None:
        return []
    layer, matrix = stack["layer"], stack["matrix"]
    return [f"{layer}mlp.experts.{one}.{matrix}.weight" for one in range(count)]


def on_disk(name: str, shape: ModelShape) -> list[str]:
    """The tensors that a parameter is on disk: one, or one an expert."""
    found = expert_names(name, shape.experts) or [name]
    if kind_of(shape) != "mixtral":
        return found
    return [_as_mixtral(one) for one in found]


def _as_mixtral(name: str) -> str:
    layer, is_sparse, rest = name.partition(".mlp.")
    if not is_sparse:
        return name
    for ours, theirs in _MIXTRAL.items():
        rest = rest.replace(f".{ours}.", f".{theirs}.")
    return f"{layer}.block_sparse_moe.{rest}"


def stored(weights: Iterable[tuple[str, Tensor]], shape: ModelShape
           ) -> Iterator[tuple[str, Tensor]]:
    """Named parameters of a decoder as they are named on disk, stacks taken apart."""
    for name, value in weights:
        parts = value.unbind() if expert_names(name, shape.experts) else (value,)
        yield from zip(on_disk(name, shape), parts, strict=True)


def places(names: Iterable[str], shape: ModelShape) -> dict[str, tuple[str, int | None]]:
    """For each name on disk the parameter that it belongs to, and its place in that stack."""
    found: dict[str, tuple[str, int | None]] = {}
    for name in names:
        stacked = bool(expert_names(name, shape.experts))
        for place, one in enumerate(on_disk(name, shape)):
            found[one] = (name, place if stacked else None)
    return found
