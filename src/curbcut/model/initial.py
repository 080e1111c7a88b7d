"""The weights that training begins with: each a function of its name, its shape and the seed alone.

So a rank can make its own part of a model without making the rest, and a run starts from the same
weights on any layout of ranks, any device and any number of threads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from curbcut.model.names import expert_names
from curbcut.spec.nouns import ModelShape

STD = 0.02
_TO_RESIDUAL = ("o_proj.weight", "down_proj.weight")


def initial(name: str, size: Sequence[int], shape: ModelShape, seed: int) -> Tensor:
    """The first value of parameter `name` of `size`, fp32 on the CPU.

    Normal weights of std 0.02; those that write to the residual stream are divided by
    sqrt(2 * layers) (GPT-2, Radford et al. 2019). Norms are 1, biases 0.
    """
    experts = expert_names(name, size[0])
    if experts:  # each has its own, as if it were a tensor of its own
        return torch.stack([initial(one, size[1:], shape, seed) for one in experts])
    if len(size) == 1:
        return torch.zeros(tuple(size)) if name.endswith(".bias") else torch.ones(tuple(size))
    std = STD / math.sqrt(2 * shape.layers) if name.endswith(_TO_RESIDUAL) else STD
    return torch.randn(tuple(size), generator=generator(name, seed)) * std


def generator(name: str, seed: int) -> torch.Generator:
    """Random numbers of their own for `name` under `seed`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
