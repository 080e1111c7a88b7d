import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model.loss import IGNORED, head_loss


def sample(n=37, width=16, vocab=53, dtype=torch.float32, ignored=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, vocab, (n,), generator=generator)
    targets[list(ignored)] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 99),
       ignored=st.sets(st.integers(0, 39)))
def test_equals_the_library_in_fp32(n, chunk, seed, ignored):
    ignored = {i for i in ignored if i < n}
    hidden, weight, targets = sample(n, seed=seed, ignored=ignored)
    ours = head_loss(hidden, weight, targets, chunk)
    if len(ignored) == n:
        assert ours.item() == 0
        assert torch.equal(torch.autograd.grad(ours, hidden)[0], torch.zeros_like(hidden))
        return
    theirs = F.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    for a, b in zip(torch.autograd.grad(ours, (hidden, weight)),
                    torch.autograd.grad(theirs, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_gradcheck():
    hidden, weight, targets = sample(7, 4, 9, torch.float64, ignored=(2,))
    assert torch.autograd.gradcheck(lambda h, w: head_loss(h, w, targets, 3), (hidden, weight))


def test_bf16_gives_an_fp32_loss_off_the_bf16_grid():
    hidden, weight, targets = sample(200, 64, 500, torch.bfloat16)
    loss = head_loss(hidden, weight * 0.1, targets, 64)
    exact = F.cross_entropy(hidden.float() @ (weight * 0.1).float().T, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-2)
    assert loss.item() != loss.bfloat16().item()
    mine, truth = (torch.autograd.grad(value, weight)[0].float() for value in (loss, exact))
    assert (mine - truth).norm() < 0.02 * truth.norm()


def test_gradients_scale_with_the_loss_and_can_be_taken_twice():
    hidden, weight, targets = sample()
    loss = head_loss(hidden, weight, targets, 10)
    once = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    half = torch.autograd.grad(loss / 2, weight, retain_graph=True)[0]
    again = torch.autograd.grad(loss, weight)[0]
    torch.testing.assert_close(half, once / 2)
    assert torch.equal(once, again)


def test_without_gradients_none_are_made():
    hidden, weight, targets = sample()
    with torch.no_grad():
        quiet = head_loss(hidden, weight, targets, 10)
    assert not quiet.requires_grad
    assert torch.equal(quiet, head_loss(hidden, weight, targets, 10).detach())


def test_memory_is_a_chunk_of_logits():
    hidden, weight, targets = sample(64, 4, 4096)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                seen.append(out.numel())
            return out

    with Watch():
        head_loss(hidden, weight, targets, 8)
    assert max(seen) <= 8 * 4096


def plain_z_loss(hidden, weight, targets, z_loss):
    """The loss of PaLM (arXiv:2204.02311, section 5) in the library's own operations."""
    scores = (hidden @ weight.T).float() if hidden.dtype != torch.float64 else hidden @ weight.T
    squares = scores.logsumexp(-1).square()
    kept = targets != IGNORED
    return F.cross_entropy(scores, targets) + z_loss * squares[kept].mean()


@pytest.mark.parametrize("z_loss", [1e-4, 0.3])
def test_z_loss_passes_gradcheck_and_equals_plain_autograd(z_loss):
    hidden, weight, targets = sample(7, 4, 9, torch.float64, ignored=(2,))
    assert torch.autograd.gradcheck(
        lambda h, w: head_loss(h, w, targets, 3, z_loss), (hidden, weight))
    ours = head_loss(hidden, weight, targets, 3, z_loss)
    torch.testing.assert_close(ours, plain_z_loss(hidden, weight, targets, z_loss))


def test_z_loss_is_trained_on_in_fp32_and_not_evaluated():
    hidden, weight, targets = sample(50, 16, 40, torch.bfloat16)
    assert head_loss(hidden, weight, targets, 16, 0.1).dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(head_loss(hidden, weight, targets, 16, 0.1),
                           head_loss(hidden, weight, targets, 16))


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_all_scores_at_once_are_the_same_loss(z_loss):
    hidden, weight, targets = sample(40)
    whole, chunked = (head_loss(hidden, weight, targets, chunk, z_loss) for chunk in (0, 8))
    torch.testing.assert_close(whole, chunked)
    for a, b in zip(torch.autograd.grad(whole, (hidden, weight)),
                    torch.autograd.grad(chunked, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="this torch has no fused loss")
def test_the_librarys_fused_loss_is_in_bf16_and_ours_is_not():
    # the trap that this file exists for: near 10, bf16 has a grid of 1/16
    hidden, weight, targets = sample(64, 32, 100, torch.bfloat16)
    assert F.linear_cross_entropy(hidden, weight, targets).dtype == torch.bfloat16
    assert head_loss(hidden, weight, targets).dtype == torch.float32
