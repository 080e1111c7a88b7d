"""The head's loss where each tensor-parallel rank holds some rows of the vocabulary.

No rank ever has a token's whole row of scores. Each gives the log of the sum of its own scores'
exponentials, and the target's score where it holds it: two numbers a token are gathered, and every
rank makes the same loss of them (Megatron-LM, arXiv:1909.08053, section 3, has three reductions
instead).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curbcut.model.loss import CHUNK_TOKENS, IGNORED
from curbcut.train.parallel.collectives import gathered


class _VocabularyLoss(torch.autograd.Function):
    """See `vocabulary_loss`. Gradients are made on the way forward and scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, first: int, group: str,
                ranks: int, z_loss: float, chunk: int, with_gradients: bool) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        counted = targets != IGNORED
        scale = 1.0 / counted.sum().clamp(min=1).to(wide)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if with_gradients else None
        sums = torch.zeros_like(weight, dtype=wide) if with_gradients else None
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            states, keep = hidden[part], counted[part]
            scores = torch.mm(states, weight.T).to(wide)
            local = targets[part] - first
            here = keep & (local >= 0) & (local < weight.shape[0])
            row = local.where(here, 0).unsqueeze(1)
            total, target = _agreed(scores, row, here, group, ranks)
            squares = z_loss * total.square() if with_gradients else 0.0
            loss += ((total - target + squares) * keep).sum()
            if grad_hidden is None or sums is None:
                continue
            slope = scores.sub_(total.unsqueeze(1)).exp_()
            if z_loss:
                slope *= (1 + 2 * z_loss * total).unsqueeze(1)
            slope.scatter_add_(1, row, -here.to(wide).unsqueeze(1))
            slope *= keep.unsqueeze(1)
            narrow = slope.to(hidden.dtype)
            torch.mm(narrow, weight, out=grad_hidden[part])
            sums += torch.mm(narrow.T, states)
        if grad_hidden is not None and sums is not None:
            ctx.save_for_backward(grad_hidden, sums.mul_(scale).to(weight.dtype), scale)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, scale = ctx.saved_tensors
        outer = grads[0]
        return ((grad_hidden * (outer * scale)).to(grad_hidden.dtype),
                (grad_weight * outer).to(grad_weight.dtype), *(None,) * 7)


def _agreed(scores: Tensor, row: Tensor, here: Tensor, group: str,
            ranks: int) -> tuple[Tensor, Tensor]:
    """Log of the sum of exponentials over the whole vocabulary, and the target's score, each [n].

    scores [n, rows of this rank]; `row` [n, 1] is the target's where it is `here`.
    """
    own = torch.stack((scores.logsumexp(1), scores.gather(1, row).squeeze(1) * here))
    both = gathered(own.unsqueeze(0), group, ranks)
    return both[:, 0].logsumexp(0), both[:, 1].sum(0)


def vocabulary_loss(hidden: Tensor, weight: Tensor, targets: Tensor, first: int, group: str,
                    ranks: int, z_loss: float = 0.0, chunk_tokens: int = CHUNK_TOKENS) -> Tensor:
    """Mean cross-entropy in nats a token over the vocabulary of all ranks, an fp32 scalar.

    hidden [n, width], the same on each of `ranks`; weight [rows, width]: this rank's rows, the
    vocabulary's from `first` on; targets [n] int64, `IGNORED` where nothing is asked. `z_loss`
    times the squared log of the softmax's sum is added (PaLM, arXiv:2204.02311) where gradients are
    asked for. The gradient of hidden is this rank's part: the ranks' sum is the whole. Memory
    beyond the gradients is O(chunk_tokens * rows), 0 for all tokens at once; the weight's gradient
    is summed in fp32.
    """
    with_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _VocabularyLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, first, group, ranks, z_loss,
        chunk_tokens or max(1, len(hidden)), with_gradients)
    return loss
