"""What is said where the budgets, or the ledger, do not let a request through."""

from __future__ import annotations

import math

from curbcut.ledger.amounts import Unit, kwh, usd
from curbcut.ledger.budgets import Budget
from curbcut.ledger.holds import Exhausted
from curbcut.ledger.periods import end_of
from curbcut.serve.gateway.refusal import Refused

_NAMES = {"tokens": "tokens", "nanousd": "money", "millijoules": "energy"}
_EVERY = {"all": "", "month": " a month", "day": " a day"}


def shortage(exhausted: Exhausted, now: float) -> Refused:
    """A budget has no room for what a request may take (429); come again when it begins anew."""
    budget, wanted = exhausted.budget, exhausted.wanted
    end = end_of(budget.period, now)
    again = f" It begins anew in {_span(end - now)}." if end is not None else ""
    return Refused(
        429, f"You exceeded your current quota: of the {_NAMES[budget.unit]} budget of "
             f"{budget.scope} ({_shown(budget.amount, budget.unit)}{_EVERY[budget.period]}), "
             f"{_shown(budget.left, budget.unit)} are left, and this request may take up to "
             f"{_shown(wanted, budget.unit)}.{again}",
        code="insufficient_quota", kind="insufficient_quota", retry=False,
        retry_after_seconds=None if end is None else max(1, math.ceil(end - now)))


def unpriced(model: str, budget: Budget) -> Refused:
    """A budget counts what nobody knows of a model (403)."""
    what = "price" if budget.unit == "nanousd" else "known energy a token"
    return Refused(403, f"The model {model!r} has no {what}, and {budget.scope} has a budget of "
                        f"{_NAMES[budget.unit]}: whoever runs this server can set one.",
                   param="model", code="model_not_priced")


def not_recorded() -> Refused:
    """The ledger cannot be written, so nothing may be delivered (503)."""
    return Refused(503, "What this request takes cannot be recorded now: come again in a moment.",
                   code="ledger_unavailable", retry_after_seconds=5)


def _shown(amount: int, unit: Unit) -> str:
    """An amount as people read it."""
    if unit == "nanousd":
        return f"{usd(amount):.6g} USD"
    return f"{kwh(amount):.4g} kWh" if unit == "millijoules" else f"{amount:,} tokens"


def _span(seconds: float) -> str:
    """A time to wait, roughly: "3 d", "5 h", "20 min"."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{math.ceil(seconds / size)} {name}"
    return f"{max(1, math.ceil(seconds))} s"
