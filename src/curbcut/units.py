"""Quantities as people write them, to and from the units used inside.

Inside, every number is in one unit a dimension, and its name says which: `seconds`, `bytes_`,
`kwh`, `kgco2e`, `watts`, `tokens` (a plain count), `flops`. Human units live only here, at the
edge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from curbcut.errors import InputError, UnknownName

_COUNT = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "m": 1e6, "B": 1e9, "b": 1e9, "G": 1e9, "T": 1e12,
          "t": 1e12, "P": 1e15}

UNITS: Mapping[str, Mapping[str, float]] = {
    "count": _COUNT,
    "seconds": {
        "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6,
        "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0,
        "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0, "week": 604800.0,
        "weeks": 604800.0,
    },
    "bytes": {
        "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10,
        "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
    },
    "kwh": {
        "kWh": 1.0, "Wh": 1e-3, "MWh": 1e3, "GWh": 1e6, "J": 1 / 3.6e6, "kJ": 1 / 3.6e3,
        "MJ": 1 / 3.6,
    },
    "kgco2e": {"kg": 1.0, "g": 1e-3, "t": 1e3, "kgCO2e": 1.0, "gCO2e": 1e-3, "tCO2e": 1e3,
               "mgCO2e": 1e-6, "ugCO2e": 1e-9},
    "watts": {"W": 1.0, "kW": 1e3, "MW": 1e6},
}
"""Factor of each accepted unit to the one used inside, by dimension."""

_NUMBER = re.compile(
    r"^\s*([+-]?(?:\d{1,3}(?:,\d{3})+(?![\d,])\.?\d*|\d[\d_]*\.?\d*|\.\d+|nan|inf)"
    r"(?:e[+-]?\d+)?)\s*(.*?)\s*$", re.I)
_SYMBOLS = {"$": "USD", "€": "EUR", "£": "GBP"}
CURRENCIES = ("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "SEK", "BRL")


@dataclass(frozen=True)
class Money:
    """An amount in a currency, as a person stated it. Accounts are kept in US dollars."""

    amount: float
    currency: str

    def __str__(self) -> str:
        short = f"{self.amount:,.10g}"
        # It is read back to the same amount: a longer one has all its digits.
        whole = short if float(short.replace(",", "")) == self.amount else f"{self.amount:,}"
        return f"{whole} {self.currency}"


def _split(text: str, where: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if not match:
        raise InputError(f"cannot read {text!r} as a quantity", where=where,
                         mend="write a number and a unit, like '4 min', '30 GB' or '1.5T'")
    if match[2].startswith(","):
        said = text.replace(",", "." if text.count(",") == 1 else "").strip()
        raise InputError(f"{text.strip()!r} has a comma that parts no thousands", where=where,
                         mend=f"write {said!r}, or '1,000' for a thousand")
    return float(match[1].replace(",", "").replace("_", "")), match[2]


def finite(value: float, where: str = "", *, above: float | None = None,
           at_least: float | None = None, said: str = "", nearest: str = "") -> float:
    """`value` if it is a finite number in range; else an InputError that says the range.

    `said` is how the person wrote it, `nearest` the nearest value in range, for the message.
    """
    said = said or f"{value:g}"
    if not math.isfinite(value):
        raise InputError(f"{said} is not a number one can plan with", where=where,
                         mend="give a finite number")
    if above is not None and value <= above:
        raise InputError(f"{said} must be greater than {above:g}", where=where,
                         mend=f"nearest: {nearest}" if nearest
                         else "give a larger value, or leave it out for no limit")
    if at_least is not None and value < at_least:
        raise InputError(f"{said} must be at least {at_least:g}", where=where,
                         mend=f"nearest: {at_least:g}")
    return value


def parse(text: str, dimension: str, where: str = "") -> float:
    """Reads `text` ("4 min", "30 GB", "1.5T tokens") into the inner unit of `dimension`.

    Raises UnknownName for a unit that is not of this dimension, InputError for what is no number.

    >>> parse("4 min", "seconds"), parse("1.5T tokens", "count")
    (240.0, 1500000000000.0)
    """
    number, unit = _split(text, where)
    table = UNITS[dimension]
    if dimension == "count":
        unit = re.sub(r"\s*(tokens?|tok|parameters?|params?)$", "", unit)
    if unit not in table:
        if unit == "":
            raise InputError(f"{text!r} has no unit", where=where,
                             mend=f"say which: {', '.join(table)}")
        # Of counts only the capitals above: "50 g" are grams and no 50 G.
        folded = [name for name in table if name.casefold() == unit.casefold()]
        if len(folded) != 1 or dimension == "count":
            raise UnknownName("unit", unit, table, where=where)
        unit = folded[0]
    return number * table[unit]


def parse_money(text: str, where: str = "") -> Money:
    """Reads "500 EUR", "$500", "€ 1,000" or "5k EUR"; raises InputError without a currency.

    >>> parse_money("500 EUR"), parse_money("1.5M USD").amount
    (Money(amount=500.0, currency='EUR'), 1500000.0)
    """
    stripped = text.strip()
    for symbol, code in _SYMBOLS.items():
        if stripped.startswith(symbol):
            stripped = f"{stripped[1:]} {code}"
    number, unit = _split(stripped, where)
    code = _SYMBOLS.get(unit, unit).upper()
    after = _SYMBOLS.get(unit[1:].strip(), unit[1:].strip()).upper()
    if code not in CURRENCIES and unit[:1] in _COUNT and after in CURRENCIES:
        number, code = number * _COUNT[unit[:1]], after
    finite(number, where, said=text.strip())
    if not code:
        raise InputError(f"{text!r} has no currency", where=where, mend=f"write '{text} EUR'")
    if code not in CURRENCIES:
        raise UnknownName("currency", code, CURRENCIES, where=where)
    return Money(number, code)


def parse_fleet(text: str, where: str = "") -> tuple[int, str]:
    """Reads "64xH100" into (64, "H100"); a bare name is one of it.

    >>> parse_fleet("64xH100"), parse_fleet("here")
    ((64, 'H100'), (1, 'here'))
    """
    match = re.fullmatch(r"\s*(\d+)\s*[x×*]\s*(\S.*?)\s*", text)
    if not match:
        return 1, text.strip()
    count = int(match[1])
    if count < 1:
        raise InputError(f"{text!r} is no machine at all", where=where, mend="write '1xH100'")
    return count, match[2]


def _scaled(value: float, steps: list[tuple[float, str]], like: float | None = None,
            digits: int = 3) -> str:
    """`value` in the first unit of which there is at least one of it, or else of `like`."""
    size = abs(value if like is None else like) or 1e-3
    factor, unit = next(((f, u) for f, u in steps if size >= f), steps[-1])
    return f"{sig(value / factor, digits)} {unit}".rstrip()


def _duration(seconds: float) -> str:
    # People think in "90 min" and "36 h": a unit is taken from one and a half of it on.
    long = [(86400.0, "d", 2.0), (3600.0, "h", 1.5), (60.0, "min", 1.5)]
    for factor, unit, least in long:
        if abs(seconds) >= least * factor:
            return f"{sig(seconds / factor)} {unit}"
    return _scaled(seconds, [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")])


def sig(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, never in exponent form between 1e-4 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if -5 < exponent < 6:
        return f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return f"{value:.{digits - 1}e}"


def small(value: float, digits: int = 2) -> str:
    """`value` in plain decimals however small: small(0.0000085) is "0.0000085"."""
    if value == 0 or not math.isfinite(value) or abs(value) >= 1e-4:
        return sig(value, digits)
    return f"{value:.{digits - 1 - math.floor(math.log10(abs(value)))}f}"


def show(value: float, dimension: str, like: float | None = None) -> str:
    """`value` in its inner unit as a person reads it: show(240, "seconds") is "4.00 min".

    With `like` it is in the unit in which that is shown: show(0.5, "kwh", like=2.0) is "0.500 kWh";
    times are always in their own.
    """
    match dimension:
        case "seconds":
            return _duration(value)
        case "bytes":
            return _scaled(value, [(2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"),
                                   (2.0**10, "KiB"), (1.0, "B")], like)
        case "kwh":
            # "0.885 Wh" reads better beside "2.62 Wh" than in J.
            if 1e-4 <= abs(value if like is None else like) < 1e-3:
                return f"{sig(1e3 * value)} Wh"
            return _scaled(value, [(1e6, "GWh"), (1e3, "MWh"), (1.0, "kWh"), (1e-3, "Wh"),
                                   (1 / 3.6e6, "J")], like)
        case "kgco2e":
            return _scaled(value, [(1e3, "tCO2e"), (1.0, "kgCO2e"), (1e-3, "gCO2e"),
                                   (1e-6, "mgCO2e"), (1e-9, "ugCO2e")], like)
        case "watts":
            return _scaled(value, [(1e6, "MW"), (1e3, "kW"), (1.0, "W")], like)
        case "count":
            if like is None and abs(value) < 1000 and value == int(value):
                return f"{value:.0f}"
            return _scaled(value, [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, "")],
                           like)
        case "flops":
            return _scaled(value, [(1e24, "YFLOP"), (1e21, "ZFLOP"), (1e18, "EFLOP"),
                                   (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")], like)
        case "flops/s":
            return _scaled(value, [(1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")], like)
        case "bytes/s":
            return _scaled(value, [(1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s")], like)
        case "usd":
            if value == 0 or abs(value) >= 0.1:
                return f"${value:,.2f}"
            return f"${small(value)}" if abs(value) >= 0.01 else f"{small(100 * value)} ct"
        case "joules":
            return _scaled(value, [(1e6, "MJ"), (1e3, "kJ"), (1.0, "J"), (1e-3, "mJ")], like)
        case "litres":
            return _scaled(value, [(1e3, "m3"), (1.0, "l"), (1e-3, "ml"), (1e-6, "ul")], like)
        case "fraction":
            return f"{sig(100 * value)}%"
        case _:
            return f"{sig(value)} {dimension}".rstrip()
