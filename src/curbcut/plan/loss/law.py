"""The loss that the laws expect, in nats a token of the law's tokenizer.

One law everywhere: L = E + x / sqrt(1 + (x/S)^2), x = A/N'^alpha + B/D'^beta.

- A, alpha, B, beta, E are the additive law's (`facts.loss_laws`; Besiroglu et al. 2024 unless said
  otherwise). It is of runs of 70M to 16B parameters; over-trained runs (to 640 tokens a
  parameter) follow it too (Gadre et al. 2024, arXiv:2403.08540).
- Far below those the additive law promises more nats than guessing costs. The bend S is fitted to
  runs down to 11M parameters and 53M tokens; where x is small it is not felt. There is no second
  law to change to, so no seam. Kaplan's law of small runs is kept beside it (`kaplan_nats`).
- N' and D' are what parameters and repeated tokens are still worth where text is short
  (Muennighoff et al. 2023, arXiv:2305.16264, equation 5).
- Experts move both terms as the joint law of Ludziejewski et al. 2025 (arXiv:2502.05172) moves
  its own, held within its runs.

All is polymorphic (`physics.numbers`). Tokens are the law's; `law_tokens` turns others into them.
"""

from __future__ import annotations

import math

from curbcut.facts import loss_constants, loss_laws
from curbcut.facts.loss_laws import LossLaw
from curbcut.physics.numbers import Number, larger, log2, smaller, where
from curbcut.spec.nouns import ModelShape

PARAMETERS = (10.6e6, 16e9)
TOKENS = (53e6, 500e9)
"""Where runs stand behind the law: Hoffmann et al. 2022 (arXiv:2203.15556, abstract) upwards of 70M
parameters and 5B tokens, and below those the runs of `facts/loss_runs.csv`."""
KAPLAN_PARAMETERS, KAPLAN_TOKENS = 1.5e9, 23e9
"""Largest runs behind Kaplan's law (arXiv:2001.08361, section 3)."""
MOE_PARAMETERS = (79e6, 2.7e9)
MOE_TOKENS = (500e6, 80e9)
MOE_EXPANSION = (1.0, 32.0)
"""Runs behind the joint law (arXiv:2502.05172, appendix E): active parameters, tokens, experts."""


def law_tokens(tokens: Number, bytes_per_token: Number) -> Number:
    """Tokens of the law's tokenizer that hold the same bytes as `tokens` of another."""
    return tokens * bytes_per_token / loss_constants.value("law_bytes_per_token")


def bits_per_byte(nats: Number) -> Number:
    """Bits a byte of text, of nats a token of the law's tokenizer."""
    return nats / math.log(2) / loss_constants.value("law_bytes_per_token")


def decayed(amount: Number, unique: Number, half: float) -> Number:
    """What `amount` is worth where only `unique` of it is new: U + U R* (1 - exp(-R/R*)), with
    R = amount / U - 1 (arXiv:2305.16264, equation 5; tokens and parameters alike).
    """
    new = smaller(amount, unique)
    repeats = amount / new - 1
    return new * (1 + half * (1 - math.e ** (-repeats / half)))


def effective_tokens(tokens: Number, unique_tokens: Number | None) -> Number:
    """What `tokens` with repeats are worth in new ones."""
    if unique_tokens is None:
        return tokens
    return decayed(tokens, unique_tokens, loss_constants.value("repeat_tokens"))


def fed_parameters(parameters: Number, unique_tokens: Number | None,
                   law: LossLaw | None = None) -> Number:
    """What `parameters` are worth beside text of `unique_tokens`: those beyond the training
    optimum of that text decay (the R*_N of arXiv:2305.16264). All count where text is not short.
    """
    if unique_tokens is None:
        return parameters
    fed = optimal_parameters(unique_tokens, law)
    return decayed(parameters, fed, loss_constants.value("repeat_parameters"))


def optimal_parameters(tokens: Number, law: LossLaw | None = None) -> Number:
    """Parameters for which so many tokens are the training optimum, by the additive law:
    alpha A N^-alpha = beta B D^-beta.
    """
    law = law or loss_laws.law()
    ratio = law.alpha * law.A / (law.beta * law.B)
    return ratio ** (1 / law.alpha) * tokens ** (law.beta / law.alpha)


def expansion(shape: ModelShape) -> float:
    """Experts to choose from, for each that a token meets; 1 for a dense model. The joint law has
    experts as large as a dense feed-forward and one a token; finer ones are read by this ratio.
    """
    if not shape.experts:
        return 1.0
    met = shape.experts_per_token + shape.shared_experts
    return max(1.0, (shape.experts + shape.shared_experts) / max(1, met))


def moe_factors(parameters: Number, tokens: Number, expanded: Number) -> tuple[Number, Number]:
    """How experts move the terms of N and of D (arXiv:2502.05172, equation 6 over itself at one
    expert). Outside its runs the factor stays as it is at their edge.
    """
    return _by_parameters(parameters, expanded), _by_tokens(tokens, expanded)


def _by_parameters(parameters: Number, expanded: Number) -> Number:
    c, more = loss_constants.value, _more_experts(expanded)
    n = _within(parameters, MOE_PARAMETERS)
    return math.e ** (-c("moe_delta") * more) * n ** (c("moe_gamma") * more)


