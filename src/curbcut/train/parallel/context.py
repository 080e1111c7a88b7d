"""Context parallelism: ranks share sequences, and their attention meets each other's keys."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from curbcut.model.decoder import Attend, Decoder
from curbcut.model.loss import IGNORED
from curbcut.spec import Recipe
from curbcut.train.parallel.ring import Ring, ring_attention
from curbcut.train.parallel.ulysses import ulysses_attention
from curbcut.train.world import World


def apply(model: Decoder, world: World, recipe: Recipe) -> Decoder:
    """The model, its attention meeting the keys of the ranks that share its sequences."""
    if world.degree("cp") == 1:
        return model
    for block in model.model.layers:
        block.self_attn.attend = _attention(  # type: ignore[union-attr]
            block.self_attn.attend, world, recipe)  # type: ignore[union-attr, arg-type]
    return model


def _attention(whole: Attend, world: World, recipe: Recipe) -> Attend:
    """Attention over a shared sequence; `whole` is that over one that lies on one rank."""
    group, ranks = world.group("cp"), world.degree("cp")
    assert group is not None
    if recipe.context == "ulysses":
        return functools.partial(ulysses_attention, attend=whole, group=str(group.group_name),
                                 ranks=ranks)
    ring = Ring(group, world.coordinate("cp"), ranks)
    return functools.partial(ring_attention, ring=ring, fused=recipe.attention == "fused")


def share(inputs: torch.Tensor, targets: torch.Tensor, world: World
          ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """This rank's part of [sequences, tokens] inputs and targets, and its positions [1, tokens].

    Positions are None where sequences are whole. Sequences that the ranks do not divide are made
    longer at their end, where nothing is asked. A rank gets two pieces of each sequence: one from
    the front and one as far from the end, so that causal attention is as much work for each.
    """
    tokens, cp = inputs.shape[1], world.degree("cp")
    # Tensor-parallel ranks may split what is left along the sequence.
    unit = world.degree("tp") * (2 * cp if cp > 1 else 1)
    if more := -tokens % unit:
        inputs, targets = F.pad(inputs, (0, more)), F.pad(targets, (0, more), value=IGNORED)
    if cp == 1:
        return inputs, targets, None
    places = pieces(tokens + more, world.coordinate("cp"), cp).to(inputs.device)
    # No row of the rotary tables stands behind the sequence: what is asked nothing may sit on it.
    return inputs[:, places], targets[:, places], places.clamp(max=tokens - 1)[None]


def pieces(tokens: int, rank: int, ranks: int) -> torch.Tensor:
    """Positions of pieces `rank` and `2 * ranks - 1 - rank` of a sequence cut into 2 * ranks."""
    each = torch.arange(tokens).view(2 * ranks, -1)
    return torch.cat((each[rank], each[2 * ranks - 1 - rank]))
