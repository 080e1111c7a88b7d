"""Shared states through FSDP2: ZeRO-2, ZeRO-3, and either with replicas (hybrid).

Parameters become fp32 shards (DTensors) over "shares": they are the masters. They are gathered in
the compute dtype; gradients are reduced in fp32 after each micro-batch, so that none is held whole.

    shard           gathered                                     let go
    "parameters"    each block at each pass (ZeRO-3)             after each pass
    "gradients"     each block once a step (ZeRO-2)              after the step's last backward pass

Embedding, last norm and head are gathered once a micro-batch either way (arXiv:1910.02054; Zhao et
al. 2023, arXiv:2304.11277).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train import precision
from curbcut.train.parallel import experts
from curbcut.train.parallel.part import parts
from curbcut.train.world import World


def applies(world: World, recipe: Recipe) -> bool:
    """Whether ranks share gradients at least."""
    return recipe.shard != "optimiser" and world.degree("shares") > 1


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its parameters cut over the ranks that share states."""
    if not applies(world, recipe):
        return model
    options: dict[str, Any] = {
        "mp_policy": MixedPrecisionPolicy(param_dtype=precision.dtype_of(recipe.precision),
                                          reduce_dtype=torch.float32, cast_forward_inputs=False),
        "offload_policy": offloading(world, recipe),
    }
    # A pipeline's stages stay gathered over the step: torch's split backward pass would lose the
    # gradients of what was let go of in between, without an error.
    again = recipe.shard == "parameters" and recipe.pp == 1
    experts.shard(model, world, reshard_after_forward=again, **options)
    options["mesh"] = mesh(world)
    for block in model.model.layers:
        assert isinstance(block, nn.Module)
        fully_shard(block, reshard_after_forward=again, **options)
    for part in parts(model):
        fully_shard(part, reshard_after_forward=False, **options)
    return model


@dataclass(frozen=True)
class Shares:
    """The `precision.Exchange` of shared states: FSDP does it, and is told what can wait."""

    model: FSDPModule
    whole: bool
    """Whether parameters stay gathered from one micro-batch to the next (ZeRO-2)."""

    def expect(self, *, last: bool) -> None:
        """Before a micro-batch's passes: replicas meet once a step, in its last one."""
        self.model.set_requires_all_reduce(last)
        if self.whole:
            self.model.set_reshard_after_backward(last)

    def reduce(self) -> None:
        """Nothing: the last backward pass did it."""

    def publish(self) -> None:
        """Nothing: the next gather rounds the shards."""


def weights(model: Decoder, recipe: Recipe) -> precision.Weights:
    """The shards, which are compute weights and masters in one."""
    plain = precision.split_weights(model, recipe.precision)
    if not isinstance(model, FSDPModule):  # several stages of a pipeline, whose schedule tells each
        return plain
    return replace(plain, exchange=Shares(model, recipe.shard == "gradients"))


def mesh(world: World) -> DeviceMesh:
    """The ranks that share parameters: ("dp_replicate", "shares"), or the shares alone."""
    if world.degree("dp_replicate") > 1:
        return world.axis("dp_replicate", "shares")
    return world.axis("shares")


def offloading(world: World, recipe: Recipe) -> OffloadPolicy:
    """Where shards rest: in pinned host memory when parameters are offloaded from a GPU."""
    if recipe.offload == "parameters":
        return CPUOffloadPolicy(pin_memory=world.device.type == "cuda")
    return OffloadPolicy()
