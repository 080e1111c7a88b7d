from __future__ import annotations

import pytest

import ranks
from tiny import tiny_run


def test_the_same_run_twice_is_the_same_to_the_bit(tiny_corpus):
    run = tiny_run(steps=10)
    first, second = ranks.trace(run, tiny_corpus), ranks.trace(run, tiny_corpus)
    ranks.assert_equal(first, second, tolerance=0.0)
    assert len(first.losses) == 10 and first.losses[-1] < first.losses[0]


def test_a_layout_that_is_not_applied_does_not_pass_for_the_same(tiny_corpus, monkeypatch):
    from curbcut.train.parallel import build

    monkeypatch.setattr(build, "spread", lambda model, world, recipe: model)
    run = tiny_run(steps=3, recipe={"dp_shard": 2})
    many, one = ranks.trace(run, tiny_corpus, 3), ranks.trace(ranks.alone(run), tiny_corpus, 3)
    with pytest.raises(AssertionError):
        ranks.assert_equal(many, one)


def test_a_failing_rank_is_named(tiny_corpus):
    def fails(world):
        assert world.rank == 0, "rank one fails"

    with pytest.raises(AssertionError, match="rank 1"):
        ranks.spawn(fails, tiny_run(recipe={"dp_replicate": 2}).recipe)
