"""C = C0 P T and C = 120 P^2 / K: the rule of thumb that stands beside a real count.

The framework of Faraboschi et al. 2024 (arXiv:2404.08811): C0 about 6, T = 20 P tokens. For experts
K is read as total over active parameters, with tokens by the total: 6 P_active 20 P = 120 P^2 / K.
None of that paper's tables is reproduced here; the table below is our own.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from curbcut.errors import InputError
from curbcut.facts import accelerators, constants, prices
from curbcut.spec.nouns import ModelShape

C0 = 6.0
"""FLOPs a parameter and token of training."""
TOKENS_PER_PARAMETER = 20.0
BYTES_PER_PARAMETER = 16.0
"""Mixed-precision training state: weights, gradients, masters and two moments."""
SIZES = (1e9, 7e9, 70e9, 175e9, 1e12)
MANY = 1024
"""Accelerators that a row's days are of."""


@dataclass(frozen=True)
class Rule:
    """What the rule says of one size."""

    parameters: float
    active_parameters: float
    tokens: float
    """T = 20 P."""
    flops: float
    """120 P^2 / K."""
    flops_at_tokens: float
    """C0 P_active T at the tokens asked for; `flops` where none were."""

    @property
    def sparsity(self) -> float:
        """K: total over active parameters; 1 for a dense model."""
        return self.parameters / self.active_parameters


def rule(parameters: float, active_parameters: float | None = None,
         tokens: float | None = None) -> Rule:
    """The rule for a model of so many parameters, and at `tokens` where they are said."""
    active = active_parameters or parameters
    usual = TOKENS_PER_PARAMETER * parameters
    k = parameters / active
    flops = C0 * TOKENS_PER_PARAMETER * parameters ** 2 / k
    return Rule(parameters, active, usual, flops,
                flops if tokens is None else C0 * active * tokens)


def of_shape(shape: ModelShape, tokens: float | None = None) -> Rule:
    """The rule for a shape: all of its parameters, and those that a token meets."""
    return rule(float(shape.parameters), float(shape.active_parameters), tokens)


@dataclass(frozen=True)
class Supply:
    """What computes, in the few figures that the rule needs."""

    name: str
    flops_per_second: float
    """Peak of one accelerator."""
    utilisation: float
    """Model FLOPs over peak."""
    usd_per_hour: float | None
    """None where no rent is known."""
    kilowatts: float
    """One accelerator with its share of server and building, at work."""


def supply(name: str = "H100-SXM-80GB") -> Supply:
    """An accelerator of the facts: its dense bf16 peak (else 16-bit, else fp32), the median
    utilisation of public runs, the median of on-demand rents, and TDP x server x share drawn x PUE
    of a data centre. Raises UnknownName for the accelerator, InputError where its peak or power is
    not known.
    """
    found = accelerators.accelerator(name)
    peak = next((found.peak_flops[one] for one in ("bf16", "fp16", "fp32")
                 if one in found.peak_flops), None)
    if peak is None or found.tdp_watts is None:
        raise InputError(f"the peak or the power of {found.id} is not known", where="accelerator",
                         mend="take another, like H100-SXM-80GB")
    family = next((one for one in ("h100", "a100") if found.id.casefold().startswith(one)), "gpu")
    rents = [price.usd_per_hour for price in prices.rents(found.id, "on-demand")]
    watts = found.tdp_watts
    for part in (f"server_power_ratio_{family}", "power_fraction_training", "pue_data_centre"):
        watts *= constants.constant(part).value
    return Supply(found.id, peak, constants.constant(f"mfu_{family}").value,
                  statistics.median(rents) if rents else None, watts / 1000)


@dataclass(frozen=True)
class Line:
    """One row of the table: a size by the rule on a supply."""

    rule: Rule
    accelerator_hours: float
    usd: float | None
    mwh: float
    training_bytes: float
    """16 bytes a parameter."""
    days_on_many: float
    """On 1,024 accelerators."""


def table(by: Supply, sizes: Sequence[float] = SIZES) -> list[Line]:
    """What each size takes by the rule: a map of orders of magnitude, no plan of any run."""
    found = []
    for size in sizes:
        said = rule(size)
        hours = said.flops / (by.flops_per_second * by.utilisation) / 3600
        dollars = None if by.usd_per_hour is None else hours * by.usd_per_hour
        found.append(Line(said, hours, dollars, hours * by.kilowatts / 1000,
                          BYTES_PER_PARAMETER * size, hours / MANY / 24))
    return found
