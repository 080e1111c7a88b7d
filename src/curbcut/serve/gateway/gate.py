"""The way in for requests of keys: limits a minute, room in budgets, a turn at the engine.

    place ──> limits ──> hold ──> turn ──> (the engine answers; streams are covered)
                                                                     └──> settle, leave

Whatever was taken on the way in is given back by whoever does not get through.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from curbcut.ledger.access import Caller
from curbcut.ledger.holds import Taken
from curbcut.serve.gateway.admission import Admission, Turn
from curbcut.serve.gateway.bill import Bill
from curbcut.serve.gateway.quotas import Quotas
from curbcut.serve.gateway.shortage import not_recorded
from curbcut.serve.gateway.till import Till


class Share(Protocol):
    """A request's share of what the machine took."""

    @property
    def millijoules(self) -> int | None:
        """None where not known."""
    @property
    def basis(self) -> str:
        """Of the energy: measured, modelled."""
    @property
    def cost_nanousd(self) -> int | None:
        """None where not known."""
    @property
    def engine_seconds(self) -> float | None:
        """Its share of the engine's steps."""


class Split(Protocol):
    """Tells shares; on the engine's thread, once a request."""

    def __call__(self, model: str, tickets: Sequence[int], *, prompt_tokens: int = 0,
                 cached_tokens: int = 0, output_tokens: int = 0, seconds: float = 0.0) -> Share:
        """The share of a request by its tickets; tokens serve where no steps were told."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a request may take at most."""

    model: str
    prompt_tokens: int
    answer_tokens: int
    """Of all its answers together."""
    answers: int = 1
    priority: int = 0

    @property
    def tokens(self) -> int:
        """All together."""
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a request took in the end, as the engine counted it."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    seconds: float
    finish: str


@dataclass(frozen=True)
class Gate:
    """What all requests of keys share. `till` None: nothing is held, for there is no ledger."""

    quotas: Quotas
    admission: Admission
    till: Till | None = None
    split: Split | None = None

    async def enter(self, caller: Caller, room: Room) -> Pass:
        """Returns when the engine may be asked; raises Refused (403, 429, 503)."""
        turn = self.admission.come(  # before anything is written
            caller, room.model, answers=room.answers, prompt_tokens=room.prompt_tokens,
            answer_tokens=room.answer_tokens, priority=room.priority)
        begun, bill = False, None
        try:
            self.quotas.begin(caller, room.tokens)
            begun = True
            if self.till is not None:
                bill = await self.till.hold(caller, room.model, room.prompt_tokens,
                                            room.answer_tokens)
            await self.admission.wait(turn)
        except BaseException:
            self.admission.leave(turn, 0)
            if begun:
                self.quotas.end(caller, room.tokens, 0)
            if bill is not None:
                bill.release()
            raise
        return Pass(self, caller, room, bill, turn)


@dataclass
class Pass:
    """One request that was let in; it is settled or released once, on any thread."""

    gate: Gate
    caller: Caller
    room: Room
    bill: Bill | None
    turn: Turn
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _begun: float = field(default_factory=time.perf_counter)

    def begin_cover(self, prompt_tokens: int) -> None:
        """Begins to note the first slice of a stream."""
        if self.bill is not None:
            self.bill.begin_cover(prompt_tokens)

    async def cover(self, prompt_tokens: int, output_tokens: int) -> None:
        """Returns when so many tokens may be delivered; raises Refused (503)."""
        if self.bill is not None:
            await self.bill.cover(prompt_tokens, output_tokens)

    def settle(self, spent: Spent, tickets: Sequence[int], *,
               delivered: bool) -> tuple[Taken | None, Future[None] | None]:
        """Charges it: what is charged, and when that is durable. `delivered` says whether the
        client has anything of it already.
        """
        self._leave(spent.prompt_tokens + spent.output_tokens)
        if self.bill is None:
            return None, None
        share = self._share(spent, tickets)
        taken = self.bill.taken(
            spent.prompt_tokens, spent.output_tokens, spent.cached_tokens,
            share.millijoules if share else None, share.basis if share else "",
            cost_nanousd=share.cost_nanousd if share else None, seconds=spent.seconds,
            engine_seconds=share.engine_seconds if share else None, finish=spent.finish)
        return taken, self.bill.settle(taken, delivered=delivered)

    async def settled(self, spent: Spent) -> Taken | None:
        """The same of an answer that is sent whole, when it is durable; raises Refused (503)."""
        taken, done = self.settle(spent, (), delivered=False)
        try:
            if done is not None:
                await asyncio.shield(asyncio.wrap_future(done))
        except Exception:
            raise not_recorded() from None
        return taken

    def release(self) -> None:
        """Nothing came of it, and nothing is charged: what it cost is lost."""
        self._leave(0)
        if self.bill is not None:
            self.bill.release()

    def _share(self, spent: Spent, tickets: Sequence[int]) -> Share | None:
        if self.gate.split is None:
            return None
        return self.gate.split(
            self.room.model, tickets, prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens, output_tokens=spent.output_tokens,
            seconds=spent.seconds)

    def _leave(self, used_tokens: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and its queue with it
            self._loop.call_soon_threadsafe(self._left, used_tokens,
                                            time.perf_counter() - self._begun)

    def _left(self, used_tokens: int, seconds: float) -> None:
        self.gate.quotas.end(self.caller, self.room.tokens, used_tokens)
        self.gate.admission.leave(self.turn, used_tokens, seconds)
