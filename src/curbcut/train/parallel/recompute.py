"""Activations that are computed again in the backward pass instead of kept.

"selective" drops the scores of attention alone (Korthikanti et al. 2022, arXiv:2205.05198, section
5): where fused attention holds none, it drops nothing. "full" keeps each block's input (Chen et al.
2016, arXiv:1604.06174).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from curbcut.model.attention import causal_attention, lean_causal_attention
from curbcut.model.decoder import Attend, Block, Decoder, SelfAttention, fused_attention
from curbcut.spec import Recipe
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its activations computed again in the backward pass."""
    del world
    for block in model.model.layers:
        assert isinstance(block, Block)
        if recipe.recompute == "selective":
            attention = block.self_attn
            assert isinstance(attention, SelfAttention)
            attention.attend = without_scores(attention.attend)
        if recipe.recompute == "full":
            # In the place of the block's own forward: parameters keep their names, and what FSDP
            # does before and after a block is not done again.
            block.forward = functools.partial(  # type: ignore[method-assign]
                _again, block.forward)
    return model


def without_scores(attend: Attend) -> Attend:
    """The same attention, none of whose scores stay for the backward pass."""
    if attend is fused_attention:
        return attend
    return lean_causal_attention if attend is causal_attention else functools.partial(
        _again, attend)


def _again(work: object, *inputs: object) -> Tensor:
    """What `work` makes of its inputs, and again from them in the backward pass.

    Nothing here draws random numbers, so their state is not kept.
    """
    if not torch.is_grad_enabled():
        return work(*inputs)  # type: ignore[operator, no-any-return]
    out: Tensor = checkpoint(work, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
