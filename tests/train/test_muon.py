from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curbcut.train.muon import Muon, newton_schulz


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99))
def test_singular_values_come_near_one(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    _, before, _ = torch.linalg.svd(matrix, full_matrices=False)
    after = torch.linalg.svdvals(newton_schulz(matrix))
    # those that vanish beside the largest stay small: five iterations lift them 3.4^5 times at most
    assert after.max() < 1.25
    lifted = before / before.norm() > 0.02
    assert after[lifted.nonzero().flatten()].min() > 0.3 if lifted.any() else True


def test_a_stack_is_its_matrices_each_alone():
    stack = torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(0))
    together = newton_schulz(stack)
    for one, turned in zip(stack, together, strict=True):
        torch.testing.assert_close(newton_schulz(one), turned)


def test_a_matrix_and_its_transpose_turn_alike():
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(newton_schulz(matrix.T), newton_schulz(matrix).T)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (24, 8)])
def test_steps_as_the_librarys_muon_does(size):
    begin = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(begin.clone()), nn.Parameter(begin.clone())
    mine = Muon([{"params": [ours], "lr": 0.02, "weight_decay": 0.1}], {ours: ours})
    library = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1,
                               adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        grad = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        library.step()
    # both iterate in bf16, which differs by the order of a division
    torch.testing.assert_close(ours, theirs, atol=3e-3, rtol=0)
    assert not torch.equal(ours.detach(), begin)
