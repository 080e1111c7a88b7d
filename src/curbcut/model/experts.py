"""A sparse feed-forward: a router sends each token to a few of many experts.

Vocabulary of the shapes: n tokens, E experts, k of them a token, m = n * k rows sent. No token is
ever dropped: experts take as many rows as come (Gale et al. 2022, arXiv:2211.15841). Names are
those of Qwen3-MoE, except that the matrices of all experts of a layer are one tensor [E, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curbcut.model.feed_forward import FeedForward
from curbcut.model.grouped import fused, grouped_linear, mix, spread
from curbcut.spec.nouns import ModelShape


@dataclass(frozen=True)
class Route:
    """Where n tokens go."""

    experts: Tensor
    """[n, k], best first."""
    weights: Tensor
    """[n, k] in fp32, 1 in sum for each token."""
    probabilities: Tensor
    """[n, E] in fp32: the router's softmax."""
    counts: Tensor
    """Tokens of each expert, [E] int64."""


class _Scores(torch.autograd.Function):
    """x [n, width] and weight [E, width] in any dtype -> scores [n, E] in fp32 (fp64 for fp64).

    Keeps x as it came: autograd would keep its fp32 copy, 4 bytes an element of each token.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(wide), weight.to(wide))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        return ((grad @ weight.to(grad.dtype)).to(x.dtype),
                (grad.T @ x.to(grad.dtype)).to(weight.dtype))


class Router(nn.Module):
    """Softmax over all experts, then the k best, their weights scaled to 1 in sum (Qwen3-MoE with
    `norm_topk_prob`, Mixtral). Always in fp32, whatever the compute dtype: a tie broken by
    rounding sends a token elsewhere.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape.experts, shape.width))
        self.count, self.top = shape.experts, shape.experts_per_token
        self.balance = 0.0
        """Weight of the balance loss in the gradient of one micro-batch; 0 for none."""
        self.together: Callable[[Tensor], Tensor] | None = None
        """Sums counts over ranks that hold other parts of the same sequences."""
        self.load: Tensor | None = None
        """Tokens of each expert since `loads` was asked, [E] int64."""

    def forward(self, x: Tensor) -> Route:
        """x [n, width] -> the route of each token."""
        scores: Tensor = _Scores.apply(x, self.weight)  # type: ignore[no-untyped-call]
        probabilities = scores.softmax(-1)
        weights, experts = probabilities.topk(self.top, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        with torch.no_grad():
            places = experts.flatten()
            counts = places.new_zeros(self.count).scatter_add_(0, places,
                                                               torch.ones_like(places))
            self.load = counts if self.load is None else self.load + counts
        return Route(experts, weights, probabilities, counts)

    def balanced(self, out: Tensor, route: Route) -> Tensor:
        """`out` as it is, with the balance loss's gradient attached: see `_Balanced`.

        The loss is E * sum over experts of f P, for each layer of experts: f the tokens sent to
        an expert over all tokens (k in sum), P the router's mean probability of it (Switch
        Transformer, arXiv:2101.03961, equations 4 to 6; for k > 1 as in Qwen3-MoE). It is k when
        all experts get alike.
        """
        if not self.balance or not torch.is_grad_enabled() or not len(route.experts):
            return out
        counts = route.counts if self.together is None else self.together(route.counts)
        often = counts.to(route.probabilities.dtype) * (self.top / counts.sum())
        slope = often * (self.balance * len(counts) / len(route.experts))
        attached: Tensor = _Balanced.apply(  # type: ignore[no-untyped-call]
            out, route.probabilities, slope)
        return attached


class _Balanced(torch.autograd.Function):
    """Hands `out` through; on the way back adds `slope` [E] to the gradient of each token's
    probabilities. So no loss has to travel to the head: the gradient is right under recompute,
    on a pipeline's stage, and with micro-batches added up.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, probabilities: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.tokens = probabilities.shape[0]
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grads[0], slope.expand(ctx.tokens, -1), None


class Experts(nn.Module):
    """All experts of a layer, each a gated feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        inner, width = shape.expert_ffn, shape.width
        self.gate_proj = nn.Parameter(torch.empty(shape.experts, inner, width))
        self.up_proj = nn.Parameter(torch.empty(shape.experts, inner, width))
        self.down_proj = nn.Parameter(torch.empty(shape.experts, width, inner))
        self.own: Callable[[Tensor], Tensor] = _same
        """The plain tensor of the experts on this rank from a parameter."""

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """rows [m, width] sorted by expert, counts [experts here] int64 -> [m, width]."""
        gate, up, down = (self.own(one) for one in (self.gate_proj, self.up_proj, self.down_proj))
        sizes = None if fused(rows, gate) else counts.tolist()
        inner = F.silu(grouped_linear(rows, gate, counts, sizes))
        inner = inner * grouped_linear(rows, up, counts, sizes)
        return grouped_linear(inner, down, counts, sizes)


def _same(weight: Tensor) -> Tensor:
    return weight


Meet = Callable[[Experts, Tensor, Tensor], Tensor]
"""Rows [m, width] sorted by expert and counts [E] -> what the experts make of them, in order."""


def meet_here(experts: Experts, rows: Tensor, counts: Tensor) -> Tensor:
    """Rows meet experts that are all here."""
    return experts(rows, counts)  # type: ignore[no-any-return]


class SparseFeedForward(nn.Module):
    """Routed experts, and shared ones that see each token: the sum of both."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        _keep_out_of_graphs()
        self.gate = Router(shape)
        self.experts = Experts(shape)
        self.shared_experts = (FeedForward(shape.width, shape.shared_experts * shape.expert_ffn)
                               if shape.shared_experts else None)
        self.meet: Meet = meet_here

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] -> [..., width]."""
        flat = x.flatten(0, -2)
        out: Tensor = self.routed(flat)
        if self.shared_experts is not None:
            out = out + self.shared_experts(flat)
        return out.view(x.shape)

    def routed(self, x: Tensor) -> Tensor:
        """x [n, width] -> the weighted sum of its experts' outputs [n, width]."""
        route: Route = self.gate(x)
        with torch.no_grad():
            order = route.experts.flatten().argsort(stable=True)
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(len(order), device=order.device)
        rows = self.meet(self.experts, spread(x, order, inverse), route.counts)
        return self.gate.balanced(mix(rows, route.weights, order, inverse), route)


@cache
def _keep_out_of_graphs() -> None:
    """Sizes are data: a compiled graph would be made anew for those of each step. Only models with
    experts say so, since this alone takes a second, as it imports the whole compiler.
    """
    outside = torch.compiler.disable(SparseFeedForward.routed)  # type: ignore[no-untyped-call]
    SparseFeedForward.routed = outside  # type: ignore[method-assign]


def sparse(model: nn.Module) -> Iterator[tuple[str, SparseFeedForward]]:
    """Each sparse feed-forward of a model with its name, first layer first."""
    for name, module in model.named_modules():
        if isinstance(module, SparseFeedForward):
            yield name, module


def loads(model: nn.Module, *, forget: bool = True) -> dict[str, list[int]]:
    """Tokens that each expert got on this rank since this was last asked, by layer's name.

    What is recomputed counts twice: only shares of a layer's sum mean something.
    """
    found: dict[str, list[int]] = {}
    for name, module in sparse(model):
        if module.gate.load is not None:
            found[name] = module.gate.load.tolist()
        if forget:
            module.gate.load = None
    return found


def busiest(loads: dict[str, list[int]]) -> float | None:
    """How many times its even share the busiest expert of any layer got: 1 when all are alike,
    E / k at worst. None where nothing was counted.
    """
    found = [max(one) * len(one) / sum(one) for one in loads.values() if sum(one)]
    return max(found) if found else None
