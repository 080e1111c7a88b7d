"""Matmuls in 8-bit floating point, through torchao.

Each linear map of the blocks rounds its input and weight to e4m3 and its output's gradient to e5m2,
each with one scale a tensor, made anew each time (Micikevicius et al. 2022, arXiv:2209.05433).
Embedding, head, norms, routers and expert stacks stay in bf16, masters and loss in fp32.
"""

from __future__ import annotations

import torch
from torch import nn

from curbcut.errors import InputError
from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.world import World

UNIT = 16
"""Both dimensions of an fp8 matmul's weight must be multiples of this (cuBLASLt)."""
LEAST_CAPABILITY = (8, 9)
"""Ada and Hopper, the first NVIDIA chips with fp8 matmuls."""


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its blocks' linear maps in fp8 (in place; parameters keep their names).

    On a CPU torch's own fp8 matmul is used: right, and slow. Raises InputError where torchao is
    missing or the chip has no fp8.
    """
    if recipe.precision != "fp8":
        return model
    check_chip(world.device)
    try:
        from torchao.float8 import convert_to_float8_training
    except ImportError as error:
        raise InputError(f"fp8 needs torchao ({error})", where="recipe.precision",
                         mend="pip install 'curbcut[fp8]', or set precision = \"bf16\"") from None
    convert_to_float8_training(model, module_filter_fn=_is_narrow)
    return model


def check_chip(device: torch.device) -> None:
    """Raises InputError for a GPU without fp8 matmuls."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise InputError(f"{name} has no fp8 matmuls", where="recipe.precision",
                         mend='set precision = "bf16"')


def _is_narrow(module: nn.Module, name: str) -> bool:
    """Whether a linear map computes in fp8: those of the blocks, of whole units."""
    whole = isinstance(module, nn.Linear) and not (
        module.in_features % UNIT or module.out_features % UNIT)
    return whole and ".layers." in f".{name}"
