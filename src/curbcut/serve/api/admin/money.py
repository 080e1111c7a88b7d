"""Budgets and prices. Here they are in what people count in: tokens, dollars, kWh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.ledger import budgets, plain, said
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH, MOST, NANO, Unit
from curbcut.ledger.plain import EACH
from curbcut.ledger.prices import Price, prices, set_price
from curbcut.ledger.said import CALLED
from curbcut.serve.api.admin.act import MANAGE, SEE, Act, Wish
from curbcut.serve.api.admin.fields import line, needed
from curbcut.serve.api.admin.places import listed
from curbcut.serve.gateway.table import Table, number, wrong

_PRICE: Table = {
    "prompt_usd": needed(number(0, 1e6)), "output_usd": needed(number(0, 1e6)),
    "cached_usd": number(0, 1e6), "prompt_kwh": number(0, 1e5), "output_kwh": number(0, 1e5),
    "source": line()}
"""Of a million tokens; `cached` prompt tokens cost as others where it is left out."""


def _budgets(wish: Wish) -> Mapping[str, Any]:
    return listed([plain.budget(one) for one in budgets.budgets(wish.ledger)])


def _set_budget(wish: Wish) -> Mapping[str, Any]:
    unit = CALLED[wish.path["unit"]]
    amount = _counted("amount", wish.given["amount"], EACH[unit])
    return _budget(wish, unit, amount)


def _end_budget(wish: Wish) -> Mapping[str, Any]:
    return _budget(wish, CALLED[wish.path["unit"]], None)


def _budget(wish: Wish, unit: Unit, amount: int | None) -> Mapping[str, Any]:
    scope = said.scope(wish.ledger, wish.path["scope"])
    period: Any = wish.path["period"]
    budgets.set_budget(wish.ledger, scope, unit, amount, period=period, actor=wish.actor)
    for one in budgets.budgets(wish.ledger, [scope]):
        if (one.unit, one.period) == (unit, period):
            return plain.budget(one)
    return {"scope": scope, "unit": wish.path["unit"], "period": period, "ended": True}


def _prices(wish: Wish) -> Mapping[str, Any]:
    return listed([plain.price(one) for _, one in sorted(prices(wish.ledger).items())])


def _set_price(wish: Wish) -> Mapping[str, Any]:
    given = wish.given
    cached = given["prompt_usd"] if given["cached_usd"] is None else given["cached_usd"]
    if cached > given["prompt_usd"]:
        raise wrong("cached_usd", "what is remembered costs no more than what is not")
    price = Price(
        model=wish.path["model"], source=given["source"], cached_nanousd=round(cached * NANO),
        prompt_nanousd=round(given["prompt_usd"] * NANO),
        output_nanousd=round(given["output_usd"] * NANO),
        prompt_millijoules=_millijoules(given["prompt_kwh"]),
        output_millijoules=_millijoules(given["output_kwh"]))
    set_price(wish.ledger, price, actor=wish.actor)
    return plain.price(price)


def _counted(name: str, value: float, each: int) -> int:
    if each == 1 and not value.is_integer():
        raise wrong(name, "tokens are whole")
    counted = round(value * each)
    if counted >= MOST:
        raise wrong(name, "it is more than can be counted")
    if value > 0 and not counted:
        raise wrong(name, "it is less than can be counted")
    return counted


def _millijoules(kwh: float | None) -> int | None:
    return None if kwh is None else round(kwh * MILLIJOULES_PER_KWH)


_PLACE = "/admin/budgets/{scope}/{unit}/{period}"
ACTS = (
    Act(method="GET", path="/admin/budgets", may=SEE, does=_budgets),
    Act(method="PUT", path=_PLACE, may=MANAGE, does=_set_budget,
        fields={"amount": needed(number(0, 1e15))}),
    Act(method="DELETE", path=_PLACE, may=MANAGE, does=_end_budget),
    Act(method="GET", path="/admin/prices", may=SEE, does=_prices),
    Act(method="PUT", path="/admin/prices/{model}", may=MANAGE, does=_set_price, fields=_PRICE),
)
