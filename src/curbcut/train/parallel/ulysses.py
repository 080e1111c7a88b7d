"""Ulysses: ranks that share a sequence exchange heads for tokens (arXiv:2309.14509).

Before attention each rank has all heads of its tokens, within it some heads of all tokens. One
all-to-all carries query, key and value, a second one the output; any attention kernel fits in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curbcut.model.decoder import Attend
from curbcut.train.parallel import collectives


def ulysses_attention(query: Tensor, key: Tensor, value: Tensor, attend: Attend, group: str,
                      ranks: int) -> Tensor:
    """Causal attention over the sequence of all `ranks`: query [b, heads, s, d] and key and value
    [b, kv_heads, s, d] are this rank's two pieces of it (`context.share`), as is the result.

    `ranks` divides heads. Where there are fewer key heads than ranks, each is sent to all the
    ranks whose queries it serves.
    """
    few = ranks // key.shape[1] if key.shape[1] < ranks else 1
    parts = [_by_rank(query, ranks)]
    parts += [_by_rank(x.repeat_interleave(few, 1) if few > 1 else x, ranks) for x in (key, value)]
    sizes = [part.shape[2] for part in parts]
    sent = torch.cat(parts, 2)
    whole = _in_order(collectives.exchange(sent, group))
    out = attend(*torch.split(whole, sizes, 1))
    back = collectives.exchange(_by_piece(out, ranks), group)
    n, b, heads, s, d = back.shape
    return back.transpose(0, 1).reshape(b, n * heads, s, d)


def _by_rank(x: Tensor, ranks: int) -> Tensor:
    """[b, heads, s, d] -> [ranks, b, heads / ranks, s, d]: what each rank is to have."""
    b, heads, s, d = x.shape
    return x.reshape(b, ranks, heads // ranks, s, d).transpose(0, 1)


def _in_order(x: Tensor) -> Tensor:
    """Two pieces of each rank, [ranks, b, heads, s, d] -> the sequence [b, heads, ranks * s, d]."""
    n, b, heads, s, d = x.shape
    first, second = x.view(n, b, heads, 2, s // 2, d).unbind(3)
    return torch.cat((first, second.flip(0))).permute(1, 2, 0, 3, 4).reshape(b, heads, n * s, d)


def _by_piece(x: Tensor, ranks: int) -> Tensor:
    """The reverse of `_in_order`."""
    b, heads, s, d = x.shape
    pieces = x.reshape(b, heads, 2 * ranks, s // ranks // 2, d).permute(2, 0, 1, 3, 4)
    first, second = pieces.chunk(2)
    return torch.cat((first, second.flip(0)), 3)
