from __future__ import annotations

import numpy as np
import pytest

from curbcut.data.batches import AHEAD, Batches
from curbcut.errors import InputError


def samples(corpus, count, batch, seed=0, sequence=16):
    batches = Batches(corpus, sequence, batch, seed)
    rows = [row for step in range(-(-count // batch)) for row in batches.batch(step)[0].tolist()]
    return rows[:count]


def test_targets_are_inputs_one_token_on_and_lie_so_in_the_text(corpus):
    batches = Batches(corpus, 16, 4, seed=0)
    inputs, targets = batches.batch(3)
    assert inputs.shape == targets.shape == (4, 16)
    assert inputs.dtype == targets.dtype == np.int64
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    text = corpus.tokens("train")
    start = int(batches.starts(np.array([12]))[0])
    ring = np.concatenate([text, text])
    assert np.array_equal(ring[start:start + 16], inputs[0])
    assert ring[start + 16] == targets[0, -1]


def test_sample_i_of_a_run_is_the_same_at_any_batch_size_and_after_any_restart(corpus):
    assert samples(corpus, 60, 4) == samples(corpus, 60, 12) == samples(corpus, 60, 7)
    assert samples(corpus, 60, 4, seed=1) != samples(corpus, 60, 4)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_ranks_share_the_batch_in_order(corpus, ranks):
    batches = Batches(corpus, 16, 8, seed=5)
    whole = batches.batch(2)
    parts = [batches.batch(2, rank, ranks) for rank in range(ranks)]
    for side in (0, 1):
        assert np.array_equal(np.concatenate([part[side] for part in parts]), whole[side])


def test_each_epoch_sees_each_window_once_and_turns_the_text(corpus):
    batches = Batches(corpus, 16, 1, seed=0)
    n, total = batches.windows, corpus.train_tokens
    first, second = (np.sort(batches.starts(np.arange(n) + n * epoch)) for epoch in (0, 1))
    for starts in (first, second):
        covered = np.concatenate([(start + np.arange(16)) % total for start in starts])
        assert len(np.unique(covered)) == 16 * n > total - 16
    assert set((first % 16).tolist()) != set((second % 16).tolist())


def test_a_batch_may_span_epochs_and_exceed_the_text(corpus):
    batches = Batches(corpus, 16, 3, seed=0)
    wide = Batches(corpus, 16, 2 * batches.windows + 1, seed=0)
    assert wide.batch(0)[0].shape == (2 * batches.windows + 1, 16)
    assert wide.epoch(1) == pytest.approx(2 + 1 / batches.windows)


def test_a_window_over_the_end_goes_on_at_the_beginning(corpus):
    batches = Batches(corpus, 16, 1, seed=0)
    text = corpus.tokens("train")
    starts = batches.starts(np.arange(40 * batches.windows))
    sample = int(np.flatnonzero(starts > len(text) - 16)[0])
    left = len(text) - int(starts[sample])
    inputs, targets = batches.batch(sample)
    assert inputs[0].tolist() == [*text[-left:].tolist(), *text[:16 - left].tolist()]
    assert targets[0, -1] == text[16 - left]


def test_batches_asked_for_in_any_order_are_the_same(corpus):
    """What was worked out ahead is kept, and never taken for another sample's."""
    batches = Batches(corpus, 16, 3, seed=0)
    steps = [0, 1, 2 * AHEAD // 3, AHEAD // 3, AHEAD // 3 + 1, 0, 10 * AHEAD, 1]
    for step in steps:
        alone = Batches(corpus, 16, 3, seed=0).starts(np.arange(3 * step, 3 * step + 3))
        first = batches.batch(step)[0][:, 0]
        assert first.tolist() == corpus.tokens("train")[alone].tolist()


def test_a_text_shorter_than_a_window_and_an_uneven_share_are_errors(corpus):
    with pytest.raises(InputError, match=f"has {corpus.train_tokens} tokens to train on"):
        Batches(corpus, corpus.train_tokens, 1, seed=0)
    assert Batches(corpus, corpus.train_tokens - 1, 1, seed=0).batch(0)[0].shape[0] == 1
    with pytest.raises(InputError, match="cannot be shared by 3 ranks"):
        Batches(corpus, 16, 8, seed=0).batch(0, 0, 3)
    with pytest.raises(InputError, match="at least one sequence"):
        Batches(corpus, 16, 0, seed=0)
