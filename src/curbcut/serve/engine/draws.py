"""Drawing tokens from scores: a whole batch at once, without sorting the vocabulary.

Each row's chance is a function of its own seed, the place of the token in the answer and nothing
else. So a batch, a preemption or guessed tokens change no answer, and nothing is ever rolled back.

A token is drawn by a race: each waits for an exponential time over its weight, and the first one
is taken (the Gumbel trick). The race is run in two heats, between chunks of the vocabulary and
inside the winner, which needs few random numbers and gives the same distribution. Other than by
inverting a cumulative sum, two models that are alike mostly draw the same token by the same chance
(Daliri et al. 2024, arXiv:2408.07978), which is what lets a small model guess for a large one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.serve.engine.interface import Sampling

_CHUNK = 128
"""Weights that are added up together, and race together in the second heat."""
_AT_ONCE = 2**18
"""Weights that are worked on together on a CPU: what fits into its cache (1 MiB)."""
_ROUNDING = 1e-6
"""Share by which a sum in fp32 may miss the exact one: a nucleus that reaches top_p but for this
has reached it."""

_GOLDEN = 0x9E3779B97F4A7C15


def chance(seed: int, place: int) -> int:
    """The random bits (64) of one token: a hash of the request's seed and the token's place."""
    digest = blake2b(struct.pack("<qq", seed, place), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def draw(scores: Tensor, samplings: Sequence[Sampling],
         chances: Sequence[int]) -> list[int]:
    """One token a row of `scores` [n, vocab] (fp32): temperature, top_k, top_p, min_p, so ordered.
    `chances` are the rows' random bits (see `chance`).

    The nucleus (Holtzman et al. 2020, arXiv:1904.09751) is the shortest run of likeliest tokens
    whose share reaches top_p; equally likely tokens stand in the order of their numbers. It is
    met by rejection: a token is in it exactly if the weight of all before it is below top_p of the
    whole, and one outside it shuts out itself and all behind it, so that few attempts are needed.
    """
    vocab = scores.shape[1]
    most = max(1, _AT_ONCE // vocab)
    if len(scores) > most and not scores.is_cuda:
        parts = range(0, len(scores), most)
        return [token for start in parts for token in draw(
            scores[start: start + most], samplings[start: start + most],
            chances[start: start + most])]
    weights = _weights(scores, samplings)
    for size in {s.top_k for s in samplings if 0 < s.top_k < vocab}:
        rows = torch.tensor([row for row, s in enumerate(samplings) if s.top_k == size],
                            device=weights.device)
        best, places = weights[rows].topk(size)
        weights[rows] = torch.zeros_like(weights[rows]).scatter_(1, places, best)
    nucleus = [row for row, s in enumerate(samplings) if s.top_p < 1]
    limits = _limits(weights, samplings) if nucleus else None
    if any(s.min_p > 0 for s in samplings):
        least = weights.new_tensor([[s.min_p] for s in samplings])
        weights *= weights >= least  # the likeliest token weighs 1
    bits = np.array(chances, np.uint64)
    drawn = _drawn(weights, bits, 0)
    if limits is not None:
        _meet(weights, drawn, nucleus, limits, bits)
    tokens: list[int] = drawn.clamp_(max=vocab - 1).tolist()
    return tokens


def _meet(weights: Tensor, drawn: Tensor, left: list[int], limits: Tensor,
          bits: np.ndarray) -> None:
    """Draws the rows `left` again until each is in its nucleus; changes weights and drawn [n]."""
    attempt = 0
    while left:
        rows = torch.tensor(left, device=weights.device)
        near, tokens, attempt = weights[rows], drawn[rows, None], attempt + 1
        own = near.gather(1, tokens)
        # First all that are as likely are taken to stand before it: seldom does it matter.
        out = _sum(torch.where(near >= own, near, 0)) - own[:, 0] >= limits[rows]
        if not out.any():
            return
        rows, near, own, tokens = rows[out], near[out], own[out], tokens[out]
        tied = (near == own) & (torch.arange(near.shape[1], device=near.device) < tokens)
        near = torch.where((near > own) | tied, near, 0)
        out = _sum(near) >= limits[rows]
        left = rows[out].tolist()
        if left:
            weights[rows[out]] = near[out]
            drawn[rows[out]] = _drawn(near[out], bits[left], attempt)


def _weights(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """e^((score - best) / temperature), [n, vocab rounded up to whole chunks]; 1 is the likeliest.
    """
    heat = scores.new_tensor([[max(s.temperature, 1e-6)] for s in samplings])
    weights = (scores - scores.amax(-1, keepdim=True)).div_(heat).exp_()
    missing = -scores.shape[1] % _CHUNK
    return F.pad(weights, (0, missing)) if missing else weights


def _limits(weights: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """What the tokens before one must weigh less than for it to be in the nucleus, [n] in fp64."""
    share = torch.tensor([max(s.top_p, 1e-9) for s in samplings], dtype=torch.float64,
                         device=weights.device)
    return _sum(weights) * share * (1 - _ROUNDING)


def _sum(weights: Tensor) -> Tensor:
    """Of each row [n, chunks * _CHUNK], [n] in fp64."""
    return weights.view(len(weights), -1, _CHUNK).sum(-1).sum(-1, dtype=torch.float64)


def _drawn(weights: Tensor, bits: np.ndarray, attempt: int) -> Tensor:
    """The winner of each row of `weights` [n, chunks * _CHUNK], [n]; `bits` [n] in uint64."""
    chunks = weights.view(len(weights), -1, _CHUNK)
    first = _waits(bits, 2 * attempt, chunks.shape[1]).to(weights.device)
    winner = (chunks.sum(-1) / first).argmax(-1)
    inside = chunks[torch.arange(len(weights), device=weights.device), winner]
    second = _waits(bits, 2 * attempt + 1, _CHUNK).to(weights.device)
    return winner * _CHUNK + (inside / second).argmax(-1)


def _waits(bits: np.ndarray, heat: int, count: int) -> Tensor:
    """Exponential times [n, count] in fp64 for one heat: SplitMix64 (Steele et al. 2014) from each
    row's own start, each heat in a part of the sequence of its own.
    """
    steps = np.arange(count, dtype=np.uint64) + np.uint64(heat << 32)
    mixed = bits[:, None] + steps * np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return torch.from_numpy(-np.log(((mixed >> np.uint64(12)) + 0.5) * 2.0**-52))
