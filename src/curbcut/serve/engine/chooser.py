"""What one request asks of its tokens, applied to the scores of the next one: bans, penalties,
grammar.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from curbcut.serve.engine.grammar import Matcher, matcher_for
from curbcut.serve.engine.interface import Sampling, Unfit
from curbcut.serve.engine.request import Request
from curbcut.serve.engine.text import Vocabulary

_BAN = -100.0
_NEVER = -1e30
"""Below any score, yet not -inf: where a grammar allows nothing but banned tokens, it wins."""


class _Tally:
    """Which tokens there were and how often: arrays that grow, so that a step copies nothing."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._places: dict[int, int] = {}
        self._tokens, self._times = np.zeros(16, np.int64), np.zeros(16, np.float32)
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._tokens):
            self._tokens = np.append(self._tokens, np.zeros(place, np.int64))
            self._times = np.append(self._times, np.zeros(place, np.float32))
        self._tokens[place] = token
        self._times[place] += 1

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
        repeats = sampling.repetition_penalty != 1
        answers = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
        self._answer = _Tally() if answers else None
        self._all = _Tally(set(prompt)) if repeats else None
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
        for tally in (self._answer, self._all):
            if tally is not None:
                tally.add(token)
        if self.matcher is not None:
            self.matcher.take(token)
        return token not in self.ends


def begin(request: Request, vocabulary: Vocabulary, vocab: int | None = None) -> None:
    """Sets `request.sampler` to a chooser at its start; on the caller's thread.

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
    request.sampler = Chooser(how, request.tokens[: request.prompt_tokens], ends, matcher)


def _seed(sampling: Sampling) -> int:
    """The asked seed within 64 bits, or one that nobody can guess; 0 where nothing is drawn."""
    if sampling.temperature == 0:
        return 0
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return (seed + 2**63) % 2**64 - 2**63
