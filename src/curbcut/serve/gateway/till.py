"""The till: what requests may take is held, covered and settled in the ledger, off the event loop.

One thread writes. While it writes, others' wishes gather, and the next transaction takes all of
them: so a hundred requests at once wait for a few commits, not for a hundred. What a request is
held for is its `Bill`.

The thread also says every few seconds that this server lives, charges what dead servers left, and
reads the price list.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from curbcut.ledger import budgets, holds
from curbcut.ledger.access import Caller
from curbcut.ledger.amounts import Amount, Unit
from curbcut.ledger.holds import LEASE_SECONDS, Exhausted, Lapsed, Taken, Wanted
from curbcut.ledger.prices import Price, prices
from curbcut.ledger.store import Ledger
from curbcut.serve.gateway.bill import Bill, unknown
from curbcut.serve.gateway.shortage import not_recorded, shortage, unpriced

_log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How often the price list is read."""
Tariff = Callable[[str], Price | None]
"""The price of a model that the list has none of; None where nothing is known."""


@dataclass
class _Round:
    """What is to be written together."""

    settled: list[tuple[tuple[str, Taken], Future[None]]] = field(default_factory=list)
    released: list[tuple[str, Future[None]]] = field(default_factory=list)
    held: list[tuple[Wanted, Future[str]]] = field(default_factory=list)
    covered: list[tuple[tuple[str, Taken], Future[None]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.settled or self.released or self.held or self.covered)


class Till:
    """Holds room in budgets for requests, in `ledger`, which outlives it. Close it.

    `tariff` prices models that the price list leaves out.
    """

    def __init__(self, ledger: Ledger, tariff: Tariff = lambda _model: None, *,
                 lease_seconds: float = LEASE_SECONDS) -> None:
        self._ledger, self._tariff, self._lease = ledger, tariff, lease_seconds
        self.server = holds.open_server(ledger)
        holds.reap(ledger, lease_seconds=lease_seconds)
        self._prices: Mapping[str, Price] = prices(ledger)
        self._budgeted = budgets.budgeted(ledger)
        self._chance = random.Random()
        self._lock = threading.Condition()
        self._next, self._open = _Round(), True
        self._late: list[tuple[str, Taken | None]] = []
        self._thread = threading.Thread(target=self._run, name="curbcut-till", daemon=True)
        self._thread.start()

    def price(self, model: str) -> Price | None:
        """Of a model, or of the one that its adapter ("model:adapter") is of. What the list leaves
        open (all, or the joules) is the tariff's.
        """
        base = model.partition(":")[0]
        listed, modelled = self._prices.get(model) or self._prices.get(base), self._tariff(base)
        if listed is None or modelled is None or not unknown(listed):
            return listed or modelled
        return replace(listed, prompt_millijoules=modelled.prompt_millijoules,
                       output_millijoules=modelled.output_millijoules)

    async def hold(self, caller: Caller, model: str, prompt_tokens: int,
                   output_tokens: int) -> Bill:
        """Holds the most that a request can take.

        Raises Refused: 429 where a budget has no room, 403 where it is of money or energy and
        nobody knows what the model costs, 503 where the ledger cannot be written.
        """
        price = self.price(model)
        most = Amount(tokens=prompt_tokens + output_tokens) if price is None else price.most(
            prompt_tokens, output_tokens)
        open_ = unknown(price)
        if any((scope, unit) in self._budgeted for scope in caller.scopes for unit in open_):
            await asyncio.to_thread(self._refuse_unpriced, caller, model, open_)
        wanted = Wanted(scopes=caller.scopes, project=caller.project, model=model, most=most,
                        organisation=caller.organisation, key_id=caller.key_id, key=caller.key,
                        id=f"{self._chance.getrandbits(96):024x}")
        done: Future[str] = Future()
        self._put(lambda round_: round_.held.append((wanted, done)), done)
        try:
            id_ = await asyncio.shield(asyncio.wrap_future(done))
        except Exhausted as exhausted:
            raise shortage(exhausted, time.time()) from None
        except asyncio.CancelledError:  # it may yet be held: nobody would ever settle it
            done.add_done_callback(self._unhold)
            raise
        except Exception:
            raise not_recorded() from None
        return Bill(self, id_, caller, model, price, most, prompt_tokens)

    def cover(self, hold: str, taken: Taken) -> Future[None]:
        """Notes what is delivered from now on at most; done when it is durable."""
        done: Future[None] = Future()
        self._put(lambda round_: round_.covered.append(((hold, taken), done)), done)
        return done

    def settle(self, hold: str, taken: Taken, *, delivered: bool) -> Future[None]:
        """Charges a request; done when it is durable. Where that fails it is tried again later,
        and what was not `delivered` by then is given back instead. May be called on any thread.
        """
        done: Future[None] = Future()
        self._put(lambda round_: round_.settled.append(((hold, taken), done)), done)
        done.add_done_callback(lambda d: self._again(d, hold, taken if delivered else None))
        return done

    def release(self, hold: str) -> Future[None]:
        """Gives a hold back whole: nothing came of its request."""
        done: Future[None] = Future()
        self._put(lambda round_: round_.released.append((hold, done)), done)
        done.add_done_callback(lambda d: self._again(d, hold, None))
        return done

    def close(self) -> None:
        """Writes what waits and ends the lease; what is then still held is charged as covered."""
        with self._lock:
            self._open = False
            self._lock.notify()
        self._thread.join()

    def _put(self, add: Callable[[_Round], None], done: Future[Any]) -> None:
        with self._lock:
            if self._open:
                add(self._next)
                self._lock.notify()
                return
        done.set_exception(RuntimeError("the till is closed"))

    def _unhold(self, done: Future[str]) -> None:
        if done.exception() is None:
            self.release(done.result())

    def _again(self, done: Future[None], hold: str, taken: Taken | None) -> None:
        if done.exception() is not None and not isinstance(done.exception(), Lapsed):
            with self._lock:
                self._late.append((hold, taken))

    def _refuse_unpriced(self, caller: Caller, model: str, units: Sequence[Unit]) -> None:
        for budget in budgets.budgets(self._ledger, caller.scopes):
            if budget.unit in units:
                raise unpriced(model, budget)

    # -- below: the till's thread only ----------------------------------------------------------

    def _run(self) -> None:
        beaten = looked = time.monotonic()
        while True:
            with self._lock:
                if not self._next and self._open:
                    self._lock.wait(min(LOOK_SECONDS, self._lease / 3))
                round_, self._next = self._next, _Round()
                open_ = self._open
            self._write(round_)
            if not open_:
                break
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
            if time.monotonic() - beaten >= self._lease / 3:
                beaten = time.monotonic()
                self._beat()
        self._try_late()
        self._safely("the lease was not ended", lambda: holds.close_server(
            self._ledger, self.server))

    def _write(self, round_: _Round) -> None:
        """In one transaction, or each kind in its own where that fails. What gives room back goes
        first.
        """
        ledger = self._ledger
        kinds: list[tuple[_Jobs, _Act]] = [(jobs, act) for jobs, act in (
            (round_.settled, lambda some: holds.settle_all(ledger, some)),
            (round_.released, lambda some: holds.release_all(ledger, some)),
            (round_.held, lambda some: holds.hold_all(ledger, self.server, some)),
            (round_.covered, lambda some: holds.cover_all(ledger, some))) if jobs]
        if len(kinds) > 1:
            try:
                with ledger.writing():
                    found = [act([what for what, _ in jobs]) for jobs, act in kinds]
            except Exception as error:
                _log.warning("the ledger was not written at once: %s", error)
            else:
                for (jobs, _), results in zip(kinds, found, strict=True):
                    _tell(jobs, results)
                return
        for jobs, act in kinds:
            _together(jobs, act)

    def _look(self) -> None:
        def read() -> None:
            self._prices, self._budgeted = prices(self._ledger), budgets.budgeted(self._ledger)
        self._safely("the price list was not read", read)

    def _beat(self) -> None:
        def beat() -> None:
            holds.beat(self._ledger, self.server)  # first: this server may have slept itself
            holds.reap(self._ledger, lease_seconds=self._lease)
        self._safely("the lease was not prolonged", beat)
        self._try_late()

    def _try_late(self) -> None:
        with self._lock:
            late, self._late = self._late, []
        for hold, taken in late:
            try:
                if taken is None:
                    holds.release_all(self._ledger, [hold])
                else:
                    holds.settle_all(self._ledger, {hold: taken})
            except Exception:
                with self._lock:
                    self._late.append((hold, taken))

    def _safely(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # the next beat tries again; answers must not end for it
            _log.warning("%s: %s", what, error)


_Jobs = Sequence[tuple[Any, Future[Any]]]
_Act = Callable[[list[Any]], Any]


def _together(jobs: _Jobs, act: _Act) -> None:
    """Does all jobs in one transaction; where that fails each alone, so that no one's fault is
    another's.
    """
    try:
        found = act([what for what, _ in jobs])
    except Exception as error:
        if len(jobs) == 1:
            _log.warning("the ledger was not written: %s", error)
            with suppress(InvalidStateError):
                jobs[0][1].set_exception(error)
            return
        for job in jobs:
            _together([job], act)
        return
    _tell(jobs, found)


def _tell(jobs: _Jobs, found: Sequence[Any] | None) -> None:
    """Hands out what came of each; None where all is well with all."""
    for (_, done), result in zip(jobs, found or [None] * len(jobs), strict=True):
        with suppress(InvalidStateError):  # whoever asked is gone
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
