"""A decoder shaped like Llama, Mistral, Qwen2, Qwen3, Qwen3-MoE or Mixtral. Its parameter names
are Hugging Face's (but the experts of a layer are stacked: see `experts`).

Vocabulary of the shapes: b sequences, s positions of each, t cached positions, d head size.
`shape.qk_norm` is what makes a Qwen3 of a Llama, `shape.qkv_bias`, the only bias, a Qwen2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curbcut.model.attention import causal_attention
from curbcut.model.config import check_runnable
from curbcut.model.experts import SparseFeedForward
from curbcut.model.feed_forward import FeedForward, Matrix
from curbcut.model.initial import initial
from curbcut.model.kernels import rms_norm, rotate
from curbcut.model.loss import head_loss
from curbcut.spec.nouns import ModelShape

Attention = Literal["fused", "math"]
Rotary = tuple[Tensor, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Causal attention: query [b, heads, s, d], key and value [b, kv_heads, s, d] -> as the query."""

HeadLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Mean loss of hidden [n, width] under a head [vocab, width] against targets [n]."""


class KeyValues(Protocol):
    """What a decoder needs of a cache of keys and values."""

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes [b, kv_heads, s, d] of new positions; returns [b, kv_heads, t, d], new ones in."""
        ...

    def mask(self, new_positions: int) -> Tensor | None:
        """Additive mask [b, 1, s, t] (0 or -inf), or None: new positions are all, and causal."""
        ...


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension with a learned scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] -> [..., width]."""
        return rms_norm(x, self.weight, self.eps)


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, shape: ModelShape, index: int, kind: Attention) -> None:
        super().__init__()
        self.index, self.head_size = index, shape.head_size
        self.attend: Attend = causal_attention if kind == "math" else fused_attention
        queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        self.q_proj = Matrix(shape.width, queries, shape.qkv_bias)
        self.k_proj = Matrix(shape.width, keys, shape.qkv_bias)
        self.v_proj = Matrix(shape.width, keys, shape.qkv_bias)
        self.o_proj = Matrix(queries, shape.width)
        if shape.qk_norm:
            self.q_norm = RMSNorm(shape.head_size, shape.norm_eps)
            self.k_norm = RMSNorm(shape.head_size, shape.norm_eps)
        self.qk_norm = shape.qk_norm

    def forward(self, x: Tensor, rotary: Rotary, cache: KeyValues | None = None) -> Tensor:
        """x [b, s, width], rotary (cos, sin) [b or 1, s, 1, d/2] -> [b, s, width]."""
        split = (x.shape[0], x.shape[1], -1, self.head_size)
        query, key = self.q_proj(x).view(split), self.k_proj(x).view(split)
        value = self.v_proj(x).view(split).transpose(1, 2)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, *rotary), rotate(key, *rotary)
        mask = None
        if cache is not None:
            mask = cache.mask(x.shape[1])
            key, value = cache.extend(self.index, key, value)
        out = (self.attend(query, key, value) if mask is None
               else math_attention(query, key, value, mask))
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream behind a norm."""

    def __init__(self, shape: ModelShape, index: int, kind: Attention) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = SelfAttention(shape, index, kind)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp = (SparseFeedForward(shape) if shape.experts and index >= shape.dense_layers
                    else FeedForward(shape.width, shape.ffn))

    def forward(self, x: Tensor, rotary: Rotary, cache: KeyValues | None = None) -> Tensor:
        """x [b, s, width] -> [b, s, width]."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Embedding, blocks and final norm: what Hugging Face calls `model`."""

    def __init__(self, shape: ModelShape, kind: Attention) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
            torch.empty(shape.vocab, shape.width), freeze=False)
        self.layers = nn.ModuleList(Block(shape, i, kind) for i in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.norm_eps)


