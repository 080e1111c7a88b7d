"""Tensor and sequence parallelism: each matrix split over the innermost axis of the mesh.

Queries, keys, values, gate and up are split by output, the output and down projections by input,
the embedding and the head by vocabulary (Megatron-LM, arXiv:1909.08053). With sequence parallelism
(arXiv:2205.05198) the residual stream and its norms are split along the sequence.

Parameters are DTensors over the "tp" axis, so that data parallelism shares them further and
checkpoints know what a part is a part of. What computes sees plain local tensors: a module whose
weight is split hands its own forward the local part, and hooks of the norms and of what writes
to the residual stream do the communication.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from curbcut.model.decoder import Block, Decoder, SelfAttention
from curbcut.model.experts import SparseFeedForward
from curbcut.model.feed_forward import FeedForward
from curbcut.model.loss import CHUNK_TOKENS
from curbcut.spec import Recipe
from curbcut.train.norm import local
from curbcut.train.parallel import collectives
from curbcut.train.parallel.vocabulary import vocabulary_loss
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its matrices split over tensor-parallel ranks (in place, on the meta device).

    What lies on this rank stays: a pipeline's stage without embedding or head is split too.
    """
    if world.degree("tp") == 1:
        return model
    axis = _Axis(world, along_sequence=recipe.sequence_parallel)
    trunk = model.model
    if getattr(trunk, "embed_tokens", None) is not None:
        _split_embedding(trunk.embed_tokens, axis)
    for block in trunk.layers:
        assert isinstance(block, Block)
        _split_block(block, axis)
    if getattr(trunk, "norm", None) is not None:
        _enter_after(trunk.norm, axis)
    if getattr(model, "lm_head", None) is not None:
        axis.split(model.lm_head, Shard(0))
    model.head_loss = functools.partial(
        vocabulary_loss, first=_first_row(model.shape.vocab, axis), group=axis.group,
        ranks=axis.ranks, z_loss=recipe.z_loss,
        chunk_tokens=CHUNK_TOKENS if recipe.chunked_loss else 0)
    if recipe.sequence_parallel:
        # The stream is 1 / tp of the sequence long, and what attends to it has all positions.
        model.rotary = functools.partial(  # type: ignore[method-assign]
            _whole_rotary, model.rotary, axis.ranks)
    return model


def residual_tokens(tokens: int, recipe: Recipe) -> int:
    """Positions of the residual stream that a rank holds of `tokens` given to the model."""
    return tokens // recipe.tp if recipe.sequence_parallel else tokens


class _Axis:
    """The tensor-parallel ranks of this rank, and what is done along them."""

    def __init__(self, world: World, *, along_sequence: bool) -> None:
        self.mesh, self.ranks = world.axis("tp"), world.degree("tp")
        self.rank, self.along_sequence = world.coordinate("tp"), along_sequence
        self.group = str(self.mesh.get_group().group_name)

    def split(self, module: nn.Module, placement: Placement, *, summed: bool = False,
              rows: slice | None = None) -> None:
        """Makes weight and bias of `module` DTensors of which its own forward sees the local part.

        `summed`: each rank makes a part of a whole weight's gradient, and they are added up.
        `rows`: what is used of a whole weight. A bias is cut like the rows of its weight.
        """
        for name, whole in list(module.named_parameters(recurse=False)):
            part = distribute_tensor(whole.detach(), self.mesh, [placement], src_data_rank=None)
            module._parameters[name] = nn.Parameter(part)
        module.__class__ = _with_local_weight(type(module))  # type: ignore[arg-type]
        module.summed_over = self.group if summed else ""  # type: ignore[assignment]
        module.used_rows = rows  # type: ignore[assignment]

    def enter(self, x: Tensor) -> Tensor:
        """From the residual stream to what split matrices read, [b, s, width]."""
        if self.along_sequence:
            return collectives.gather_tokens(x, self.group, self.ranks)
        return collectives.sum_gradient(x, self.group)

    def leave(self, x: Tensor) -> Tensor:
        """From the parts that split matrices wrote to the residual stream."""
        if self.along_sequence:
            return collectives.scatter_tokens(x, self.group, self.ranks)
        return collectives.sum_over(x, self.group)


class _LocalWeight(nn.Module):
    """A module whose parameters are DTensors and whose forward meets their local parts."""

    summed_over: str
    used_rows: slice | None

    @property
    def weight(self) -> Tensor:
        """The weight's local part: see `_mine`."""
        weight = self._mine("weight")
        assert weight is not None
        return weight

    def _mine(self, name: str) -> Tensor | None:
        """The local part, as a plain tensor that leads gradients back to the parameter.

        The parameter itself while data parallelism has taken it apart further: nothing computes
        with it then, and what handles it must see it as it is.
        """
        kept = self._parameters[name]
        if kept is None:
            return None
        assert isinstance(kept, DTensor)
        if kept.device_mesh.ndim > 1:
            return kept
        mine: Tensor = kept.to_local()
        if self.summed_over:
            mine = collectives.sum_gradient(mine, self.summed_over)
        return mine if self.used_rows is None else mine[self.used_rows]


