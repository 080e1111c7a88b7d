"""How likely the model itself holds tokens: of answers as they are chosen, of prompts as they are
read. Only for requests that ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curbcut.serve.engine.interface import TokenOdds
from curbcut.serve.engine.request import Request


def of_answers(logits: Tensor, requests: Sequence[Request],
               tokens: Sequence[int]) -> list[TokenOdds | None]:
    """Odds of the `tokens` chosen from logits [n, vocab], one a request, where it asks for them."""
    told: list[TokenOdds | None] = [None] * len(tokens)
    rows = [row for row, one in enumerate(requests) if one.sampling.logprobs is not None]
    if rows:
        found = _odds(logits[torch.tensor(rows, device=logits.device)],
                      [tokens[row] for row in rows],
                      [requests[row].sampling.logprobs or 0 for row in rows])
        for row, odds in zip(rows, found, strict=True):
            told[row] = odds
    return told


def note_prompt(logits: Tensor, request: Request, start: int) -> None:
    """Adds to `request.prompt_odds` those of the prompt's tokens that logits [n, vocab] of its
    positions from `start` on foretell. A prompt that starts over does so here as well.
    """
    if start == 0:
        request.prompt_odds[:] = [None]
    tokens = request.tokens[start + 1: min(start + len(logits) + 1, request.prompt_tokens)]
    if tokens:
        most = request.sampling.prompt_logprobs or 0
        request.prompt_odds += _odds(logits[: len(tokens)], tokens, [most] * len(tokens))


def _odds(logits: Tensor, tokens: Sequence[int], most: Sequence[int]) -> list[TokenOdds]:
    """Log-probabilities of one token a row, and of the `most` likeliest ones beside it."""
    whole = logits.logsumexp(-1, keepdim=True)
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    own: list[float] = (logits.gather(1, chosen) - whole)[:, 0].tolist()
    best, ids = logits.topk(min(max(most), logits.shape[1]))
    tops, names = (best - whole).tolist(), ids.tolist()
    return [TokenOdds(token, odds, tuple(zip(names[at][:n], tops[at][:n], strict=True)))
            for at, (token, odds, n) in enumerate(zip(tokens, own, most, strict=True))]
