"""Sequences that context-parallel ranks cannot share evenly are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import InputError
from curbcut.train import refusals
from tiny import tiny_run

RUN = tiny_run()


@pytest.mark.parametrize(("tokens", "cp", "refused"), [
    (32, 2, False), (34, 2, True), (33, 1, False), (36, 3, False), (33, 3, True)])
def test_pieces_of_unequal_length(tokens, cp, refused):
    recipe = replace(RUN.recipe, cp=cp, sequence_tokens=tokens)
    assert bool(refusals.reason(RUN.model, recipe, RUN.machine)) == refused
    if refused:
        with pytest.raises(InputError) as caught:
            refusals.check(RUN.model, recipe, RUN.machine)
        assert caught.value.where == "recipe.sequence_tokens" and "set it to" in caught.value.mend


def test_experts_are_split_or_spread_but_not_both():
    shape = replace(RUN.model, experts=4, experts_per_token=2, expert_ffn=32)
    split = replace(RUN.recipe, tp=2)
    assert not refusals.reason(shape, split, RUN.machine)
    both = replace(split, ep=2, dp_shard=2)
    assert "tp = 2 with ep = 2" in refusals.reason(shape, both, RUN.machine)
