"""The decoder as serving runs it: packed matrices, rows instead of batches, no autograd.

The same network as `model.decoder` (tests hold the two and transformers' own equal), written for
steps of a few rows, where each operation's own overhead counts: projections that read the same
rows are one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.model.decoder import Block, Decoder
from curbcut.model.feed_forward import FeedForward
from curbcut.serve.engine.matrices import KINDS, Make, Matrix
from curbcut.spec.nouns import ModelShape


class Attends(Protocol):
    """What the layers ask of the cache: see `cache.StepView`."""

    positions: Tensor

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [n, heads, d], key and value [n, kv_heads, d] -> [n, heads, d]."""
        ...


@dataclass(frozen=True)
class Layer:
    """Weights of one block."""

    before_attention: Tensor
    qkv: Matrix
    """Queries, keys and values of a row, one after another."""
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Matrix
    before_feed_forward: Tensor
    gate_up: Matrix | None
    """None where the feed-forward is sparse."""
    down: Matrix | None
    sparse: Any = None
    """A `model.experts.SparseFeedForward`."""


class Network:
    """A decoder's weights, packed. `kind` is how matrices are kept (`matrices.KINDS`)."""

    def __init__(self, model: Decoder, kind: str = "same") -> None:
        self.shape: ModelShape = model.shape
        make = KINDS[kind]
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = [_packed(block, make) for block in model.model.layers]  # type: ignore[arg-type]
        self.norm = model.model.norm.weight.detach()
        self.head: Matrix = make(model.head_weight.detach(), None)
        self.dtype, self.device = self.embedding.dtype, self.embedding.device
        rows = torch.arange(self.shape.context_tokens, device=self.device)[None]
        cos, sin = model.rotary(self.embedding[None, :1], rows)
        self._cos = torch.cat((cos, cos), -1)[0]
        self._sin = torch.cat((-sin, sin), -1)[0]
        self.bytes_ = sum(p.nbytes for p in model.parameters())

    @torch.inference_mode()
    def hidden(self, tokens: Tensor, view: Attends) -> Tensor:
        """tokens [n] -> hidden states after the final norm [n, width]."""
        shape, eps = self.shape, self.shape.norm_eps
        width = (shape.width,)
        heads, kv, size = shape.heads, shape.kv_heads, shape.head_size
        cos, sin = self._cos[view.positions], self._sin[view.positions]
        x = F.embedding(tokens, self.embedding)
        for index, layer in enumerate(self.layers):
            rows = layer.qkv(F.rms_norm(x, width, layer.before_attention, eps))
            query, key, value = torch.split(rows.view(len(x), -1, size), [heads, kv, kv], 1)
            if layer.query_norm is not None:
                query = F.rms_norm(query, (size,), layer.query_norm, eps)
                key = F.rms_norm(key, (size,), layer.key_norm, eps)
            out = view.attend(index, _rotated(query, cos, sin), _rotated(key, cos, sin), value)
            x = x + layer.out(out.reshape(len(x), heads * size))
            x = x + self._feed_forward(layer, F.rms_norm(x, width, layer.before_feed_forward, eps))
        return F.rms_norm(x, width, self.norm, eps)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, width] -> scores [n, vocab] in fp32."""
        return self.head(hidden).float()

    @staticmethod
    def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
        if layer.gate_up is None or layer.down is None:
            return layer.sparse(x)  # type: ignore[no-any-return]
        gate, up = layer.gate_up(x).chunk(2, -1)
        return layer.down(F.silu(gate) * up)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [n, heads, d], cos and sin [n, 1, d], the first half of sin negated."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def _packed(block: Block, make: Make) -> Layer:
    own, mlp = block.self_attn, block.mlp
    dense = mlp if isinstance(mlp, FeedForward) else None
    return Layer(
        block.input_layernorm.weight.detach(),
        make(_joined(own.q_proj, own.k_proj, own.v_proj), None),
        own.q_norm.weight.detach() if own.qk_norm else None,
        own.k_norm.weight.detach() if own.qk_norm else None,
        make(own.o_proj.weight.detach(), None),
        block.post_attention_layernorm.weight.detach(),
        make(_joined(dense.gate_proj, dense.up_proj), None) if dense else None,
        make(dense.down_proj.weight.detach(), None) if dense else None,
        None if dense else mlp)


def _joined(*parts: Any) -> Tensor:
    return torch.cat([part.weight.detach() for part in parts])
