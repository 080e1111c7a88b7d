"""From logits to tokens.

What a request asks (`Sampling`) is applied in this order: logit_bias (of -100 and less: never
drawn), repetition penalty (prompt and answer), presence and frequency penalties (answer only), no
end before min_tokens, grammar (all these: `chooser`), temperature, top_k, top_p, min_p, chance
(`draws`). Log-probabilities are those of the model itself, before all of this (`odds`).

A drafted token is accepted where it is the very token that would have been drawn. For a guess
that stands alone this is speculative sampling (Leviathan et al., arXiv:2211.17192, algorithm 1
with all of the draft's probability on one token): it is accepted with the probability p(x) that
the model gives it, and else the token is one of p without x. As chance belongs to the place of a
token, drafts change no answer at all, only its speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curbcut.serve.engine import odds
from curbcut.serve.engine.draws import chance, draw
from curbcut.serve.engine.interface import TokenOdds
from curbcut.serve.engine.request import Piece, Request


@dataclass(frozen=True, slots=True)
class Taken:
    """A token of the answer, with its log-probability where they were asked for."""

    token: int
    odds: TokenOdds | None = None


@dataclass(slots=True)
class _Line:
    """A piece whose tokens are being chosen: the row of the next one, and the drafts left."""

    request: Request
    row: int
    drafts: list[int]
    taken: list[Taken]


@torch.inference_mode()
def take(logits: Tensor, pieces: Sequence[Piece]) -> list[list[Taken]]:
    """The next tokens of each piece that wants logits, in their order; `logits` [sum of wanted,
    vocab] in fp32 are as a `Runner` returns them.

    One token for a request whose tokens are all computed then, more where drafts were right, none
    for a piece of a prompt that only wants log-probabilities (they come into the request's
    `prompt_odds`), and none where `Chooser.failed`, which ends its request alone. To be called
    before the tokens are appended; nothing needs rolling back but the keys and values of drafts
    that were not taken.
    """
    found: list[list[Taken]] = []
    lines: list[_Line] = []
    row = 0
    for piece in pieces:
        if not piece.wanted:
            continue
        request, end = piece.request, piece.start + piece.count
        first, choice = end - piece.wanted, max(end - piece.wanted, len(request.tokens) - 1)
        found.append([])
        if request.sampling.prompt_logprobs is not None:
            odds.note_prompt(logits[row: row + piece.wanted], request, first)
        if choice < end:
            drafts = request.drafts[: end - choice - 1]
            lines.append(_Line(request, row + choice - first, drafts, found[-1]))
        row += piece.wanted
    while lines:
        lines = _choose(logits, lines)
    return found


def _choose(logits: Tensor, lines: Sequence[_Line]) -> list[_Line]:
    """Takes the next token of each line; returns those whose draft was right, one row further."""
    rows, requests = [line.row for line in lines], [line.request for line in lines]
    here = logits if rows == list(range(len(logits))) else _rows(logits, rows)
    scores = here
    changed = [at for at, one in enumerate(requests) if one.sampler.changes]
    if changed:
        scores = here.clone()
        for at in changed:
            requests[at].sampler.change(scores[at])
    tokens = draw_tokens(scores, requests)
    right: list[_Line] = []
    for line, token, told in zip(lines, tokens, odds.of_answers(here, requests, tokens),
                                 strict=True):
        chooser = line.request.sampler
        if chooser.failed:
            continue
        line.taken.append(Taken(token, told))
        if chooser.take(token) and line.drafts and line.drafts[0] == token:
            line.drafts, line.row = line.drafts[1:], line.row + 1
            right.append(line)
    return right


def draw_tokens(scores: Tensor, requests: Sequence[Request], ahead: int = 0) -> list[int]:
    """The likeliest token of each row [n, vocab] for greedy requests, one drawn for others, by the
    chance of the place `ahead` places after the next token.

    Another model guesses best by that place's own chance: the more alike the two distributions,
    the more of its drafts are right, whatever the temperature.
    """
    drawn = [at for at, one in enumerate(requests) if one.sampling.temperature > 0]
    all_drawn = len(drawn) == len(requests)
    tokens: list[int] = [0] * len(requests) if all_drawn else scores.argmax(-1).tolist()
    if drawn:
        mine = [requests[at].sampler for at in drawn]
        found = draw(scores if all_drawn else _rows(scores, drawn),
                     [one.sampling for one in mine],
                     [chance(one.seed, one.taken + ahead) for one in mine])
        for at, token in zip(drawn, found, strict=True):
            tokens[at] = token
    return tokens


def _rows(logits: Tensor, rows: Sequence[int]) -> Tensor:
    return logits[torch.tensor(rows, device=logits.device)]
