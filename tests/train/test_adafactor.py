from __future__ import annotations

import torch
from torch import nn

from curbcut.train.adafactor import Adafactor


def stepped(size, grads, rate=0.01, decay=0.0):
    parameter = nn.Parameter(torch.ones(size))
    moved = Adafactor([{"params": [parameter], "lr": rate, "weight_decay": decay}])
    for grad in grads:
        parameter.grad = grad
        moved.step()
    return parameter, moved.state[parameter]


def test_the_state_of_a_matrix_is_a_row_and_a_column():
    _, state = stepped((6, 10), [torch.randn(6, 10)])
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "step": (), "row": (6,), "column": (10,)}
    _, state = stepped((3, 6, 10), [torch.randn(3, 6, 10)])
    assert tuple(state["row"].shape) == (3, 6) and tuple(state["column"].shape) == (3, 10)
    _, state = stepped((7,), [torch.randn(7)])
    assert sorted(state) == ["exp_avg_sq", "step"]


def test_a_second_moment_of_rank_one_is_exact():
    # squares that are rows times columns are told apart wholly: every element moves alike
    grad = torch.outer(torch.tensor([1.0, 3.0]), torch.tensor([0.1, 2.0, 5.0]))
    parameter, _ = stepped((2, 3), [grad, grad, grad])
    assert torch.allclose(parameter, torch.full((2, 3), 1 - 0.03), atol=1e-6)


def test_an_update_is_clipped_to_a_mean_square_of_one():
    grads = [torch.full((4, 4), 1e-3), torch.full((4, 4), 10.0)]
    before, _ = stepped((4, 4), grads[:1])
    after, _ = stepped((4, 4), grads)
    assert (before - after).detach().square().mean().sqrt() <= 0.01 * (1 + 1e-5)


def test_decay_is_decoupled():
    parameter, _ = stepped((3, 3), [torch.zeros(3, 3)], rate=0.1, decay=0.5)
    assert torch.allclose(parameter, torch.full((3, 3), 0.95))


def test_a_stack_is_its_matrices_each_alone_up_to_the_clip():
    grad = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    stack, _ = stepped((2, 5, 4), [grad])
    for index in range(2):
        alone, _ = stepped((5, 4), [grad[index]])
        ours, theirs = (1 - p.detach() for p in (stack[index], alone))
        cosine = (ours * theirs).sum() / (ours.norm() * theirs.norm())
        assert cosine > 1 - 1e-5
