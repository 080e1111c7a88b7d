"""What a budget run backwards is asked: limits, text, traffic, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from curbcut import units
from curbcut.errors import InputError, UnknownName
from curbcut.plan import rules
from curbcut.plan.calibration import Pair
from curbcut.plan.loss.text import GENERAL
from curbcut.spec.estimate import Estimate, given
from curbcut.spec.nouns import Limits, ServeJob

PATIENCE_SECONDS = 30 * 86400.0
"""Time that a run may take where nobody says: without any, one accelerator for years is cheapest.
An assumption, said as one."""
MOST_EPOCHS = 16.0
"""Passes over the text at most: up to there repeats follow the law closely, beyond they teach
little (Muennighoff et al. 2023, arXiv:2305.16264, section 5)."""
COSTS = ("usd", "kwh", "kgco2e", "seconds")
"""What is spent, in the order of every array of costs."""
NAMES: Mapping[str, str] = {"usd": "money", "kwh": "energy", "kgco2e": "carbon",
                            "seconds": "time", "data": "data", "memory": "memory", "law": "law",
                            "loss": "target loss"}
"""What binds, by a person's words."""
SECONDS_A: Mapping[str, float] = {
    "second": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "h": 3600.0,
    "day": 86400.0, "d": 86400.0, "week": 7 * 86400.0, "month": 365.25 * 86400 / 12,
    "year": 365.25 * 86400.0}
"""Seconds of what traffic is counted over."""
MONTHS = 12.0
"""Months that a model is served where nobody says."""


@dataclass(frozen=True)
class Traffic:
    """Tokens answered a second, on average, for so many months, as `job` serves them."""

    tokens_per_second: float
    job: ServeJob

    @property
    def seconds(self) -> float:
        """How long the model is served."""
        return self.job.months * SECONDS_A["month"]

    @property
    def tokens(self) -> float:
        """Answered over the model's life."""
        return self.tokens_per_second * self.seconds


@dataclass(frozen=True)
class Question:
    """What may be spent on one run, in dollars, kWh, kg and seconds; what is wanted of it."""

    limits: Mapping[str, float]
    """By `COSTS`, those that are limited: what was said, over the project's multiplier."""
    loss: float | None = None
    """Bits a byte that are wanted for the least life-cycle money."""
    text_bytes: float = 0.0
    """Different text at hand; 0 for no end of it."""
    token_worth: float = 1.0
    text: str = GENERAL
    """What the loss is of (`plan.loss.meant`)."""
    traffic: Traffic | None = None
    assumed: frozenset[str] = frozenset()
    """Limits that nobody stated."""
    multiplier: Estimate = field(default_factory=lambda: given(1.0, "the budget is this run's"))
    """Of the project over this run; 1 where the budget is for the run alone."""
    pairs: tuple[Pair, ...] = ()
    """Measured runs of the ledger, from which the law of the text learns."""

    def planned(self, name: str) -> float:
        """What a plan may use of a limit: forecasts err (`rules.LIMIT_MARGIN`)."""
        return rules.LIMIT_MARGIN * self.limits.get(name, float("inf"))


def of_limits(limits: Limits, *, loss: float | None = None, text_bytes: float = 0.0,
              token_worth: float = 1.0, text: str = GENERAL, traffic: Traffic | None = None,
              multiplier: Estimate | None = None, pairs: tuple[Pair, ...] = ()) -> Question:
    """The question of a run's limits. Raises InputError where nothing bounds the run."""
    from curbcut.accounts.money import to_usd

    multiplier = multiplier or given(1.0, "the budget is this run's")
    assert multiplier.value is not None
    said = {"usd": to_usd(limits.money) if limits.money else None, "kwh": limits.kwh,
            "kgco2e": limits.kgco2e, "seconds": limits.seconds}
    bounded = {name: value / (1.0 if name == "seconds" else multiplier.value)
               for name, value in said.items() if value is not None}
    if not bounded and loss is None:
        raise InputError("nothing says what may be spent", where="limits", mend=(
            'give a budget, like --budget "500 EUR", --energy, --carbon or --hours; '
            "a target, like --loss 0.9; or --search, to compare the recipes of one model"))
    assumed = frozenset() if "seconds" in bounded else frozenset({"seconds"})
    bounded.setdefault("seconds", PATIENCE_SECONDS)
    return Question(bounded, loss, text_bytes, token_worth, text, traffic, assumed, multiplier,
                    pairs)


def parse_traffic(text: str, job: ServeJob, where: str = "--serve") -> Traffic:
    """Reads "2e9tok/month", "500 tok/s", "3M tokens/day". Raises InputError, UnknownName.

    >>> round(parse_traffic("2e9tok/month", ServeJob()).tokens_per_second)
    761
    """
    from dataclasses import replace

    amount, slash, each = text.partition("/")
    if not slash:
        raise InputError(f"{text!r} does not say in what time", where=where,
                         mend=f"write '{text.strip()}/month'")
    name = each.strip().casefold()
    name = name if name in SECONDS_A else name.removesuffix("s")
    if name not in SECONDS_A:
        raise UnknownName("time", each.strip(), SECONDS_A, where=where)
    tokens = units.finite(units.parse(amount, "count", where), where, above=0, said=text.strip())
    kept = replace(job, months=job.months or MONTHS)
    return Traffic(tokens / SECONDS_A[name], kept)
