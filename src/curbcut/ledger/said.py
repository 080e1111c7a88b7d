"""Budgets, scopes and times as people say them, and back: "5 EUR", "key:ann", "30 d".

Inside, budgets are whole tokens, nanodollars and millijoules, and times seconds since 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.errors import InputError, UnknownName
from curbcut.facts import currency
from curbcut.ledger import access
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH, MOST, NAMES, NANO, Unit, kwh, usd
from curbcut.ledger.keys import check_model
from curbcut.ledger.scopes import KINDS

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

CALLED: Mapping[str, Unit] = {name: unit for unit, name in NAMES.items()}
"""What people call the units of budgets."""
LATEST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
"""The year 9999: later than any key ends."""
_KEY_ID = re.compile(r"[0-9a-f]{8}")


def amount(text: str, where: str = "") -> tuple[Unit, int]:
    """A budget and its unit: "5 EUR" in nanodollars at the facts' rate, "2 kWh" in millijoules,
    "1.5M tokens"; raises InputError, UnknownName.

    >>> amount("0.5 USD"), amount("2 Wh"), amount("1.5M tokens")
    (('nanousd', 500000000), ('millijoules', 7200000), ('tokens', 1500000))
    """
    said = text.strip()
    match = re.fullmatch(r"[+-]?[\d.,_]*(?:e[+-]?\d+)?\s*(.*)", said, re.I)
    word = match[1].casefold() if match else said.casefold()
    if not word:
        raise InputError(f"{text!r} does not say of what", where=where,
                         mend=f"like '{said or 5} EUR', '{said or 2} kWh' or '1M tokens'")
    if re.search(r"(tokens?|tok)$", word):
        found = units.finite(units.parse(said, "count", where), where, said=said)
        if found != math.floor(found):
            raise InputError(f"{text!r} are no whole tokens", where=where,
                             mend="like '1.5k tokens'")
        return "tokens", _whole(found, text, where)
    if word in {one.casefold() for one in units.UNITS["kwh"]}:
        return "millijoules", millijoules(said, where)
    try:
        return "nanousd", nanousd(said, where)
    except UnknownName:
        raise UnknownName("unit", match[1] if match else said, [
            *currency.codes(), *units.UNITS["kwh"], "tokens"], where=where) from None


def nanousd(text: str, where: str = "") -> int:
    """Money in nanodollars, at the facts' rate; raises InputError, UnknownName."""
    money = units.parse_money(text, where)
    return _whole(money.amount * currency.usd_per(money.currency).value * NANO, text, where)


def millijoules(text: str, where: str = "") -> int:
    """Energy in millijoules; raises InputError, UnknownName."""
    return _whole(units.parse(text, "kwh", where) * MILLIJOULES_PER_KWH, text, where)


def show(unit: Unit, value: int) -> str:
    """So much of a unit as people read it; `show("nanousd", 5_000_000_000)` is "$5.00"."""
    if unit == "nanousd":
        return units.show(usd(value), "usd")
    if unit == "millijoules":
        return units.show(kwh(value), "kwh")
    return f"{units.show(value, 'count')} tokens"


def unit(name: str, where: str = "") -> Unit:
    """The unit that people call "usd", "kwh" or "tokens"; raises UnknownName."""
    found = CALLED.get(name.casefold())
    if found is None:
        raise UnknownName("unit", name, CALLED, where=where)
    return found


def scope(ledger: Ledger, text: str) -> str:
    """The scope that "organisation:lab", "project:thesis", "key:ann" or "key:00c0ffee" names.

    A key goes by the name that it bears while it lives, or by its id; one that was rotated has the
    scope of the first of its line. Raises UnknownName for another kind, or a key that is not there;
    others are looked for where they are used.
    """
    kind, colon, name = text.partition(":")
    if not colon:
        raise InputError(f"{text!r} does not say what it is", where="scope",
                         mend="write " + ", ".join(f"{kind}:{text}" for kind in KINDS))
    if kind not in KINDS:
        raise UnknownName("kind of scope", kind, KINDS, where=text)
    if kind != "key":
        return text
    if _KEY_ID.fullmatch(name):
        for key in access.kept_keys(ledger):
            if key.id == name:
                return f"key:{key.line or key.id}"
    return access.scope_of_key(ledger, name)


def model(text: str, where: str = "the model") -> str:
    """The name of a model, or of an adapter of one ("model:adapter"); raises InputError."""
    return check_model(text.strip(), where)


def moment(text: str, now: float, where: str = "") -> float:
    """A time after `now`: how long from then ("30 d"), a day ("2027-01-31": its end, UTC) or a day
    and time ("2027-01-31T12:00+01:00"; UTC where it does not say); raises InputError.
    """
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        if not re.match(r"\s*[+-]?[\d.]", text):
            raise InputError(f"{text!r} is no time", where=where,
                             mend="write how long, like '30 d', or a day, like 2027-01-31"
                             ) from None
        seconds = units.parse(text, "seconds", where)
        units.finite(seconds, where, above=0, said=text)
        return _before_the_last(now + seconds, text, where)
    day = re.fullmatch(r"\d{4}-?\d\d-?\d\d", text.strip())
    found = when.replace(tzinfo=when.tzinfo or UTC).timestamp() + (86400 if day else 0)
    if found <= now:
        raise InputError(f"{text!r} is past", where=where, mend="give a time to come, or '30 d'")
    return _before_the_last(found, text, where)


def _before_the_last(found: float, text: str, where: str) -> float:
    if found >= LATEST:
        raise InputError(f"{text!r} is beyond the year 9999", where=where,
                         mend="leave it out for no end")
    return found


def _whole(value: float, text: str, where: str) -> int:
    units.finite(value, where, at_least=0, said=text)
    found = round(value)
    if found >= MOST:
        raise InputError(f"{text!r} is more than can be counted", where=where,
                         mend="give less")
    if value > 0 and found < 1:
        raise InputError(f"{text!r} is less than can be counted", where=where,
                         mend="the least is a token, a nanodollar, a millijoule")
    return found
