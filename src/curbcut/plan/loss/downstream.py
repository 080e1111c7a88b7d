"""Benchmarks that a loss goes with: published fits alone, each with the law that it was chained to.

Error = epsilon - k exp(-gamma L), averaged over 17 tasks (Gadre et al. 2024, arXiv:2403.08540,
equation 5); L is of the law fitted to the same runs, not of ours: the two belong together. Single
tasks are too noisy to be promised (their table 2 has errors of up to 96%).
"""

from __future__ import annotations

import math

from curbcut.facts import downstream, loss_laws
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate

PARAMETERS = (10.6e6, 6.9e9)
TOKENS = (211e6, 900e9)
"""Runs that the fits were made on or held against."""
SPREAD_PER_E_FOLD = 0.05
"""Growth of the interval (in log) for each factor e outside those runs."""


def top1_error(parameters: Number, tokens: Number, name: str = downstream.DEFAULT) -> Number:
    """Mean top-1 error over the tasks of proxy `name`, of a model of so many parameters (with
    embeddings) after so many tokens. Raises UnknownName with the nearest names.
    """
    proxy = downstream.proxy(name)
    law = loss_laws.law(proxy.law)
    nats = law.E + law.A / parameters ** law.alpha + law.B / tokens ** law.beta
    return proxy.epsilon - proxy.k * math.e ** (-proxy.gamma * nats)


def accuracy(parameters: float, tokens: float, name: str = downstream.DEFAULT) -> Estimate:
    """Mean top-1 accuracy over those tasks, with the interval of the fit's own checks, wider
    outside its runs.
    """
    proxy = downstream.proxy(name)
    error = float(top1_error(parameters, tokens, name))
    beyond = math.hypot(*(max(0.0, math.log(low / value), math.log(value / high))
                          for value, (low, high) in ((parameters, PARAMETERS), (tokens, TOKENS))))
    wider = math.exp(SPREAD_PER_E_FOLD * beyond)
    worst, best = (min(1.0, error * proxy.error_high * wider), error * proxy.error_low / wider)
    said = f"{proxy.name}: {proxy.source}" + (", outside its runs: widened" if beyond else "")
    return Estimate(1 - error, 1 - worst, 1 - best, "modelled", said)
