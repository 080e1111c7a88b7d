"""Keys, limits, budgets, prices, texts and uses as programs read them: one shape over HTTP and at
the command line, in what people count in (tokens, dollars, kWh), and with no secret in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.ledger.access import Allowance
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH, NAMES, NANO, Unit, kwh, usd
from curbcut.ledger.budgets import Budget
from curbcut.ledger.keys import KeptKey
from curbcut.ledger.licences import Licence
from curbcut.ledger.prices import Price
from curbcut.ledger.usage import Usage

EACH: Mapping[Unit, int] = {"tokens": 1, "nanousd": NANO, "millijoules": MILLIJOULES_PER_KWH}
"""Of what is counted, in one of what is said."""


def state(key: KeptKey, now: float) -> str:
    """Whether a key is live, expired or revoked at `now`."""
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now else "live"


def key(key: KeptKey, now: float) -> dict[str, Any]:
    """What may be told of a key."""
    return {"id": key.id, "name": key.name, "scope": f"key:{key.line or key.id}",
            "project": key.project, "role": key.role, "owner": key.owner, "created": key.created,
            "expires": key.expires, "revoked": key.revoked, "state": state(key, now)}


def allowance(scope: str, allowance: Allowance) -> dict[str, Any]:
    """What a scope may ask at a time; None is no limit of its own."""
    models = None if allowance.models is None else list(allowance.models)
    return {"scope": scope, **vars(allowance), "models": models}


def budget(budget: Budget) -> dict[str, Any]:
    """A budget and what is spent, held and left of it, in dollars, kWh or tokens."""
    each = EACH[budget.unit]
    figures = {name: getattr(budget, name) for name in ("amount", "spent", "held", "left")}
    return {"scope": budget.scope, "unit": NAMES[budget.unit], "period": budget.period,
            "start": budget.start, **{name: value if each == 1 else value / each
                                      for name, value in figures.items()}}


def price(price: Price) -> dict[str, Any]:
    """What a million tokens cost in dollars, and take at most in kWh (None: not known)."""
    return {"model": price.model, "prompt_usd": usd(price.prompt_nanousd),
            "cached_usd": usd(price.cached_nanousd), "output_usd": usd(price.output_nanousd),
            "prompt_kwh": kwh(price.prompt_millijoules),
            "output_kwh": kwh(price.output_millijoules), "basis": price.basis,
            "source": price.source}


def licence(licence: Licence) -> dict[str, Any]:
    """A text without its words."""
    return {"scope": licence.scope, "hash": licence.hash, "set": licence.set,
            "ended": licence.ended, "characters": len(licence.text)}


def usage(usage: Usage) -> dict[str, Any]:
    """What was used, in dollars and kWh; None where nothing of it is known."""
    kept = {name: value for name, value in vars(usage).items()
            if name not in ("charged_nanousd", "cost_nanousd", "millijoules", "by_basis")}
    return {**kept, "charged_usd": usd(usage.charged_nanousd),
            "cost_usd": usd(usage.cost_nanousd), "kwh": kwh(usage.millijoules),
            "kwh_by_basis": {basis: kwh(value) for basis, value in usage.by_basis.items()}}
