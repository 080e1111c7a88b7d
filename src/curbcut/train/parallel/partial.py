"""Attention of some queries to some of the keys, so that parts can be put together later.

A part is its own softmax's mean of values and the log of that softmax's sum. Parts of the same
queries with other keys are put together in fp32 by those logs (online softmax: Milakov and
Gimelshein 2018, arXiv:1805.02867), and the gradients of a part need only the log of the whole
(FlashAttention, arXiv:2205.14135).

Shapes: query [b, heads, s, d], key and value [b, kv_heads, t, d], logs [b, heads, s] in fp32.
`causal` parts have s = t and the same positions; others see all keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from curbcut.model.attention import blocks, fold, mask


@dataclass(frozen=True)
class Gradients:
    """What a part adds to the gradients of its query, key and value, in fp32."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class Whole:
    """What the gradients of any part need of all parts together, for its queries."""

    grad: Tensor
    """Gradient of the output [b, heads, s, d]."""
    out: Tensor
    """The output, in the dtype of the query."""
    logs: Tensor
    """Log of the softmax's sum over all keys [b, heads, s], fp32."""

    def since(self, start: int) -> Whole:
        """The same for the queries from `start` on."""
        return Whole(self.grad[:, :, start:], self.out[:, :, start:], self.logs[:, :, start:])


class Kernel(Protocol):
    """One way to compute a part and its gradients."""

    def part(self, query: Tensor, key: Tensor, value: Tensor, *,
             causal: bool) -> tuple[Tensor, Tensor]:
        """The part's output [b, heads, s, d] in fp32, and its logs."""
        ...

    def gradients(self, query: Tensor, key: Tensor, value: Tensor, whole: Whole, *,
                  causal: bool) -> Gradients:
        """What the part adds to the gradients."""
        ...


class Math:
    """Scores in memory, a block of queries at once, as `model.attention` has them."""

    def part(self, query: Tensor, key: Tensor, value: Tensor, *,
             causal: bool) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        b, heads, s, d = query.shape
        kv, t = key.shape[1], key.shape[2]
        keys, values = key.reshape(b * kv, t, d), value.reshape(b * kv, t, d)
        out = torch.empty(b, heads, s, d, dtype=torch.float32, device=query.device)
        logs = torch.empty(b, heads, s, dtype=torch.float32, device=query.device)
        for start, end in blocks(s):
            seen = end if causal else t
            scores = _scores(query, keys[:, :seen], start, end, causal=causal)
            sums = scores.logsumexp(-1, keepdim=True)
            weights = scores.sub_(sums).exp_().to(query.dtype)
            block = torch.bmm(weights, values[:, :seen])
            out[:, :, start:end] = block.view(b, heads, end - start, d)
            logs[:, :, start:end] = sums.view(b, heads, end - start)
        return out, logs

    def gradients(self, query: Tensor, key: Tensor, value: Tensor, whole: Whole, *,
                  causal: bool) -> Gradients:
        """See `Kernel`."""
        b, heads, s, d = query.shape
        kv, t = key.shape[1], key.shape[2]
        keys, values = key.reshape(b * kv, t, d), value.reshape(b * kv, t, d)
        made = Gradients(*(torch.zeros(shape, dtype=torch.float32, device=query.device)
                           for shape in ((b, heads, s, d), (b * kv, t, d), (b * kv, t, d))))
        # The softmax's backward takes from each slope the mean slope, which is grad . out.
        mean = (whole.grad.float() * whole.out.float()).sum(-1)
        for start, end in blocks(s):
            seen = end if causal else t
            scores = _scores(query, keys[:, :seen], start, end, causal=causal)
            weights = scores.sub_(_column(whole.logs, start, end, kv)).exp_()
            grad = fold(whole.grad, start, end, kv)
            made.value[:, :seen] += torch.bmm(weights.to(query.dtype).transpose(1, 2), grad)
            slope = torch.bmm(grad, values[:, :seen].transpose(1, 2)).float()
            slope.sub_(_column(mean, start, end, kv)).mul_(weights).mul_(1 / math.sqrt(d))
            narrow = slope.to(query.dtype)
            made.query[:, :, start:end] = torch.bmm(narrow, keys[:, :seen]).view(
                b, heads, end - start, d)
            made.key[:, :seen] += torch.bmm(narrow.transpose(1, 2), fold(query, start, end, kv))
        return Gradients(made.query, made.key.view(b, kv, t, d), made.value.view(b, kv, t, d))


