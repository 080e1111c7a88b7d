"""What a step really does on each rank: bytes it holds, collectives it takes part in."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

import ranks
from curbcut.meter.clock import SystemClock
from curbcut.model import loss
from curbcut.spec import Account, Run
from curbcut.train import norm, world
from curbcut.train.loop import take_step
from curbcut.train.session import open_session

KINDS = {"allgather": "all_gather", "reduce_scatter": "reduce_scatter", "allreduce": "all_reduce",
         "reduce_": "reduce", "broadcast": "broadcast"}


@dataclass(frozen=True)
class Step:
    """One warm step on one rank."""

    masters: int
    """Bytes of masters and moments that are tensors of their own, or FSDP's shards."""
    moments: int
    compute: int
    """Bytes of compute weights between steps, apart from masters."""
    gradients: int
    """Bytes of gradients and sums when the optimiser begins."""
    peak: int
    """Bytes of tensors at the fullest moment."""
    calls: dict[str, int]
    """Collectives of each kind; control words (below 64 bytes) apart."""
    bytes: dict[str, int]
    """Bytes of the largest tensor of each, summed by kind."""


@dataclass
class Collectives(TorchDispatchMode):
    """Counts collectives that are not control words."""

    calls: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name.startswith(("c10d::", "_c10d_functional::")):
            short = name.split("::")[1]
            kind = next((k for start, k in KINDS.items() if short.lstrip("_").startswith(start)),
                        "")
            sizes = [t.nbytes for t in torch.utils._pytree.tree_leaves((args, kwargs))
                     if isinstance(t, torch.Tensor)]
            if kind and max(sizes, default=0) > 64:
                self.calls[kind] = self.calls.get(kind, 0) + 1
                self.bytes[kind] = self.bytes.get(kind, 0) + max(sizes)
        return func(*args, **(kwargs or {}))


def storages(tensors) -> dict[int, int]:
    """Bytes of the different storages under tensors (DTensors: this rank's part)."""
    found = {}
    for tensor in tensors:
        storage = norm.local(tensor.detach()).untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return {pointer: size for pointer, size in found.items() if size}


class Live(TorchDispatchMode):
    """Bytes of tensors that live, counted once for each memory; threads that free late count not.

    FSDP frees and refills gathered parameters by resizing their memory: that is counted too.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.sizes: dict[int, int] = {}
        self.resize = torch.UntypedStorage.resize_
        for tensor in known:
            self._seen(norm.local(tensor.detach()).untyped_storage())

    def _seen(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            weakref.finalize(storage, self._gone, key)
        self.held += storage.nbytes() - self.sizes.get(key, 0)
        self.sizes[key] = storage.nbytes()
        self.peak = max(self.peak, self.held)

    def _gone(self, key: int) -> None:
        self.held -= self.sizes.pop(key)

    def __enter__(self):
        live = self

        def resize(storage, size):
            live.resize(storage, size)
            live._seen(storage)

        torch.UntypedStorage.resize_ = resize
        return super().__enter__()

    def __exit__(self, *error):
        torch.UntypedStorage.resize_ = self.resize
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self._seen(one.untyped_storage())
        return out


def _measure(place: world.World, run: Run, corpus) -> Step:
    session = open_session(run, Path(tempfile.mkdtemp()), corpus, SystemClock(), Account(),
                           world=place)
    take_step(session)
    counted = Collectives()
    taken = session.updater.step
    held: dict[str, int] = {}

    def watched(rate: float) -> None:
        grads = [m.grad for m in session.weights.masters.values() if m.grad is not None]
        held["gradients"] = sum(storages([*grads, *session.weights.sums.tensors.values()]).values())
        taken(rate)

    object.__setattr__(session.updater, "step", watched)
    with counted:
        take_step(session)
    object.__setattr__(session.updater, "step", taken)
    masters = storages(session.weights.masters.values())
    moments = storages(t for t in session.updater.tensors() if t.ndim)
    weights = storages(session.weights.compute.values())
    apart = {pointer: size for pointer, size in weights.items() if pointer not in masters}
    loss._scratch.clear()
    live = Live([*session.weights.masters.values(), *session.updater.tensors(),
                 *session.weights.compute.values(), *session.weights.sums.tensors.values()])
    with live:
        take_step(session)
    return Step(sum(masters.values()), sum(moments.values()), sum(apart.values()),
                held["gradients"], live.peak, counted.calls, counted.bytes)


_ALONE: dict[tuple[str, int], ranks.Trace] = {}


def alone(run: Run, corpus, steps: int = 10) -> ranks.Trace:
    """What one process does of the same training; kept, for many layouts ask the same."""
    plain = ranks.alone(run)
    plain = replace(plain, recipe=replace(plain.recipe, shard="parameters"))
    key = (repr((plain.model, plain.recipe)), steps)
    if key not in _ALONE:
        _ALONE[key] = ranks.trace(plain, corpus, steps)
    return _ALONE[key]


def measure(run: Run, corpus) -> list[Step]:
    """A warm step of `run` as each of its ranks sees it."""
    return ranks.spawn(_measure, run.recipe, run, corpus)
