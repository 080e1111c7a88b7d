"""The decoder as serving runs it: packed matrices, rows instead of batches, no autograd.

The same network as `model.decoder` (tests hold the two and transformers' own equal), written for
steps of a few rows, where each operation's own overhead counts: projections that read the same
rows are one matrix, queries and keys turn together and in place, and lie beside their values as
the cache takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.model.decoder import Block, Decoder
from curbcut.model.feed_forward import FeedForward
from curbcut.serve.engine.matrices import Make, Matrix, Plain, maker, maker_of_head
from curbcut.serve.engine.packed import Packed, PackedPair
from curbcut.spec.nouns import ModelShape

Touch = Callable[[int, str, Tensor, Tensor], None]
"""Changes in place what a matrix made: layer, name ("qkv", "out", "gate_up", "down"), the rows that
it read [n, inputs], and what it made of them [n, outputs]."""


class Attends(Protocol):
    """What the layers ask of the cache: see `cache.StepView`."""

    positions: Tensor

    def attend(self, layer: int, rows: Tensor) -> Tensor:
        """rows [n, heads + 2 * kv_heads, d]: queries, keys, values -> [n, heads * d]."""
        ...


@dataclass(frozen=True)
class Layer:
    """Weights of one block."""

    before_attention: Tensor
    qkv: Matrix
    """Queries, keys and values of a row, one after another."""
    qk_norm: Tensor | None
    """Scales of the norm of each query and key head, [heads + kv_heads, d]."""
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
        make = maker(kind)
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = [_packed(block, make, self.shape)  # type: ignore[arg-type]
                       for block in model.model.layers]
        self.norm = model.model.norm.weight.detach()
        self.head: Matrix = maker_of_head(kind)(model.head_weight.detach(), None)
        self.head_is_embedding = self.shape.tied_embeddings and isinstance(self.head, Plain)
        self.dtype, self.device = self.embedding.dtype, self.embedding.device
        rows = torch.arange(self.shape.context_tokens, device=self.device)[None]
        cos, sin = model.rotary(self.embedding[None, :1], rows)
        self._turns = torch.stack((torch.cat((cos, cos), -1)[0], torch.cat((-sin, sin), -1)[0]))
        """Cosines, and sines with the first half negated, [2, context, 1, d]."""

    @property
    def bytes_(self) -> int:
        """Size of the weights as they are kept, in bytes."""
        parts: list[Tensor] = [self.embedding, self.norm]
        matrices: list[Matrix] = [] if self.head_is_embedding else [self.head]
        for layer in self.layers:
            parts += [layer.before_attention, layer.before_feed_forward]
            parts += [] if layer.qk_norm is None else [layer.qk_norm]
            parts += [] if layer.sparse is None else layer.sparse.parameters()
            matrices += [one for one in (layer.qkv, layer.out, layer.gate_up, layer.down) if one]
        return sum(part.nbytes for part in parts) + sum(one.bytes_ for one in matrices)

    @torch.inference_mode()
    def hidden(self, tokens: Tensor, view: Attends, touch: Touch | None = None) -> Tensor:
        """tokens [n] -> hidden states after the final norm [n, width]."""
        shape, eps = self.shape, self.shape.norm_eps
        size, turned = shape.head_size, shape.heads + shape.kv_heads
        cos, sin = self._turns.index_select(1, view.positions)
        x = F.embedding(tokens, self.embedding)
        for index, layer in enumerate(self.layers):
            read = _norm(x, layer.before_attention, eps)
            made = layer.qkv(read)
            if touch is not None:
                touch(index, "qkv", read, made)
            rows = made.view(len(x), -1, size)
            turn = rows[:, :turned]
            if layer.qk_norm is not None:
                torch.mul(F.rms_norm(turn, (size,), None, eps), layer.qk_norm, out=turn)
            rolled = turn.roll(size // 2, -1)
            turn.mul_(cos).addcmul_(rolled, sin)
            read = view.attend(index, rows)
            made = layer.out(read)
            if touch is not None:
                touch(index, "out", read, made)
            x = made.add_(x)
            x = self._feed_forward(index, layer, _norm(x, layer.before_feed_forward, eps),
                                   touch).add_(x)
        return _norm(x, self.norm, eps)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, width] -> scores [n, vocab] in fp32."""
        return self.head(hidden).float()

    @staticmethod
    def _feed_forward(index: int, layer: Layer, read: Tensor, touch: Touch | None) -> Tensor:
        if layer.gate_up is None or layer.down is None:
            return layer.sparse(read)  # type: ignore[no-any-return]
        if touch is None and isinstance(layer.gate_up, PackedPair):
            inner = layer.gate_up.gated(read)
        else:
            both = layer.gate_up(read)
            if touch is not None:
                touch(index, "gate_up", read, both)
            gate, up = both.chunk(2, -1)
            inner = F.silu(gate).mul_(up)
        made = layer.down(inner)
        if touch is not None:
            touch(index, "down", inner, made)
        return made


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [n, width] over its root mean square, in fp32, times `weight` [width]. On a CPU the
    library's own takes ten passes where these are seven (bf16, 256 x 512: 77 and 45 us).
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, weight.shape, weight, eps)
    wide = x.float()
    scale = torch.linalg.vector_norm(wide, 2, -1, True)
    scale.square_().mul_(1 / len(weight)).add_(eps).rsqrt_()
    wide = wide.mul_(scale) if wide is not x else wide.mul(scale)
    return wide.to(x.dtype).mul_(weight)


def _packed(block: Block, make: Make, shape: ModelShape) -> Layer:
    own, mlp = block.self_attn, block.mlp
    dense = mlp if isinstance(mlp, FeedForward) else None
    scales = None
    if own.qk_norm:
        scales = torch.cat((own.q_norm.weight.detach().expand(shape.heads, -1),
                            own.k_norm.weight.detach().expand(shape.kv_heads, -1)))
    return Layer(
        block.input_layernorm.weight.detach(),
        make(_joined(own.q_proj, own.k_proj, own.v_proj), _biases(own)),
        scales,
        make(own.o_proj.weight.detach(), None),
        block.post_attention_layernorm.weight.detach(),
        _gate_up(dense, make) if dense else None,
        make(dense.down_proj.weight.detach(), None) if dense else None,
        None if dense else mlp)


def _gate_up(dense: FeedForward, make: Make) -> Matrix:
    gate = make(dense.gate_proj.weight.detach(), None)
    if isinstance(gate, Packed):
        return PackedPair(gate, Packed(dense.up_proj.weight))
    return make(_joined(dense.gate_proj, dense.up_proj), None)


def _joined(*parts: Any) -> Tensor:
    return torch.cat([part.weight.detach() for part in parts])


def _biases(own: Any) -> Tensor | None:
    """Of queries, keys and values, where there are any."""
    parts = [part.bias for part in (own.q_proj, own.k_proj, own.v_proj)]
    return None if parts[0] is None else torch.cat([part.detach() for part in parts])
