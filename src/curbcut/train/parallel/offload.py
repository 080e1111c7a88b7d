"""Activations that rest in host memory between a block's forward and its backward pass.

Copies to the host go beside the computation, through pinned memory; the way back waits for its
copy. Weights that autograd keeps for a matmul's backward are no activations and stay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.world import World

LEAST_BYTES = 1024
"""Smaller tensors stay on the device: starting a copy costs more."""

Restore = Callable[[], Tensor]


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its blocks' activations resting in host memory."""
    del world
    if recipe.offload == "activations":
        for block in model.model.layers:
            assert isinstance(block, nn.Module)
            block.forward = functools.partial(_resting, block, block.forward)
    return model


def _resting(block: nn.Module, forward: Callable[..., Tensor], *inputs: object) -> Tensor:
    """A block's forward pass whose saved tensors go to the host."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    # Parameters are asked for anew: FSDP has just put gathered ones in their place.
    rest = _Rest({_memory(parameter) for parameter in block.parameters()})
    with saved_tensors_hooks(rest.leave, _back):
        return forward(*inputs)


def _memory(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.untyped_storage().data_ptr()


def _back(restore: Restore) -> Tensor:
    return restore()


class _Rest:
    """Takes what one forward pass of a block saves; what is saved twice is copied once."""

    def __init__(self, staying: set[int]) -> None:
        self.staying = staying
        self.seen: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        """Host copies by what they are of; the originals stay until the pass ends, so that no
        other tensor comes to lie where one was."""

    def leave(self, tensor: Tensor) -> Restore:
        """Sends `tensor` to the host; the function that brings it back."""
        if isinstance(tensor, DTensor):
            mesh, placements = tensor.device_mesh, tensor.placements
            size, stride = tensor.shape, tensor.stride()
            part = self.leave(tensor.to_local())
            return lambda: DTensor.from_local(part(), mesh, placements, run_check=False,
                                              shape=size, stride=stride)
        small = tensor.numel() * tensor.element_size() < LEAST_BYTES
        if small or _memory(tensor) in self.staying:
            return lambda: tensor
        device, host = tensor.device, self._copy(tensor)
        return lambda: host.to(device, non_blocking=True)

    def _copy(self, tensor: Tensor) -> Tensor:
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype,
               tensor._version)
        if key not in self.seen:
            self.seen[key] = (tensor, to_host(tensor))
        return self.seen[key][1]


def to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory, of the same strides; from a GPU beside what it computes."""
    if tensor.device.type != "cuda":
        return tensor.clone(memory_format=torch.preserve_format)
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    beside = _stream(tensor.device)
    beside.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(beside):
        host.copy_(tensor, non_blocking=True)
    tensor.record_stream(beside)
    return host


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
