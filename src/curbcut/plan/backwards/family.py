"""The shapes that a budget may buy: dense and of experts, from millions to trillions of parameters.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from curbcut.plan import rules, shapes
from curbcut.spec.nouns import ModelShape

WIDTHS = (256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192,
          10240, 12288, 16384, 20480, 24576)
"""Widths tried; from 2,048 on they divide by 8 tensor-parallel ranks and heads of 128."""
LAYERS_BY_WIDTH = ((512, (64, 48)), (2048, (80, 56)), (8192, (128, 96, 72)), (1 << 30, (160, 120)))
"""Width over layers that is tried, up to each width: loss is flat over a wide range
(arXiv:2001.08361, figure 5), and large models of every lab are that deep."""
WIDE_HEAD, WIDE_FROM = 128, 2048
"""Head size from this width on, as in nearly every preset of the facts."""
EXPERT_KINDS = ((8, 2), (64, 8))
"""Experts a layer and experts a token: coarse (Mixtral) and fine-grained (DeepSeek-MoE)."""
EXPERTS_FROM_WIDTH = 512


@functools.cache
def family(context_tokens: int = 0, *, experts: bool = True) -> tuple[ModelShape, ...]:
    """All members, few parameters first; `context_tokens` 0 takes the rule's sequence."""
    context = context_tokens or rules.SEQUENCE
    dense = [_dense(width, round(width / ratio), context)
             for width in WIDTHS for ratio in _ratios(width)]
    routed = [_routed(one, *kind) for one in dense[::2] for kind in EXPERT_KINDS
              if experts and one.width >= EXPERTS_FROM_WIDTH]
    kept = [one for one in dict.fromkeys([*dense, *routed])
            if one.parameters >= rules.LEAST_PARAMETERS]
    return tuple(sorted(kept, key=lambda one: (one.parameters, one.layers)))


def _ratios(width: int) -> tuple[int, ...]:
    return next(ratios for most, ratios in LAYERS_BY_WIDTH if width <= most)


def _dense(width: int, layers: int, context: int) -> ModelShape:
    layers = max(rules.LEAST_LAYERS, layers)
    rough = 12 * layers * width * width
    vocab = rules.vocab(6.0 * rough * rules.TOKENS_PER_PARAMETER * rough)
    one = shapes.shape(width, layers, vocab, context)
    if width < WIDE_FROM:
        return one
    heads = width // WIDE_HEAD
    return replace(one, head_size=WIDE_HEAD, heads=heads, kv_heads=math.gcd(8, heads),
                   ffn=256 * round(8 * width / 3 / 256))


def _routed(one: ModelShape, experts: int, chosen: int) -> ModelShape:
    """The dense shape with its feed-forward cut into experts: a token meets about as much."""
    inner = max(64, 64 * round(one.ffn / chosen / 64))
    return replace(one, experts=experts, experts_per_token=chosen, expert_ffn=inner)
