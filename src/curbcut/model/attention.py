"""Causal attention with the scores in memory, in blocks of queries.

Each block of `QUERY_BLOCK` queries meets the keys up to its own end: later ones are not even
multiplied (so s positions cost s * (s + QUERY_BLOCK) / 2 scores a head, not s * s), and the scores
of a block stay in cache. Milliseconds forward and backward, bf16, 4 query and 2 key heads of 64,
1 thread of a Zen 5 CPU without AMX, torch 2.13.0:

    [b, s]       these blocks    blocks by autograd    all at once    library's fused kernel
    [4, 512]     12              15                    32             43
    [2, 1024]    20              27                    64             53
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

QUERY_BLOCK = 128


class _CausalAttention(torch.autograd.Function):
    """See `causal_attention`. Keeps the softmax of each block, in the dtype of its input, or makes
    it again on the way back.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, again: bool) -> Tensor:
        b, heads, s, d = query.shape
        kv = key.shape[1]
        keys, values = key.reshape(b * kv, s, d), value.reshape(b * kv, s, d)
        out = query.new_empty(b, s, heads, d)
        kept = []
        for start, end in blocks(s):
            weights = _weights(query, keys, start, end)
            block = torch.bmm(weights, values[:, :end]).view(b, heads, end - start, d)
            out[:, start:end] = block.transpose(1, 2)
            if not again:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *kept = ctx.saved_tensors
        b, heads, s, d = query.shape
        kv = key.shape[1]
        # Shaped anew: torch.compile takes no saved tensor that is another one's view.
        keys, values = key.reshape(b * kv, s, d), value.reshape(b * kv, s, d)
        grad_query = torch.empty_like(query)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for index, (start, end) in enumerate(blocks(s)):
            weights = kept[index] if kept else _weights(query, keys, start, end)
            grad = fold(grads[0], start, end, kv)
            grad_values[:, :end] += torch.bmm(weights.transpose(1, 2), grad)
            slope = torch.bmm(grad, values[:, :end].transpose(1, 2))
            slope = torch.ops.aten._softmax_backward_data(slope, weights, -1, weights.dtype)
            slope *= 1 / math.sqrt(d)
            block = torch.bmm(slope, keys[:, :end]).view(b, heads, end - start, d)
            grad_query[:, :, start:end] = block
            grad_keys[:, :end] += torch.bmm(slope.transpose(1, 2), fold(query, start, end, kv))
        return grad_query, grad_keys.view(b, kv, s, d), grad_values.view(b, kv, s, d), None


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """query [b, heads, s, d], key and value [b, kv_heads, s, d] -> [b, heads, s, d].

    torch's softmax accumulates in fp32 inside, whatever the dtype. The result lies in memory as
    [b, s, heads, d], which is how the next matmul wants it. No second derivative.
    """
    out: Tensor = _CausalAttention.apply(query, key, value, False)  # type: ignore[no-untyped-call]
    return out


def lean_causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`causal_attention` that keeps no scores: their matmul and softmax are done again for the
    backward pass (selective recompute, arXiv:2205.05198, section 5). The same to the bit.
    """
    out: Tensor = _CausalAttention.apply(query, key, value, True)  # type: ignore[no-untyped-call]
    return out


def _weights(query: Tensor, keys: Tensor, start: int, end: int) -> Tensor:
    """Softmax of one block: query [b, heads, s, d], keys [b * kv, s, d] -> [b * kv, .., end]."""
    b, heads, _, d = query.shape
    kv = keys.shape[0] // b
    bias = mask(start, end, heads // kv, query.device, query.dtype)
    return torch.baddbmm(bias, fold(query, start, end, kv), keys[:, :end].transpose(1, 2),
                         alpha=1 / math.sqrt(d)).softmax(-1)


def blocks(s: int) -> list[tuple[int, int]]:
    """First and last-plus-one query of each block."""
    return [(start, min(start + QUERY_BLOCK, s)) for start in range(0, s, QUERY_BLOCK)]


def fold(x: Tensor, start: int, end: int, kv: int) -> Tensor:
    """Some positions of [b, heads, s, d] as [b * kv, heads / kv * positions, d]."""
    b, heads, _, d = x.shape
    return x[:, :, start:end].reshape(b * kv, heads // kv * (end - start), d)


_masks: dict[tuple[int, int, int, torch.device, torch.dtype], Tensor] = {}
_KEPT_MASKS = 64


def mask(start: int, end: int, group: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Additive mask of queries start..end-1 over keys 0..end-1, [1, group * (end - start), end];
    the last few are kept.
    """
    if torch.compiler.is_compiling():  # what a graph makes is not kept outside of it
        return _new_mask(start, end, group, device, dtype)
    key = (start, end, group, device, dtype)
    if key not in _masks:
        if len(_masks) >= _KEPT_MASKS:
            _masks.pop(next(iter(_masks)), None)
        with torch.inference_mode(False):  # what serving makes, training may use
            _masks[key] = _new_mask(*key)
    return _masks[key]


def _new_mask(start: int, end: int, group: int, device: torch.device,
              dtype: torch.dtype) -> Tensor:
    one = torch.full((end - start, end), -math.inf, device=device).triu_(start + 1)
    return one.to(dtype).repeat(group, 1)[None]
