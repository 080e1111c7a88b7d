"""From logits to tokens.

What a request asks (`Sampling`) is applied in this order: logit_bias (of -100 and less: never
drawn), repetition penalty (prompt and answer), presence and frequency penalties (answer only), no
end before min_tokens, grammar, temperature, top_k, top_p, min_p, chance. Log-probabilities are
those of the model itself, before all of this.

A drafted token is accepted where it is the very token that would have been drawn. For a guess
that stands alone this is speculative sampling (Leviathan et al., arXiv:2211.17192, algorithm 1
with all of the draft's probability on one token): it is accepted with the probability p(x) that
the model gives it, and else the token is one of p without x. As chance belongs to the place of a
token, drafts change no answer at all, only its speed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curbcut.serve.engine.draws import chance, draw
from curbcut.serve.engine.grammar import Matcher, matcher_for
from curbcut.serve.engine.interface import Sampling, TokenOdds, Unfit
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.text import Vocabulary

_BAN = -100.0
_NEVER = -1e30
"""Below any score, yet not -inf: where a grammar allows nothing but banned tokens, it wins."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A token of the answer, with its log-probability where they were asked for."""

    token: int
    odds: TokenOdds | None = None


class _Counts:
    """Which tokens there were and how often: arrays that grow, so that a step copies nothing."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._tokens, self._times = np.zeros(16, np.int64), np.zeros(16, np.float32)

    def add(self, token: int, times: int = 1) -> None:
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._tokens):
            self._tokens = np.append(self._tokens, np.zeros(place, np.int64))
            self._times = np.append(self._times, np.zeros(place, np.float32))
        self._tokens[place] = token
        self._times[place] += times

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens and times, each [different tokens]; valid until the next `add`."""
        end = len(self._places)
        return (torch.from_numpy(self._tokens[:end]).to(device),
                torch.from_numpy(self._times[:end]).to(device))


class Chooser:
    """What the choice of one request's tokens remembers. `request.sampler` holds it."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], ends: Iterable[int],
                 matcher: Matcher | None) -> None:
        self.sampling, self.taken, self.matcher = sampling, 0, matcher
        self.seed = _seed(sampling)
        self.ends = frozenset(ends)
        self._end_ids = torch.tensor(sorted(self.ends), dtype=torch.long)
        bans = [token for token, bias in sampling.logit_bias.items() if bias <= _BAN]
        self._bias = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)
        self._bias_ids = torch.tensor(list(sampling.logit_bias), dtype=torch.long)
        self._bans = torch.tensor(bans, dtype=torch.long)
        repeats, answers = sampling.repetition_penalty != 1, (
            sampling.presence_penalty != 0 or sampling.frequency_penalty != 0)
        self._answer = _Counts() if answers else None
        self._all = _Counts() if repeats else None
        for token in set(prompt) if self._all is not None else ():
            self._all.add(token)  # type: ignore[union-attr]
        self._changes = bool(sampling.logit_bias or repeats or answers or matcher is not None)

    @property
    def changes(self) -> bool:
        """Whether the next token's scores are changed before the temperature."""
        return self._changes or self.taken < self.sampling.min_tokens

    @property
    def failed(self) -> str:
        """Why no further token can be taken (a grammar that grew too complex); "" while it can."""
        return "" if self.matcher is None else self.matcher.failed

    def change(self, scores: Tensor) -> None:
        """Changes the scores [vocab] of the next token in place."""
        how, device = self.sampling, scores.device
        if len(self._bias_ids):
            scores.index_add_(0, self._bias_ids.to(device), self._bias.to(device))
            scores[self._bans.to(device)] = _NEVER
        if self._all is not None:
            tokens, _ = self._all.on(device)
            near = scores[tokens]
            scores[tokens] = torch.where(near > 0, near / how.repetition_penalty,
                                         near * how.repetition_penalty)
        if self._answer is not None:
            tokens, times = self._answer.on(device)
            scores[tokens] -= how.presence_penalty + how.frequency_penalty * times
        if self.taken < how.min_tokens:
            scores[self._end_ids.to(device)] = _NEVER
        if self.matcher is not None:
            self.matcher.mask(scores)

    def take(self, token: int) -> bool:
        """Remembers the answer's next token; False where it is one that ends the answer."""
        self.taken += 1
        for counts in (self._answer, self._all):
            if counts is not None:
                counts.add(token)
        if self.matcher is not None:
            self.matcher.take(token)
        return token not in self.ends


