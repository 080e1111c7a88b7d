"""How a sequence is cut over the ranks that share it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model.loss import IGNORED
from curbcut.train.parallel import context
from curbcut.train.world import World


@settings(max_examples=60, deadline=None)
@given(cp=st.integers(1, 4), tp=st.integers(1, 3), tokens=st.integers(1, 50))
def test_each_token_is_on_one_rank_with_its_own_target(cp, tp, tokens):
    inputs = torch.arange(tokens)[None] + 100
    seen = []
    for rank in range(cp):
        world = World(rank=rank * tp, size=cp * tp, degrees={"cp": cp, "tp": tp})
        mine, wanted, positions = context.share(inputs, inputs + 1, world)
        assert mine.shape == wanted.shape and mine.shape[1] % tp == 0
        asked = wanted[0] != IGNORED
        assert torch.equal(mine[0][asked] + 1, wanted[0][asked])
        if positions is not None:
            assert torch.equal(positions[0][asked] + 100, mine[0][asked])
            assert int(positions.max()) < tokens
        seen += mine[0][asked].tolist()
    assert sorted(seen) == inputs[0].tolist()


@given(cp=st.integers(2, 8), each=st.integers(1, 8))
def test_causal_work_is_the_same_for_each_rank(cp, each):
    work = {int((context.pieces(2 * cp * each, rank, cp) + 1).sum()) for rank in range(cp)}
    assert len(work) == 1