class Decoder(nn.Module):
    """A decoder-only transformer of the given shape, with weights of seed 0 to start with.

    Raises InputError for a shape that this decoder cannot be (sliding or latent attention, a plain
    feed-forward, an odd head size). On the meta device nothing is initialised.
    """

    def __init__(self, shape: ModelShape, attention: Attention = "fused") -> None:
        super().__init__()
        check_runnable(shape)
        self.shape = shape
        self.model = Trunk(shape, attention)
        if not shape.tied_embeddings:
            self.lm_head = Matrix(shape.width, shape.vocab)
        self.head_loss: HeadLoss = head_loss
        self._tables: dict[tuple[torch.device, torch.dtype], Rotary] = {}
        if not self.head_weight.is_meta:
            self.init_weights(0)

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix [vocab, width]; the embedding itself when tied."""
        head = self.model.embed_tokens if self.shape.tied_embeddings else self.lm_head
        return head.weight

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Sets each weight by its name and the seed alone (see `initial`)."""
        for name, parameter in self.named_parameters():
            parameter.copy_(initial(name, parameter.shape, self.shape, seed))

    def rotary(self, like: Tensor, positions: Tensor | None) -> Rotary:
        """Cosines and sines for `like` [b, s, width], each [b or 1, s, 1, d/2] in its dtype."""
        key, length = (like.device, like.dtype), like.shape[1]
        table = self._tables.get(key)
        if table is None or table[0].shape[0] < length:
            rows = max(length, self.shape.context_tokens)
            with torch.inference_mode(False):  # what serving makes, training may use
                table = self._tables[key] = _rotary_table(self.shape, rows, *key)
        cos, sin = table
        if positions is None:
            return cos[None, :length, None], sin[None, :length, None]
        return cos[positions].unsqueeze(2), sin[positions].unsqueeze(2)

    def forward(self, tokens: Tensor, positions: Tensor | None = None,
                cache: KeyValues | None = None, targets: Tensor | None = None) -> Tensor:
        """tokens [b, s] -> hidden states after the final norm [b, s, width].

        `positions` [b, s] (below `context_tokens`) defaults to 0, 1, ...; with a cache, keys and
        values of earlier positions come from it and the new ones are added to it. With `targets`
        [b, s] the mean loss in nats a token instead, an fp32 scalar (`loss.head_loss`).
        """
        hidden = self.enter(tokens)
        rotary = self.rotary(hidden, positions)
        for block in self.model.layers:
            hidden = block(hidden, rotary, cache)
        return self.leave(hidden, targets)

    def enter(self, tokens: Tensor) -> Tensor:
        """tokens [b, s] -> what the first block reads [b, s, width]."""
        return self.model.embed_tokens(tokens)  # type: ignore[no-any-return]

    def leave(self, hidden: Tensor, targets: Tensor | None) -> Tensor:
        """What the last block wrote [b, s, width] -> what `forward` returns."""
        hidden = self.model.norm(hidden)
        return hidden if targets is None else self.loss(hidden, targets)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of hidden states [b, s, width] against targets [b, s], an fp32 scalar."""
        return self.head_loss(hidden.flatten(0, -2), self.head_weight, targets.flatten())

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., width] -> scores of each next token [..., vocab]."""
        return F.linear(hidden, self.head_weight)


def fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The library's fused causal attention: no scores in memory. Shapes as in `Attend`."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True,
                                          enable_gqa=query.shape[1] != key.shape[1])


def math_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Softmax(query key' / sqrt(d)) value with the scores held in memory, in the compute dtype.

    query [b, heads, s, d], key and value [b, kv_heads, t, d], mask [b, 1, s, t] additive
    -> [b, heads, s, d]. The queries of a group share one matmul with their key head, so keys are
    not repeated.
    """
    b, heads, s, d = query.shape
    kv, t = key.shape[1], key.shape[2]
    bias = mask.unsqueeze(2).expand(b, kv, heads // kv, s, t).reshape(b * kv, heads // kv * s, t)
    folded = query.reshape(b * kv, heads // kv * s, d)
    keys = key.reshape(b * kv, t, d).transpose(1, 2)
    weights = torch.baddbmm(bias, folded, keys, alpha=1 / math.sqrt(d)).softmax(-1)
    return torch.bmm(weights, value.reshape(b * kv, t, d)).view(b, heads, s, d)


def _rotary_table(shape: ModelShape, rows: int, device: torch.device,
                  dtype: torch.dtype) -> Rotary:
    """Cosines and sines [rows, d/2], computed in fp32 and rounded once."""
    angles = torch.outer(torch.arange(rows, device=device, dtype=torch.float32),
                         rotary_rates(shape, device))
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotary_rates(shape: ModelShape, device: torch.device | None = None) -> Tensor:
    """Radians that each pair of dimensions turns by a position, [d/2] in fp32.

    Stretched positions turn more slowly: all pairs alike (arXiv:2306.15595), or, by Llama 3.1, only
    those of long waves (Llama 3, arXiv:2407.21783, section 3.4; the ramp as its reference code).
    """
    pair = torch.arange(0, shape.head_size, 2, device=device, dtype=torch.float32)
    rates = 1.0 / shape.rope_theta ** (pair / shape.head_size)
    if shape.rope_factor == 1:
        return rates
    if not shape.rope_original_tokens:
        return rates / shape.rope_factor
    turns = rates * (shape.rope_original_tokens / (2 * math.pi))
    kept = ((turns - shape.rope_low) / (shape.rope_high - shape.rope_low)).clamp(0, 1)
    return kept * rates + (1 - kept) * rates / shape.rope_factor