class _LocalLinear(_LocalWeight):
    """A linear map with or without a bias."""

    @property
    def bias(self) -> Tensor | None:
        """The bias's local part: see `_mine`."""
        return self._mine("bias")


class _LocalEmbedding(_LocalWeight):
    """An embedding that knows some rows of the vocabulary, and gives zeros for the others."""

    first: int

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [b, s] -> [b, s, width], which the ranks' sum completes."""
        weight = self.weight
        rows = tokens - self.first
        here = (rows >= 0) & (rows < weight.shape[0])
        return F.embedding(rows.where(here, 0), weight) * here.unsqueeze(-1)


@functools.cache
def _with_local_weight(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind` with its parameters as properties; they keep their names."""
    first = (_LocalEmbedding if issubclass(kind, nn.Embedding) else
             _LocalLinear if issubclass(kind, nn.Linear) else _LocalWeight)
    return type(f"Local{kind.__name__}", (first, kind), {})


def _split_embedding(embedding: nn.Embedding, axis: _Axis) -> None:
    first = _first_row(embedding.num_embeddings, axis)
    axis.split(embedding, Shard(0))
    embedding.first = first  # type: ignore[assignment]
    embedding.register_forward_hook(_after(axis.leave))


def _first_row(vocab: int, axis: _Axis) -> int:
    """The first of this rank's rows: parts are as long as torch.chunk makes them."""
    return min(axis.rank * -(-vocab // axis.ranks), vocab)


def _split_block(block: Block, axis: _Axis) -> None:
    _enter_after(block.input_layernorm, axis)
    _enter_after(block.post_attention_layernorm, axis)
    _split_attention(block.self_attn, axis)
    mlp = block.mlp
    if isinstance(mlp, SparseFeedForward):
        _split_experts(mlp, axis)
    elif isinstance(mlp, FeedForward):
        _split_feed_forward(mlp, axis)
    mlp.register_forward_hook(_after(axis.leave))


def _split_feed_forward(feed_forward: FeedForward, axis: _Axis) -> None:
    axis.split(feed_forward.gate_proj, Shard(0))
    axis.split(feed_forward.up_proj, Shard(0))
    axis.split(feed_forward.down_proj, Shard(1))


def _split_experts(sparse: SparseFeedForward, axis: _Axis) -> None:
    """The inside of each expert over ranks. All route alike; as each has a part of what the
    experts make, each makes a part of the router's gradient.
    """
    axis.split(sparse.gate, Replicate(), summed=True)
    if sparse.shared_experts is not None:
        _split_feed_forward(sparse.shared_experts, axis)
    for name, dim in (("gate_proj", 1), ("up_proj", 1), ("down_proj", 2)):
        whole = getattr(sparse.experts, name).detach()
        part = distribute_tensor(whole, axis.mesh, [Shard(dim)], src_data_rank=None)
        sparse.experts.register_parameter(name, nn.Parameter(part))
    sparse.experts.own = local


def _split_attention(attention: SelfAttention, axis: _Axis) -> None:
    """Heads over ranks. Where a key head serves several ranks, each keeps all of the few key heads,
    uses its own, and its part of their gradient is added to the others'.
    """
    rows = attention.k_proj.out_features
    kv_heads = rows // attention.head_size
    axis.split(attention.q_proj, Shard(0))
    for matrix in (attention.k_proj, attention.v_proj):
        if kv_heads % axis.ranks == 0:
            axis.split(matrix, Shard(0))
        else:
            mine = axis.rank * kv_heads // axis.ranks * attention.head_size
            axis.split(matrix, Replicate(), summed=True,
                       rows=slice(mine, mine + attention.head_size))
    axis.split(attention.o_proj, Shard(1))
    attention.o_proj.register_forward_hook(_after(axis.leave))
    if attention.qk_norm:
        for norm in (attention.q_norm, attention.k_norm):
            axis.split(norm, Replicate(), summed=True)


def _enter_after(norm: nn.Module, axis: _Axis) -> None:
    """A norm of the residual stream: where that is split, its gradient is a part on each rank."""
    axis.split(norm, Replicate(), summed=axis.along_sequence)
    norm.register_forward_hook(_after(axis.enter))


def _after(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def hook(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return change(out)

    return hook


def _whole_rotary(rotary: Callable[..., Any], ranks: int, like: Tensor,
                  positions: Tensor | None) -> Any:
    """Cosines and sines of all positions of a stream that is split along the sequence."""
    return rotary(torch.empty(0, device=like.device, dtype=like.dtype).expand(
        1, like.shape[1] * ranks, 0), positions)
