"""Batches for training: what a step reads is a pure function of (seed, step).

The train split is taken as a ring of T tokens. Each epoch turns the ring by an offset of its own
and lays n = T // S windows of S tokens end to end on it, so that the boundaries differ each epoch;
a keyed permutation says in which order they come. Up to S - 1 tokens, elsewhere each time, are
not seen in an epoch. Sample i of a run is the same at any batch size and number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curbcut.data.corpus import MEND, Corpus
from curbcut.data.order import key_of, permuted
from curbcut.errors import DamagedFile, InputError

Tokens = npt.NDArray[np.int64]
AHEAD = 4096
"""Samples whose places are worked out at once: a batch's own would take longer than its tokens."""


@dataclass(frozen=True)
class Batches:
    """Draws batches of `global_batch` windows of `sequence_tokens` from a corpus's train split.

    Raises InputError when the corpus has fewer tokens than one window and its last target.
    """

    corpus: Corpus
    sequence_tokens: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        needed = self.sequence_tokens + 1
        if self.sequence_tokens < 1 or self.global_batch < 1:
            raise InputError("a batch needs at least one sequence of one token", where="recipe",
                             mend="give sequence_tokens and global_batch of at least 1")
        if self.corpus.train_tokens < needed:
            raise InputError(
                f"the text has {self.corpus.train_tokens} tokens to train on, a sequence needs "
                f"{needed}", where="train.text",
                mend="give more text, or a smaller sequence_tokens")
        # One mapping for the life of the object, as a plain array: NumPy's own class for mapped
        # files takes 5 us a slice. A frozen dataclass sets it the long way round.
        object.__setattr__(self, "_tokens", np.asarray(self.corpus.tokens("train")))
        object.__setattr__(self, "_ahead", (-1, np.empty(0, np.int64)))

    @property
    def windows(self) -> int:
        """Sequences an epoch."""
        return self.corpus.train_tokens // self.sequence_tokens

    def epoch(self, step: int) -> float:
        """How often the text has been seen when `step` begins."""
        return step * self.global_batch / self.windows

    def starts(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """First token of each of the run's `samples` (numbered from 0), int64 [samples]."""
        epochs, places = np.divmod(samples, self.windows)
        starts = np.empty_like(samples)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            window = permuted(places[inside], self.windows, key_of(self.seed, epoch, "order"))
            offset = key_of(self.seed, epoch, "offset") % self.corpus.train_tokens
            starts[inside] = (offset + window * self.sequence_tokens) % self.corpus.train_tokens
        return starts

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Tokens, Tokens]:
        """Inputs and targets of `step`, int64 [global_batch / ranks, sequence_tokens] each.

        Targets are the inputs one token on. With `ranks`, the rows of `rank`: the ranks' rows in
        rank order are the whole batch. Raises InputError where the batch cannot be shared evenly,
        DamagedFile for a token that the tokenizer does not have.
        """
        if self.global_batch % ranks or not 0 <= rank < ranks:
            raise InputError(f"{self.global_batch} sequences cannot be shared by {ranks} ranks",
                             where="recipe.global_batch", mend=f"give a multiple of {ranks}")
        share = self.global_batch // ranks
        first = step * self.global_batch + rank * share
        tokens: npt.NDArray[Any] = self._tokens  # type: ignore[attr-defined]
        places = self._starts(first, first + share)[:, None] + np.arange(self.sequence_tokens + 1)
        rows = tokens[places % len(tokens)].astype(np.int64)
        if rows.max() >= self.corpus.vocab:
            raise self._damaged(places.ravel(), rows.ravel())
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    def _damaged(self, places: npt.NDArray[np.int64], tokens: Tokens) -> DamagedFile:
        """An embedding has no row for such a token; on a GPU its error would name nothing."""
        first = int(tokens.argmax())
        return DamagedFile(
            f"token {places[first] % self.corpus.train_tokens:,} is {tokens[first]}, and the "
            f"tokenizer has {self.corpus.vocab} entries",
            where=str(self.corpus.folder / "train.bin"), mend=MEND)

    def _starts(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """`starts` of the samples from `first` to `end`, from a block of them kept from before."""
        if end - first >= AHEAD:
            return self.starts(np.arange(first, end, dtype=np.int64))
        known: int
        found: npt.NDArray[np.int64]
        known, found = self._ahead  # type: ignore[attr-defined]
        if not known <= first <= end <= known + len(found) or known < 0:
            known, found = first, self.starts(np.arange(first, first + AHEAD, dtype=np.int64))
            object.__setattr__(self, "_ahead", (known, found))
        return found[first - known:end - known]
