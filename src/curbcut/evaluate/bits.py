"""Held-out bits per byte: what a model needs to write down text it was not trained on.

Bits per byte = (sum of -log2 p over the held-out tokens) / (bytes of the held-out text). It does
not depend on the tokenizer, and compares with what a compressor reaches on the same text
(`compressors`). The cost of the end-of-text tokens is counted; their bytes are none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from curbcut.data.tokenizer import END_OF_TEXT_ID
from curbcut.errors import InputError
from curbcut.model.loss import IGNORED

Nats = Callable[[torch.Tensor, torch.Tensor], float]
"""Sum of nats of (rows, targets), int64 [batch, seq] on the CPU; `IGNORED` targets cost nothing."""

_LOGITS = 1 << 24
"""Logits held at once (64 MiB in fp32)."""


class LanguageModel(Protocol):
    """What is asked of a model: hidden states of tokens, and logits of hidden states."""

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: int64 [batch, seq] -> hidden [batch, seq, width]."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [batch, seq, width] -> [batch, seq, vocab]."""


class HeldOut(Protocol):
    """Text to be scored: a `Corpus`, or a folder's (`evaluate.text`)."""

    def tokens(self, split: str) -> npt.NDArray[Any]:
        """The tokens of "validation", end-of-text tokens between documents."""

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text that each token of the vocabulary stands for."""


@dataclass(frozen=True)
class BitsPerByte:
    """What an evaluation found. `bytes_` is the text that the scored `tokens` stand for."""

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes_: int

    @property
    def perplexity(self) -> float:
        """exp(nats per token): only comparable between models of one tokenizer."""
        return math.exp(min(self.nats_per_token, 700.0))


@dataclass(frozen=True)
class Share:
    """This process among those that score one text together. Alone without arguments."""

    part: int = 0
    parts: int = 1
    sums: Callable[[list[float]], list[float]] = list
    """Sums of a few numbers over all parts; the same on each."""
    whole_batches: bool = False
    """Whether each call has `batch` rows: what is missing is filled with rows that cost nothing."""


def evaluate(model: Any, corpus: HeldOut, sequence_tokens: int, max_tokens: int | None = None,
             batch: int = 8, stride: int | None = None) -> BitsPerByte:
    """`scored` of `model` (a `LanguageModel`).

    Runs in evaluation mode without gradients, in the model's own precision with the softmax in
    fp32.
    """
    with evaluating(model) as device:
        def nats(rows: torch.Tensor, targets: torch.Tensor) -> float:
            return _nats(model, rows.to(device), targets.to(device))

        return scored(nats, corpus, sequence_tokens, max_tokens, batch, stride)


def scored(nats: Nats, corpus: HeldOut, sequence_tokens: int, max_tokens: int | None = None,
           batch: int = 8, stride: int | None = None, share: Share | None = None) -> BitsPerByte:
    """Bits per byte on the held-out split of `corpus` of whatever `nats` stands for.

    Each token is scored once, the first ones after an end-of-text token. Windows of
    `sequence_tokens` move on by `stride`, and from the second on only the last `stride` tokens of
    each are scored, so that they see at least `sequence_tokens - stride` tokens before them.
    Without a stride, windows do not overlap (quicker, and a few percent worse at the same model).
    `max_tokens` takes evenly spaced windows up to about that many scored tokens, the same ones
    each time. Each part of a `share` calls `nats` equally often. Raises InputError for a stride
    outside 1..sequence_tokens.
    """
    step = sequence_tokens if stride is None else stride
    if sequence_tokens < 1 or batch < 1 or not 1 <= step <= sequence_tokens:
        raise InputError(f"stride {step} does not fit {sequence_tokens} tokens", where="evaluate",
                         mend="give a stride from 1 to the sequence's tokens")
    share = share or Share()
    tokens = np.concatenate([[END_OF_TEXT_ID], corpus.tokens("validation")]).astype(np.int64)
    windows = _chosen(_windows(len(tokens) - 1, sequence_tokens, step), max_tokens)
    total = 0.0
    for first in range(0, len(windows), batch * share.parts):
        mine = windows[first + share.part * batch:][:batch]
        rows = batch if share.whole_batches or not len(mine) else len(mine)
        total += nats(*_batch(tokens, mine, rows, sequence_tokens))
    total, = share.sums([total])
    told = np.concatenate([tokens[a + 1:b + 1] for _, a, b in windows.tolist()])
    bytes_ = int(corpus.token_bytes()[told].sum())
    return BitsPerByte(total / len(told), total / math.log(2) / max(1, bytes_), len(told), bytes_)


def _windows(tokens: int, sequence: int, step: int) -> npt.NDArray[np.int64]:
    """int64 [windows, 3]: first input, and first and end position scored, as input numbers."""
    ends = np.arange(min(sequence, tokens), tokens + step, step).clip(max=tokens)
    scored_from = np.concatenate([[0], ends[:-1]])
    rows = np.stack([np.maximum(0, ends - sequence), scored_from, ends], axis=1)
    kept: npt.NDArray[np.int64] = rows[rows[:, 1] < rows[:, 2]]
    return kept


def _chosen(windows: npt.NDArray[np.int64], max_tokens: int | None) -> npt.NDArray[np.int64]:
    """Evenly spaced windows that score about `max_tokens` tokens; at least one."""
    total = int((windows[:, 2] - windows[:, 1]).sum())
    if max_tokens is None or max_tokens >= total:
        return windows
    count = max(1, len(windows) * max_tokens // total)
    return windows[np.arange(count) * len(windows) // count]


def _batch(tokens: npt.NDArray[np.int64], windows: npt.NDArray[np.int64], count: int,
           sequence: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and targets, int64 [count, sequence] each, of a few windows."""
    rows = np.full((count, sequence), END_OF_TEXT_ID, dtype=np.int64)
    targets = np.full((count, sequence), IGNORED, dtype=np.int64)
    for row, (first, start, end) in enumerate(windows.tolist()):
        rows[row, :end - first] = tokens[first:end]
        targets[row, start - first:end - first] = tokens[start + 1:end + 1]
    return torch.from_numpy(rows), torch.from_numpy(targets)


def _nats(model: Any, rows: torch.Tensor, targets: torch.Tensor) -> float:
    """Sum of nats over the scored tokens of a few windows."""
    hidden, flat = model(rows).flatten(0, 1), targets.flatten()
    places = torch.nonzero(flat != IGNORED).squeeze(1)
    vocab = model.logits(hidden[:1].unsqueeze(0)).shape[-1]
    nats = 0.0
    chunk = max(1, _LOGITS // vocab)
    for start in range(0, len(places), chunk):
        part = places[start:start + chunk]
        logits = model.logits(hidden[part].unsqueeze(0)).squeeze(0).float()
        losses = functional.cross_entropy(logits, flat[part], reduction="none")
        nats += float(losses.double().sum())
    return nats


@contextmanager
def evaluating(model: Any) -> Iterator[torch.device]:
    """The model in evaluation mode without gradients, put back afterwards; yields its device."""
    module = model if isinstance(model, nn.Module) else None
    was_training = module.training if module else False
    first = next(module.parameters(), None) if module else None
    if module:
        module.eval()
    try:
        with torch.no_grad():
            yield first.device if first is not None else torch.device("cpu")
    finally:
        if module:
            module.train(was_training)
