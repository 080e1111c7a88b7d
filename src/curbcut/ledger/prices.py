"""The price list: what a million tokens of a model cost, and the joules that they take at most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from curbcut.errors import InputError
from curbcut.ledger import audit, keys
from curbcut.ledger import schema as tables
from curbcut.ledger.amounts import Amount

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

MILLION = 1_000_000
MOST = 2**50
"""Below it prices are: those of a thousand million tokens still fit a column."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of a million tokens of one model."""

    model: str
    prompt_nanousd: int
    cached_nanousd: int
    output_nanousd: int
    prompt_millijoules: int | None = None
    """Held for a million prompt tokens; None where nothing is known of its energy."""
    output_millijoules: int | None = None
    basis: str = "given"
    """measured, modelled, default, given."""
    source: str = ""

    def most(self, prompt_tokens: int, output_tokens: int) -> Amount:
        """What so many tokens take at most; rounded up, so that charges never exceed holds."""
        return Amount(
            tokens=prompt_tokens + output_tokens,
            nanousd=self.charge(prompt_tokens, output_tokens),
            millijoules=_up(prompt_tokens * (self.prompt_millijoules or 0)
                            + output_tokens * (self.output_millijoules or 0)))

    def charge(self, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Nanodollars of a request, rounded up; `cached_tokens` are of the prompt's."""
        fresh = prompt_tokens - cached_tokens
        cached = min(self.cached_nanousd, self.prompt_nanousd)
        return _up(fresh * self.prompt_nanousd + cached_tokens * cached
                   + output_tokens * self.output_nanousd)


def set_price(ledger: Ledger, price: Price, *, actor: str) -> None:
    """The price from now on; earlier requests keep theirs. Raises InputError for what is none."""
    keys.check_model(price.model, "prices")
    for name, value in vars(price).items():
        if isinstance(value, int) and not 0 <= value < MOST:
            raise InputError(f"{value} is no price", where=name, mend="give 0 or more")
    with ledger.writing() as connection:
        connection.execute(tables.prices.insert().values(since=time.time(), **vars(price)))
        audit.append(connection, actor, "price.set", f"model:{price.model}", vars(price))


def prices(ledger: Ledger) -> dict[str, Price]:
    """The newest price of each model that has one."""
    with ledger.reading() as connection:
        found = connection.execute(sa.select(tables.prices).order_by(tables.prices.c.since))
        return {row.model: Price(**{name: value for name, value in row._mapping.items()
                                    if name != "since"}) for row in found}


def _up(millionths: int) -> int:
    return -(-millionths // MILLION)
