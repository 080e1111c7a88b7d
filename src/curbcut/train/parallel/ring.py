"""Ring attention: keys and values pass around the ranks that share a sequence.

Each rank holds two pieces of a sequence that was cut into 2n: piece r and piece 2n - 1 - r (see
`zigzag`). So with the keys of any other rank it has the same work: all its queries see one
piece of them, or the later half of its queries sees both (arXiv:2310.01889; the pieces as in
Brandon et al. 2023, arXiv:2311.09431, and Llama 3, arXiv:2407.21783). While one rank's keys are
worked on, the next rank's are on their way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from curbcut.train.parallel.partial import Kernel, Whole, join, kernel


@dataclass(frozen=True)
class Ring:
    """This rank's place among `size` ranks that pass keys on."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def send(self, x: Tensor) -> Passing:
        """Starts passing `x` to the next rank and taking what the rank before passes."""
        after, before = ((self.rank + step) % self.size for step in (1, -1))
        x, taken = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        works = dist.batch_isend_irecv([
            dist.P2POp(dist.isend, x, dist.get_global_rank(self.group, after), self.group),
            dist.P2POp(dist.irecv, taken, dist.get_global_rank(self.group, before), self.group)])
        return Passing(x, taken, works)


@dataclass(frozen=True)
class Passing:
    """A message on its way to the next rank, and one on its way here."""

    sent: Tensor
    taken: Tensor
    works: list[Any]

    def arrived(self) -> Tensor:
        """What the rank before passed, once it is here."""
        for work in self.works:
            work.wait()
        return self.taken


class _RingAttention(torch.autograd.Function):
    """See `ring_attention`. Keeps query, key, value, output and the logs of the softmax's sums."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, ring: Ring,
                fused: bool) -> Tensor:
        way, half = kernel(fused, query), query.shape[2] // 2
        own = torch.stack((key, value))
        passing = ring.send(own)
        out, logs = way.part(query, key, value, causal=True)
        for step in range(1, ring.size):
            pair = passing.arrived()
            if step < ring.size - 1:
                passing = ring.send(pair)
            if step <= ring.rank:  # from a rank before this one: its first piece is seen by all
                part = way.part(query, *pair[:, :, :, :half].contiguous(), causal=False)
                join(out, logs, *part)
            else:  # from a rank behind: this rank's later piece sees both of its pieces
                part = way.part(query[:, :, half:].contiguous(), *pair, causal=False)
                join(out[:, :, half:], logs[:, :, half:], *part)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, logs)
        ctx.ring, ctx.way = ring, way
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, logs = ctx.saved_tensors
        ring, way = ctx.ring, ctx.way
        whole = Whole(grads[0].contiguous(), out, logs)
        passing = ring.send(torch.stack((key, value)))
        mine = way.gradients(query, key, value, whole, causal=True)
        gradients: Passing | None = None
        for step in range(1, ring.size):
            pair = passing.arrived()
            if step < ring.size - 1:
                passing = ring.send(pair)
            other = _step_gradients(way, query, pair, whole, mine.query, behind=step > ring.rank)
            if gradients is not None:  # the ranks before have put theirs to these keys already
                other += gradients.arrived()
            # One more pass than keys took would be needed if they had started with their owner.
            gradients = ring.send(other.to(key.dtype))
        assert gradients is not None
        home = gradients.arrived()
        return (mine.query.to(query.dtype), (mine.key + home[0]).to(key.dtype),
                (mine.value + home[1]).to(value.dtype), None, None)


def _step_gradients(way: Kernel, query: Tensor, pair: Tensor, whole: Whole, grad_query: Tensor, *,
                    behind: bool) -> Tensor:
    """Gradients of another rank's keys and values [2, b, kv_heads, s, d], fp32; what they mean for
    this rank's queries is added to `grad_query`.
    """
    half = query.shape[2] // 2
    if behind:
        later = way.gradients(query[:, :, half:].contiguous(), pair[0], pair[1],
                              whole.since(half), causal=False)
        grad_query[:, :, half:] += later.query
        return torch.stack((later.key, later.value))
    first = pair[:, :, :, :half].contiguous()
    made = way.gradients(query, first[0], first[1], whole, causal=False)
    grad_query += made.query
    other = torch.zeros(pair.shape, dtype=torch.float32, device=pair.device)
    other[0, :, :, :half], other[1, :, :, :half] = made.key, made.value
    return other


@torch.compiler.disable  # type: ignore[untyped-decorator]
def ring_attention(query: Tensor, key: Tensor, value: Tensor, ring: Ring, *,
                   fused: bool) -> Tensor:
    """Causal attention over the sequence of all ranks of `ring`: query [b, heads, s, d] and key and
    value [b, kv_heads, s, d] are this rank's two pieces of it, as is the result.

    Parts are put together in fp32. Collective. Gradients of keys travel in the keys' dtype.
    """
    out: Tensor = _RingAttention.apply(query, key, value, ring, fused)  # type: ignore[no-untyped-call]
    return out
