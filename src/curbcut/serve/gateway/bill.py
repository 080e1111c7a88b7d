"""What one request is held for: covered before a stream goes on, settled at the end."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curbcut.ledger.access import Caller
from curbcut.ledger.amounts import Amount, Unit
from curbcut.ledger.holds import Taken
from curbcut.ledger.prices import Price
from curbcut.serve.gateway.shortage import not_recorded

if TYPE_CHECKING:
    from curbcut.serve.gateway.till import Till

SLICE_TOKENS = 64
"""A stream is noted as delivered so many tokens ahead: what a killed server charges beyond what it
delivered is less than that."""


@dataclass
class Bill:
    """What one request is held for."""

    till: Till
    hold: str
    caller: Caller
    model: str
    price: Price | None
    most: Amount
    prompt_tokens: int
    """Tokens of the prompts that are held."""
    _covered: int = 0
    _ahead: tuple[int, Future[None]] | None = None
    """What is being noted, and when it is durable."""

    def begin_cover(self, prompt_tokens: int) -> None:
        """Notes the first slice while the engine reads the prompt: the first token need not wait
        for it.
        """
        self._note(prompt_tokens, 1)

    async def cover(self, prompt_tokens: int, output_tokens: int) -> None:
        """Returns when so many tokens may be delivered; raises Refused (503) where the ledger
        cannot be written.
        """
        while output_tokens > self._covered:
            ahead, done = self._ahead or self._note(prompt_tokens, output_tokens)
            try:
                await asyncio.shield(asyncio.wrap_future(done))
            except Exception:
                raise not_recorded() from None
            self._covered, self._ahead = ahead, None

    def _note(self, prompt_tokens: int, output_tokens: int) -> tuple[int, Future[None]]:
        ahead = min(output_tokens + SLICE_TOKENS - 1,
                    max(output_tokens, self.most.tokens - self.prompt_tokens))
        taken = self.taken(prompt_tokens or self.prompt_tokens, ahead)
        self._ahead = ahead, self.till.cover(self.hold, taken)
        return self._ahead

    def taken(self, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0,
              millijoules: int | None = None, energy_basis: str = "", **more: Any) -> Taken:
        """What so many tokens are charged: never more than is held. Energy that nobody has split
        is what the price list holds for it, if it says.
        """
        charged, price = 0, self.price
        if price is not None:
            charged = price.charge(prompt_tokens, output_tokens, min(cached_tokens, prompt_tokens))
            if millijoules is None and not unknown(price):
                millijoules = price.most(prompt_tokens, output_tokens).millijoules
                energy_basis = "default"
        return Taken(prompt_tokens=prompt_tokens, output_tokens=output_tokens,
                     nanousd=min(charged, self.most.nanousd), cached_tokens=cached_tokens,
                     millijoules=millijoules, energy_basis=energy_basis, **more)

    def settle(self, taken: Taken, *, delivered: bool) -> Future[None]:
        """See `Till.settle`."""
        return self.till.settle(self.hold, taken, delivered=delivered)

    def release(self) -> Future[None]:
        """See `Till.release`."""
        return self.till.release(self.hold)


def unknown(price: Price | None) -> tuple[Unit, ...]:
    """Units in which nobody knows what a model takes."""
    if price is None:
        return "nanousd", "millijoules"
    known = price.prompt_millijoules is not None and price.output_millijoules is not None
    return () if known else ("millijoules",)