def _scores(query: Tensor, keys: Tensor, start: int, end: int, *, causal: bool) -> Tensor:
    """Scaled scores of queries start..end-1, [b * kv, group * (end - start), t], fp32."""
    kv = keys.shape[0] // query.shape[0]
    scores = torch.bmm(fold(query, start, end, kv), keys.transpose(1, 2)).float()
    scores *= 1 / math.sqrt(query.shape[3])
    if causal:
        scores += mask(start, end, query.shape[1] // kv, query.device, torch.float32)
    return scores


def _column(x: Tensor, start: int, end: int, kv: int) -> Tensor:
    """Some positions of [b, heads, s] as a column beside `_scores`."""
    b, heads, _ = x.shape
    return x[:, :, start:end].reshape(b * kv, heads // kv * (end - start), 1)


class Fused:
    """The library's flash attention, which tells the logs too; no scores in memory.

    These operators are what torch's own context parallelism calls: no public one tells the logs.
    A key head is repeated for the queries that share it.
    """

    def part(self, query: Tensor, key: Tensor, value: Tensor, *,
             causal: bool) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        key, value = _repeated(query, key), _repeated(query, value)
        if query.device.type == "cpu":
            out, logs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal)
        else:
            out, logs, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
                query, key, value, 0.0, causal, False)
        return out.float(), logs.float()

    def gradients(self, query: Tensor, key: Tensor, value: Tensor, whole: Whole, *,
                  causal: bool) -> Gradients:
        """See `Kernel`."""
        b, heads, s, d = query.shape
        kv, t = key.shape[1], key.shape[2]
        keys, values = _repeated(query, key), _repeated(query, value)
        if query.device.type == "cpu":
            # Its logs lie in memory as [b, s, heads].
            logs = whole.logs.transpose(1, 2).contiguous().transpose(1, 2)
            made = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                whole.grad, query, keys, values, whole.out, logs, 0.0, causal)
        else:
            none = torch.zeros(2, dtype=torch.uint64, device=query.device)  # no dropout, no seed
            made = torch.ops.aten._scaled_dot_product_flash_attention_backward(
                whole.grad, query, keys, values, whole.out, whole.logs.contiguous(), None, None,
                s, t, 0.0, causal, none, none)
        folded = (x.float().view(b, kv, heads // kv, t, d).sum(2) for x in made[1:])
        return Gradients(made[0].float(), *folded)


def _repeated(query: Tensor, key: Tensor) -> Tensor:
    return key.repeat_interleave(query.shape[1] // key.shape[1], 1).contiguous()


def kernel(fused: bool, query: Tensor) -> Kernel:
    """How parts are computed: flash where the chip's kernel takes these tensors."""
    narrow = query.dtype in (torch.bfloat16, torch.float16) and query.shape[3] % 8 == 0
    return Fused() if fused and (query.device.type == "cpu" or narrow) else Math()


def join(out: Tensor, logs: Tensor, more: Tensor, more_logs: Tensor) -> None:
    """Puts a part of the same queries into `out` and `logs` (fp32, in place)."""
    both = torch.logaddexp(logs, more_logs)
    out.mul_((logs - both).exp_().unsqueeze(-1))
    out.add_(more * (more_logs - both).exp_().unsqueeze(-1))
    logs.copy_(both)