def _by_tokens(tokens: Number, expanded: Number) -> Number:
    c, more = loss_constants.value, _more_experts(expanded)
    d = _within(tokens, MOE_TOKENS)
    return math.e ** (c("moe_omega") * more) * d ** (-c("moe_zeta") * more)


def _more_experts(expanded: Number) -> Number:
    return _log_experts(_within(expanded, MOE_EXPANSION)) - _log_experts(1.0)


def _within(value: Number, bounds: tuple[float, float]) -> Number:
    return larger(bounds[0], smaller(bounds[1], value))


def _log_experts(experts: Number) -> Number:
    """ln of the transformed number of experts (Clark et al. 2022, arXiv:2202.01169; equation 4 of
    arXiv:2502.05172): 1/E' = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max.
    """
    start, most = loss_constants.value("moe_e_start"), loss_constants.value("moe_e_max")
    inner = experts - 1 + 1 / (1 / start - 1 / most)
    return log2(1 / (1 / inner + 1 / most)) * math.log(2)


def terms(parameters: Number, tokens: Number, *, unique_tokens: Number | None = None,
          worth: Number = 1.0, expanded: Number = 1.0,
          law: LossLaw | None = None) -> tuple[Number, Number]:
    """A/N'^alpha and B/D'^beta. `parameters` are active ones, with embeddings; `worth` is what a
    token teaches in tokens of the law's text, learned as its runs learned.
    """
    return (of_parameters(parameters, unique_tokens, expanded, law),
            of_tokens(tokens, unique_tokens, worth, expanded, law))


def of_parameters(parameters: Number, unique_tokens: Number | None = None,
                  expanded: Number = 1.0, law: LossLaw | None = None) -> Number:
    """The first of `terms`, in which no trained tokens are: of many rows, once a shape."""
    law = law or loss_laws.law()
    used = fed_parameters(parameters, unique_tokens, law)
    return _by_parameters(used, expanded) * law.A / used ** law.alpha


def of_tokens(tokens: Number, unique_tokens: Number | None = None, worth: Number = 1.0,
              expanded: Number = 1.0, law: LossLaw | None = None) -> Number:
    """The second of `terms`."""
    law = law or loss_laws.law()
    learned = worth * effective_tokens(tokens, unique_tokens)
    return _by_tokens(learned, expanded) * law.B / learned ** law.beta


def bent(excess: Number) -> Number:
    """The additive law's reducible loss as small runs show it."""
    return excess / (1 + (excess / loss_constants.value("bend")) ** 2) ** 0.5


def unbent(reducible: Number) -> Number:
    """The inverse of `bent`; infinite at the bend and beyond."""
    cap = loss_constants.value("bend")
    room = larger(1 - (reducible / cap) ** 2, 0.0)
    return where(room > 0, reducible / larger(room, 1e-300) ** 0.5, math.inf)


def nats(parameters: Number, tokens: Number, *, unique_tokens: Number | None = None,
         worth: Number = 1.0, expanded: Number = 1.0, law: LossLaw | None = None) -> Number:
    """Expected loss, nats a token of the law (see `terms` for the arguments)."""
    law = law or loss_laws.law()
    capacity, data = terms(parameters, tokens, unique_tokens=unique_tokens, worth=worth,
                           expanded=expanded, law=law)
    return law.E + bent(capacity + data)


def additive_nats(parameters: Number, tokens: Number,
                  name: str = loss_laws.DEFAULT) -> Number:
    """E + A/N^alpha + B/D^beta of the law `name` as published, nats a token of that law."""
    law = loss_laws.law(name)
    return law.E + law.A / parameters ** law.alpha + law.B / tokens ** law.beta


def kaplan_nats(inner_parameters: Number, tokens: Number) -> Number:
    """((Nc/N)^(aN/aD) + Dc/D)^aD, N without embeddings, nats a token of GPT-2's tokenizer (Kaplan
    et al. 2020, arXiv:2001.08361, table 2). It has no floor: for small runs that converged.
    """
    c = loss_constants.value
    alpha_d = c("kaplan_alpha_d")
    capacity = (c("kaplan_n") / inner_parameters) ** (c("kaplan_alpha_n") / alpha_d)
    return (capacity + c("kaplan_d") / tokens) ** alpha_d


def kaplan_bits_per_byte(inner_parameters: Number, tokens: Number) -> Number:
    """`kaplan_nats` a byte of text, for `tokens` of the other laws' tokenizer."""
    own = loss_constants.value("kaplan_bytes_per_token")
    theirs = tokens * loss_constants.value("law_bytes_per_token") / own
    return kaplan_nats(inner_parameters, theirs) / math.log(2) / own


def outside(parameters: float, tokens: float) -> float:
    """How far outside the law's runs, in e-folds of parameters and tokens (their root sum of
    squares).
    """
    return math.hypot(_e_folds(parameters, PARAMETERS), _e_folds(tokens, TOKENS))


def outside_experts(parameters: float, tokens: float, expanded: float) -> float:
    """How far outside the runs of the joint law of experts, in e-folds; 0 for a dense model."""
    if expanded == 1:
        return 0.0
    return math.hypot(*(_e_folds(value, bounds) for value, bounds in (
        (parameters, MOE_PARAMETERS), (tokens, MOE_TOKENS), (expanded, MOE_EXPANSION))))


def _e_folds(value: float, bounds: tuple[float, float]) -> float:
    """How far outside `bounds` a value lies, in natural log; 0 inside."""
    return max(0.0, math.log(bounds[0] / value), math.log(value / bounds[1]))