def begin(request: Request, vocabulary: Vocabulary, vocab: int | None = None) -> Chooser:
    """Makes the state of a request's choices, sets `request.sampler` to it and returns it; on the
    caller's thread.

    `vocab` is the width of the logits (default: the tokens of the vocabulary). Raises Unfit where
    logit_bias names an unknown token, and for a grammar that cannot be (see `grammar`).
    """
    how = request.sampling
    known = vocab or vocabulary.size
    ends = {*how.stop_tokens, *(() if how.ignore_end else
                                (token for token in vocabulary.end_tokens if token < known))}
    strange = [token for token in {*how.logit_bias, *how.stop_tokens} if not 0 <= token < known]
    if strange:
        raise Unfit(f"there is no token {strange[0]}; tokens are below {known}")
    matcher = None if how.grammar is None else matcher_for(how.grammar, vocabulary, how)
    chooser = Chooser(how, request.tokens[: request.prompt_tokens], ends, matcher)
    request.sampler = chooser
    return chooser


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
    asked: list[tuple[int, Request, int]] = []
    row = 0
    for piece in pieces:
        if not piece.wanted:
            continue
        request, end = piece.request, piece.start + piece.count
        place, choice = end - piece.wanted, max(end - piece.wanted, len(request.tokens) - 1)
        found.append([])
        if request.sampling.prompt_logprobs is not None:
            asked += [(row + at - place, request, at + 1)
                      for at in range(place, min(end, request.prompt_tokens - 1))]
        if choice < end:
            drafts = request.drafts[: end - choice - 1]
            lines.append(_Line(request, row + choice - place, drafts, found[-1]))
        row += piece.wanted
    if asked:
        _note_prompts(logits, asked)
    while lines:
        lines = _choose(logits, lines)
    return found


def _choose(logits: Tensor, lines: Sequence[_Line]) -> list[_Line]:
    """Takes the next token of each line; returns those whose draft was right, one row further."""
    rows = [line.row for line in lines]
    choosers: list[Chooser] = [line.request.sampler for line in lines]
    here = logits if rows == list(range(len(logits))) else logits[
        torch.tensor(rows, device=logits.device)]
    scores = here
    if any(chooser.changes for chooser in choosers):
        scores = here.clone()
        for own, chooser in zip(scores, choosers, strict=True):
            if chooser.changes:
                chooser.change(own)
    tokens = _tokens(scores, choosers)
    odds = _odds_of(here, choosers, tokens)
    right: list[_Line] = []
    for line, chooser, token, odd in zip(lines, choosers, tokens, odds, strict=True):
        if chooser.failed:
            continue
        line.taken.append(Taken(token, odd))
        if chooser.take(token) and line.drafts and line.drafts[0] == token:
            line.drafts, line.row = line.drafts[1:], line.row + 1
            right.append(line)
    return right


@torch.inference_mode()
def guess(logits: Tensor, requests: Sequence[Request], ahead: int) -> list[int]:
    """What another model's logits [n, vocab] (fp32) would give each request `ahead` places after
    its next token, by that place's own chance: the more alike the two models' distributions, the
    more of these drafts are right, whatever the temperature.
    """
    return _tokens(logits, [request.sampler for request in requests], ahead)


def _tokens(scores: Tensor, choosers: Sequence[Chooser], ahead: int = 0) -> list[int]:
    drawn = [at for at, chooser in enumerate(choosers) if chooser.sampling.temperature > 0]
    if len(drawn) < len(choosers):
        tokens: list[int] = scores.argmax(-1).tolist()
    else:
        tokens = [0] * len(choosers)
    if drawn:
        near = scores if len(drawn) == len(choosers) else scores[
            torch.tensor(drawn, device=scores.device)]
        mine = [choosers[at] for at in drawn]
        found = draw(near, [one.sampling for one in mine],
                     [chance(one.seed, one.taken + ahead) for one in mine])
        for at, token in zip(drawn, found, strict=True):
            tokens[at] = token
    return tokens


def _odds_of(logits: Tensor, choosers: Sequence[Chooser],
             tokens: Sequence[int]) -> list[TokenOdds | None]:
    """Of each chosen token where asked for."""
    odds: list[TokenOdds | None] = [None] * len(tokens)
    asked = [(at, chooser.sampling.logprobs) for at, chooser in enumerate(choosers)
             if chooser.sampling.logprobs is not None]
    if asked:
        rows = [at for at, _ in asked]
        found = _odds(logits, rows, [tokens[at] for at in rows], [most for _, most in asked])
        for at, one in zip(rows, found, strict=True):
            odds[at] = one
    return odds


def _note_prompts(logits: Tensor, asked: Sequence[tuple[int, Request, int]]) -> None:
    """Keeps odds of prompt tokens: (row, request, place of the token predicted). A prompt that is
    read again after preemption finds its places taken.
    """
    tokens = [request.tokens[place] for _, request, place in asked]
    found = _odds(logits, [row for row, _, _ in asked], tokens,
                  [request.sampling.prompt_logprobs or 0 for _, request, _ in asked])
    for (_, request, place), odds in zip(asked, found, strict=True):
        told = request.prompt_odds
        told += [None] * (place + 1 - len(told))
        told[place] = odds


def _odds(logits: Tensor, rows: Sequence[int], tokens: Sequence[int],
          most: Sequence[int]) -> list[TokenOdds]:
    """Log-probabilities of one token a row, and of the `most` likeliest ones beside it."""
    near = logits[torch.tensor(rows, device=logits.device)]
    whole = near.logsumexp(-1, keepdim=True)
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    own: list[float] = (near.gather(1, chosen) - whole)[:, 0].tolist()
    best, ids = near.topk(min(max(most), near.shape[1]))
    tops, names = (best - whole).tolist(), ids.tolist()
    return [TokenOdds(token, odds, tuple(zip(names[at][:n], tops[at][:n], strict=True)))
            for at, (token, odds, n) in enumerate(zip(tokens, own, most, strict=True))]


def _seed(sampling: Sampling) -> int:
    """The asked seed within 64 bits, or one that nobody can guess."""
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return (seed + 2**63) % 2**64 - 2**63
