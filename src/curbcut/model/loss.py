"""The head's matmul and cross-entropy in one, chunk by chunk, with the loss always in fp32.

The library's fused head loss returns the loss in the weights' dtype: in bf16 near 10 that is a
grid of 1/16, useless as a training curve. Here logits are widened to fp32 before log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Targets of this value count for nothing (the library's convention)."""
CHUNK_TOKENS = 512
"""Tokens whose scores exist at once: 128 to 512 were alike at a vocabulary of 4,096, 512 was the
fastest at 32,000 (2,048 tokens, two cores)."""

_scratch: dict[str, Tensor] = {}


def _held(name: str, like: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory of `size` that one call after the other writes over.

    Fresh memory of this size is cleared by the kernel page by page, at each use: that took more
    than half of the head's time (vocabulary of 32,000, two cores).
    """
    kept = _scratch.get(name)
    if kept is None or (tuple(kept.shape), kept.dtype, kept.device) != (tuple(size), dtype,
                                                                        like.device):
        kept = _scratch[name] = torch.empty(tuple(size), dtype=dtype, device=like.device)
    return kept


class _HeadLoss(torch.autograd.Function):
    """See `head_loss`. Gradients are made on the way forward and scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int,
                z_loss: float, with_gradients: bool) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        counted = targets != IGNORED
        count = counted.sum()
        scale = 1.0 / count.clamp(min=1).to(wide)
        all_counted = bool(count == len(targets))
        size = (min(chunk, hidden.shape[0]), weight.shape[0])
        narrow_scores = _held("narrow scores", hidden, size, hidden.dtype)
        wide_scores = _held("wide scores", hidden, size, wide)
        sums = _WeightGradient(weight, wide) if with_gradients else None
        grad_hidden = torch.empty_like(hidden) if with_gradients else None
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            states, keep = hidden[part], counted[part]
            target = targets[part].where(keep, 0).unsqueeze(1)
            narrow, scores = narrow_scores[:len(states)], wide_scores[:len(states)]
            torch.mm(states, weight.T, out=narrow)
            scores.copy_(narrow)
            raw = scores.gather(1, target)
            torch.ops.aten._log_softmax.out(scores, 1, False, out=scores)
            log_share = scores.gather(1, target)
            loss -= (log_share.squeeze(1) * keep).sum()
            if grad_hidden is None or sums is None:
                continue
            # Nothing of size [chunk, vocab] is scaled: the mean's 1/n is applied to the sums.
            scores.exp_()
            if z_loss:
                log_sum = raw - log_share
                loss += z_loss * (log_sum.square().squeeze(1) * keep).sum()
                scores *= 1 + 2 * z_loss * log_sum
            slope = narrow.copy_(scores)
            slope.scatter_add_(1, target, torch.full_like(target, -1, dtype=slope.dtype))
            if not all_counted:
                slope *= keep.unsqueeze(1)
            torch.mm(slope, weight, out=grad_hidden[part])
            sums.add(slope, states)
        if grad_hidden is not None and sums is not None:
            ctx.save_for_backward(grad_hidden, sums.scaled(scale), scale)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_hidden, grad_weight, scale = ctx.saved_tensors
        outer = grads[0]
        return ((grad_hidden * (outer * scale)).to(grad_hidden.dtype),
                (grad_weight * outer).to(grad_weight.dtype), None, None, None, None)


class _WeightGradient:
    """The sum over chunks of slope' states, [vocab, width], kept in fp32 (fp64 for fp64)."""

    def __init__(self, weight: Tensor, wide: torch.dtype) -> None:
        self.part = _held("gradient part", weight, weight.shape, weight.dtype)
        self.sum = _held("gradient sum", weight, weight.shape, wide)
        self.wide_part = _held("wide gradient part", weight, weight.shape, wide)
        self.empty = True

    def add(self, slope: Tensor, states: Tensor) -> None:
        """Adds one chunk: slope [chunk, vocab], states [chunk, width]."""
        torch.mm(slope.T, states, out=self.part)
        if self.empty:
            self.sum.copy_(self.part)
        else:
            self.sum.add_(self.wide_part.copy_(self.part))
        self.empty = False

    def scaled(self, scale: Tensor) -> Tensor:
        """The sum times `scale` in the weights' dtype, in memory of its own."""
        if self.empty:
            return torch.zeros_like(self.part)
        return self.sum.mul_(scale).to(self.part.dtype, copy=True)


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor,
              chunk_tokens: int = CHUNK_TOKENS, z_loss: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats a token, in fp32 (fp64 for fp64 inputs), as a scalar.

    hidden [n, width] and weight [vocab, width] in one dtype, targets [n] int64, `IGNORED` where
    nothing is asked (0 when nothing is asked anywhere). Matmuls run in that dtype; memory beyond
    the gradients is O(chunk_tokens * vocab); 0 makes all scores at once. Gradients of the weight
    are summed in fp32.

    Where gradients are asked for, `z_loss` times the mean squared log of the softmax's sum is added
    (PaLM, Chowdhery et al. 2022, arXiv:2204.02311, section 5): it is trained on and not evaluated.
    """
    with_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, chunk_tokens or max(1, len(hidden)), z_loss, with_gradients)
    return loss
