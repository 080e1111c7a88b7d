"""The best size and tokens by the loss law: for training alone, over-trained, and for a life.

The bend of small runs (`loss.law.bent`) rises with the additive law's reducible loss, so the optima
of the additive law are those of the bent one: closed forms (Hoffmann et al. 2022, arXiv:2203.15556,
equation 4), tests hold them to numeric minima. FLOPs are 6 N D of training and 2 N D of serving;
what a machine really takes is handed in as prices a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from curbcut.errors import InputError
from curbcut.facts import loss_laws
from curbcut.facts.loss_laws import LossLaw
from curbcut.physics.numbers import Number, larger, where
from curbcut.plan.loss import law as laws

TRAINING_FLOPS = 6.0
SERVING_FLOPS = 2.0
"""FLOPs a parameter and token (Sardana et al. 2024, arXiv:2401.00448, section 2)."""
MOST_OVER = 1e4
"""Largest ratio of the training-optimal size to one that the search for a life looks at."""
STEPS = 80
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Optimum:
    """A size with its tokens (of the law's text) and expected nats; each may be an array."""

    parameters: Number
    tokens: Number
    nats: Number

    @property
    def flops(self) -> Number:
        """Of training, 6 N D."""
        return TRAINING_FLOPS * self.parameters * self.tokens

    @property
    def tokens_per_parameter(self) -> Number:
        """D over N: at Chinchilla's compute 18 by Besiroglu's law and 20 by Muennighoff's; 59 by
        the law that Hoffmann et al. printed, which Besiroglu et al. correct."""
        return self.tokens / self.parameters


def by_compute(flops: Number, law: LossLaw | None = None,
               flops_per: float = TRAINING_FLOPS) -> Optimum:
    """The lowest loss for so many training FLOPs: N = G (C/6)^(beta/(alpha+beta)), D = C/6N,
    G = (alpha A / beta B)^(1/(alpha+beta)).
    """
    law = law or loss_laws.law()
    balance = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    parameters = balance * (flops / flops_per) ** (law.beta / (law.alpha + law.beta))
    tokens = flops / flops_per / parameters
    return Optimum(parameters, tokens, laws.nats(parameters, tokens, law=law))


def by_loss(nats: Number, law: LossLaw | None = None) -> Optimum:
    """The least training FLOPs for a loss: at the optimum the term of N has the share
    beta/(alpha+beta) of the reducible loss. Raises InputError at or below the law's floor.
    """
    law = law or loss_laws.law()
    excess = _excess(nats, law)
    shares = law.alpha + law.beta
    parameters = (law.A * shares / (law.beta * excess)) ** (1 / law.alpha)
    tokens = (law.B * shares / (law.alpha * excess)) ** (1 / law.beta)
    return Optimum(parameters, tokens, laws.nats(parameters, tokens, law=law))


def _excess(nats: Number, law: LossLaw) -> Number:
    """The additive law's reducible loss behind `nats`; checked where it is one number."""
    cap = law.E + laws.bent(1e30)
    if isinstance(nats, (int, float)) and not law.E < nats < cap:
        raise InputError(f"no size reaches a loss of {nats:.3f} nats a token",
                         where="target loss", mend=f"ask for between {law.E:.3f} (the floor of "
                         f"{law.name}) and {cap:.2f}")
    return laws.unbent(nats - law.E)


def tokens_for(parameters: Number, nats: Number, law: LossLaw | None = None) -> Number:
    """Tokens with which a model of `parameters` reaches a loss; infinite where it never does."""
    law = law or loss_laws.law()
    left = _excess(nats, law) - law.A / parameters ** law.alpha
    return where(left > 0, (law.B / larger(left, 1e-30)) ** (1 / law.beta), math.inf)


@dataclass(frozen=True)
class Frontier:
    """Models of `share` times the training-optimal size, each at one and the same loss and at one
    and the same compute; each may be an array.
    """

    share: Number
    same_loss: Optimum
    compute: Number
    """Training FLOPs at the same loss, over those of the optimum (1 at a share of 1)."""
    same_compute: Optimum
    excess: Number
    """Loss at the same compute, over that of the optimum."""


def over_trained(flops: float, share: Number, law: LossLaw | None = None) -> Frontier:
    """What a size k = N/N_opt other than the training optimum of `flops` costs: over-trained below
    1, where serving is cheaper by k.
    """
    law = law or loss_laws.law()
    best = by_compute(flops, law)
    parameters = share * best.parameters
    tokens = tokens_for(parameters, best.nats, law)
    reached = Optimum(parameters, tokens, best.nats)
    fewer = best.tokens / share
    spent = Optimum(parameters, fewer, laws.nats(parameters, fewer, law=law))
    return Frontier(share, reached, reached.flops / best.flops, spent, spent.nats / best.nats)


@dataclass(frozen=True)
class Life:
    """The size that is cheapest over training and serving at one loss."""

    optimum: Optimum
    training: float
    """Cost of training, in the unit of the prices (FLOPs where none were handed in)."""
    serving: float
    beside: Optimum
    """The training optimum of the same loss."""
    beside_cost: float
    """What that one costs over the same life."""

    @property
    def cost(self) -> float:
        """Of the whole life."""
        return self.training + self.serving


Price = Callable[[float], float]
"""Cost of one token as a function of the model's parameters."""


def for_life(nats: float, served_tokens: float, law: LossLaw | None = None, *,
             train: Price | None = None, serve: Price | None = None) -> Life:
    """The cheapest size that reaches `nats` and then serves `served_tokens`: the least of
    train(N) D(N) + serve(N) served (Sardana et al. 2024, arXiv:2401.00448, equation 3; their form
    in FLOPs, 6 N and 2 N a token, is the default).

    `train` and `serve` give what one token costs a model of N parameters, in one unit: money by a
    machine's own speed, kWh, seconds. Prices should not fall with N. Raises InputError for a loss
    out of reach or a negative amount.
    """
    law = law or loss_laws.law()
    if not 0 <= served_tokens < math.inf:
        raise InputError(f"{served_tokens:g} served tokens are none", where="served tokens",
                         mend="give 0 or more")
    train, serve = train or _training_flops, serve or _serving_flops
    start = by_loss(nats, law)

    def costs(parameters: float) -> tuple[float, float]:
        return (train(parameters) * float(tokens_for(parameters, nats, law)),
                serve(parameters) * served_tokens)

    smallest = (law.A / float(_excess(nats, law))) ** (1 / law.alpha)
    low = math.log(max(smallest * (1 + 1e-9), float(start.parameters) / MOST_OVER))
    size = _least(lambda log_size: sum(costs(math.exp(log_size))), low,
                  math.log(float(start.parameters) * 10))
    training, serving = costs(size)
    return Life(Optimum(size, tokens_for(size, nats, law), nats), training, serving, start,
                sum(costs(float(start.parameters))))


def _training_flops(parameters: float) -> float:
    return TRAINING_FLOPS * parameters


def _serving_flops(parameters: float) -> float:
    return SERVING_FLOPS * parameters


def _least(cost: Callable[[float], float], low: float, high: float) -> float:
    """exp of the place of the least cost between two logs, by golden section; one valley."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = cost(right)
    return math.exp((low + high) / 2)
