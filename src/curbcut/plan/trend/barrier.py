"""Who can train what: the largest training-optimal model that a budget pays for.

A budget of today is read off the ladder of sizes. What another year's budget buys is today's ladder
at the budget times the trend of rents: beyond the years of the prices that is extrapolated, and
says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from curbcut.errors import InputError
from curbcut.facts import accelerators, epoch
from curbcut.plan import loss, rules
from curbcut.plan.trend.ladder import LONGEST_SECONDS, Ladder, Rung, known, usd_per_second
from curbcut.plan.trend.line import Line
from curbcut.spec.estimate import Estimate, given, unknown

BUDGETS_USD = tuple(10.0 ** power for power in range(2, 10))
RULE_OF_THUMB = 120.0
"""C = 120 P^2: 6 FLOPs a parameter and token, 20 tokens a parameter (arXiv:2404.08811)."""


@dataclass(frozen=True)
class Reach:
    """What one budget buys in one year."""

    budget_usd: float
    year: float
    parameters: Estimate
    """Of the largest training-optimal model; not known where nothing of the ladder is paid for."""
    rung: Rung | None
    """The largest rung that today's machines do for what the budget is worth today."""
    rule_of_thumb: float | None
    """Parameters by C = 120 P^2 on the same machine, at Epoch's median utilisation."""
    bits_per_byte: Estimate
    """Expected of that size and its tokens, on text like the laws'."""
    as_good_as: Estimate
    """Size of today's model of the same arithmetic need: algorithms of that year counted too."""
    basis: str
    """ "today's prices", "trend of rents" or "extrapolated"."""
    seconds: float | None = None
    """That it takes on the rung's machine."""
    time_binds: bool = False
    """Whether nothing larger is done in time, whatever the budget."""


def reach(found: Ladder, budget_usd: float, year: float, rent: Line | None,
          algorithms: Estimate) -> Reach:
    """What a budget buys in a year; `rent` is the line of rented arithmetic a dollar, and
    `algorithms` how many times less arithmetic a capability takes in that year than today.
    """
    away = year - found.year
    worth, basis = _worth(found, rent, year)
    today = budget_usd * known(worth)
    middle, rung = found.size(today), found.rung(today)
    if middle is None or rung is None:
        nothing = unknown(_too_little(found), "modelled")
        return Reach(budget_usd, year, nothing, None, None, nothing, nothing, basis)
    # The interval of a budget's worth is that of the rung's cost and of the trend together.
    cost = rung.usd.times(worth) if away else rung.usd
    parameters = _between(found, today, middle, cost, basis)
    expected = loss.expected(rung.shape, rules.TOKENS_PER_PARAMETER * middle)
    time_binds = rung is found.rungs[-1] and today > known(rung.usd)
    # Between two rungs the lower one's machine runs for as long as the money lasts.
    longer = 1.0 if time_binds else today / known(rung.usd)
    return Reach(budget_usd, year, parameters, rung, _thumb(rung, today), expected.bits_per_byte,
                 _as_good(parameters, algorithms), basis,
                 min(LONGEST_SECONDS, longer * known(rung.seconds)), time_binds)


def _worth(found: Ladder, rent: Line | None, year: float) -> tuple[Estimate, str]:
    """What a dollar of that year buys beside one of today's, and how that is known."""
    if year == found.year:
        return given(1.0, "today's prices"), "today's prices"
    if rent is None:
        raise InputError(f"there is no trend to go to {year:g} by", where="--year",
                         mend="leave the year out, or add rents of several years to the facts")
    basis = "extrapolated" if rent.extrapolates(year) else "trend of rents"
    return rent.factor(found.year, year), basis


def _between(found: Ladder, today: float, middle: float, cost: Estimate, basis: str) -> Estimate:
    """The size with the interval that the cost's own interval gives it."""
    value, low, high = known(cost), cost.low, cost.high
    assert low is not None and high is not None
    least, most = (found.size(today * value / end) for end in (high, low))
    # Below the ladder size goes on as the square root of cost, as C = 120 P^2 has it.
    return Estimate(middle, min(middle, least or middle * math.sqrt(value / high)),
                    max(middle, most or middle), "modelled", f"{basis}; {cost.source}")


def _as_good(parameters: Estimate, algorithms: Estimate) -> Estimate:
    """Arithmetic grows with the square of the size: a factor in one is its root in the other."""
    value, low, high = (math.sqrt(each) for each in (
        known(algorithms), algorithms.low or 0.0, algorithms.high or 0.0))
    return parameters.times(Estimate(value, low, high, "modelled", algorithms.source))


def _thumb(rung: Rung, usd: float) -> float:
    """Parameters by C = 120 P^2 at the rung's machine's rent."""
    rate = known(usd_per_second(rung.machine))
    peak = accelerators.accelerator(rung.machine.accelerator).peak_flops
    flops = usd / rate * max(peak.get("bf16", 0.0), peak.get("fp16", 0.0))
    return math.sqrt(flops * epoch.constant("utilisation").value / RULE_OF_THUMB)


def _too_little(found: Ladder) -> str:
    least = found.rungs[0]
    return (f"less than the smallest shape priced costs: {least.shape.parameters:.3g} parameters "
            f"for ${known(least.usd):.2g}")
