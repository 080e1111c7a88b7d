"""Gradients and masters of weights that several ranks hold whole: replicas, and ZeRO-1's owners.

Tensors travel in buckets, the last layers' first: a bucket leaves as soon as the step's last
backward pass is done with it, while that goes on with the layers before. Gradients are reduced in
fp32. All ranks send buckets in one order, whatever order autograd takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from curbcut.train.norm import local
from curbcut.train.sums import Sums, settled, shaped
from curbcut.train.world import World

EVERYBODY = -1
"""Owner of masters that each rank keeps."""
BUCKET_BYTES = 32 * 2**20
"""fp32 bytes that travel together: enough to fill a link, few enough to leave early."""


@dataclass
class Bucket:
    """Parameters that travel together."""

    names: tuple[str, ...]
    owner: int
    """Place along "shares" of the rank that keeps their masters, or EVERYBODY."""
    flat: torch.Tensor | None = None
    """Their gradients one after the other, fp32; kept from step to step where sums are."""
    waiting: set[str] = field(default_factory=set)
    """Names that the last backward pass is not done with."""


def buckets(sizes: Mapping[str, int], owners: Mapping[str, int]) -> list[Bucket]:
    """Buckets, from last to first, of parameters whose elements on a rank are in `sizes`."""
    open_: dict[int, list[str]] = {}
    found: list[Bucket] = []
    for name in reversed(tuple(sizes)):
        owner = owners.get(name, EVERYBODY)
        held = open_.setdefault(owner, [])
        if held and 4 * (sum(sizes[one] for one in held) + sizes[name]) > BUCKET_BYTES:
            found.append(Bucket(tuple(held), owner))
            held.clear()
        held.append(name)
    return found + [Bucket(tuple(held), owner) for owner, held in open_.items()]


class Whole:
    """The `precision.Exchange` of weights that are whole on each data-parallel rank."""

    def __init__(self, compute: Mapping[str, nn.Parameter], masters: Mapping[str, nn.Parameter],
                 sums: Sums, owners: Mapping[str, int], world: World) -> None:
        self.compute, self.masters, self.sums, self.world = compute, masters, sums, world
        self.split = any(compute[name] is not master for name, master in masters.items())
        self.place = world.coordinate("shares")
        self.buckets = buckets({name: local(p).numel() for name, p in compute.items()}, owners)
        self._leaving, self._sent = False, 0
        self._flying: list[tuple[Bucket, Any]] = []
        for bucket in self.buckets:
            for name in bucket.names:
                compute[name].register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._listener(bucket, name))

    def mine(self, bucket: Bucket) -> bool:
        """Whether this rank keeps the masters of a bucket."""
        return bucket.owner in (EVERYBODY, self.place)

    def expect(self, *, last: bool) -> None:
        """Before a micro-batch's passes: buckets leave during the last one only."""
        self._leaving = last
        for bucket in self.buckets:
            bucket.waiting = set(bucket.names)

    def reduce(self) -> None:
        """Masters' gradients become the mean over ranks; those of other owners are let go."""
        while self._sent < len(self.buckets):
            self._send()
        for bucket, work in self._flying:
            work.wait()
            self._average(bucket)
        self._leaving, self._sent = False, 0
        self._flying.clear()

    @torch.no_grad()
    def publish(self) -> None:
        """Compute weights become the rounded masters: each owner tells the others its own."""
        if self.split:
            torch._foreach_copy_([local(self.compute[name]) for name in self.masters],
                                 [local(master) for master in self.masters.values()])
        group = self.world.group("shares")
        if group is None:
            return
        for bucket in self.buckets:
            parts = [local(self.compute[name]) for name in bucket.names]
            told = _flat(parts) if self.mine(bucket) else _room(parts)
            dist.broadcast(told, dist.get_global_rank(group, bucket.owner), group=group)
            if not self.mine(bucket):
                torch._foreach_copy_([p.detach() for p in parts], _views(told, parts))

    def _listener(self, bucket: Bucket, name: str) -> Any:
        def arrived(_: torch.Tensor) -> None:
            bucket.waiting.discard(name)
            while self._leaving and self._sent < len(self.buckets) and (
                    not self.buckets[self._sent].waiting):
                self._send()

        return arrived

    @torch.no_grad()
    def _send(self) -> None:
        """Starts the next bucket on its way."""
        bucket = self.buckets[self._sent]
        self._sent += 1
        flat = self._gathered(bucket)
        replicas, shares = self.world.group("dp_replicate"), self.world.group("shares")
        if shares is None:
            work = dist.all_reduce(flat, group=replicas, async_op=True)
        else:
            work = dist.reduce(flat, dist.get_global_rank(shares, bucket.owner), group=shares,
                               async_op=True)
        self._flying.append((bucket, work))

    @torch.no_grad()
    def _average(self, bucket: Bucket) -> None:
        """What arrived, over owners of other replicas too, becomes the mean."""
        world, flat = self.world, bucket.flat
        assert flat is not None
        if self.mine(bucket):
            replicas = world.group("dp_replicate")
            if world.degree("shares") > 1 and replicas is not None:
                dist.all_reduce(flat, group=replicas)
            flat /= world.degree("shares") * world.degree("dp_replicate")
        elif not self.split:
            for name in bucket.names:
                self.compute[name].grad = None
        if not self.split:
            bucket.flat = None

    def _gathered(self, bucket: Bucket) -> torch.Tensor:
        """The bucket's gradients in `flat`, which sums (or gradients) are views of from now on."""
        if self.split:
            self._hold(bucket)
            self.sums.add(self.compute, bucket.names)
            for name in set(bucket.names) - self.sums.begun:
                local(self.sums.tensors[name]).zero_()
                self.sums.begun.add(name)
            assert bucket.flat is not None
            return bucket.flat
        parameters = [self.compute[name] for name in bucket.names]
        grads = [torch.zeros_like(local(p)) if p.grad is None else local(settled(p.grad, p))
                 for p in parameters]
        flat = bucket.flat = _flat(grads)
        for parameter, view in zip(parameters, _views(flat, grads), strict=True):
            parameter.grad = shaped(view, parameter)
        return flat

    def _hold(self, bucket: Bucket) -> None:
        """Lets the sums of a bucket lie in one piece of memory."""
        if bucket.flat is None:
            parts = [local(self.compute[name]) for name in bucket.names]
            bucket.flat = torch.empty(sum(p.numel() for p in parts), device=parts[0].device)
            for name, view in zip(bucket.names, _views(bucket.flat, parts), strict=True):
                self.sums.hold(name, self.compute[name], view)

    def hold(self) -> None:
        """Lays out the sums of all buckets before the first step adds to them."""
        for bucket in self.buckets if self.split else ():
            self._hold(bucket)


def _flat(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts one after the other in memory; the part itself where it is one."""
    if len(parts) == 1:
        return parts[0].detach().contiguous().view(-1)
    return torch.cat([part.detach().reshape(-1) for part in parts])


def _room(parts: list[torch.Tensor]) -> torch.Tensor:
    return (parts[0].detach().view(-1) if len(parts) == 1 else
            parts[0].new_empty(sum(part.numel() for part in parts)))


def _views(flat: torch.Tensor, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Pieces of `flat` in the shapes of `parts`."""
    pieces = torch.split(flat, [part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
