"""Several engines of one model as one: requests go where their beginning is known, else where
there is least to do, and past an engine that fails.

Replicas may be in this process, beside it or elsewhere. Prefill apart from decoding is not done
here: vLLM does it among its own (`vllm.Options.kv_transfer`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from curbcut.serve.engine.address import refuses
from curbcut.serve.engine.interface import Asked, Busy, Closed, Deliver, Delta, Engine, Stats

_log = logging.getLogger(__name__)
BEGINNING = 64
"""So many tokens (or characters, or messages' characters) tell where a prompt's like went."""
REMEMBERED = 4096
"""Beginnings that are remembered, the latest ones."""
MUCH_BUSIER = 4
"""Requests more under way than at the least busy replica: then a known beginning is given up."""
REST_SECONDS = 10.0
"""How long a replica that failed is passed over."""


@dataclass
class _Replica:
    engine: Engine
    name: str
    running: int = 0
    failed: int = 0
    """Requests in a row that failed."""
    rests_until: float = 0.0
    closed: bool = False


@dataclass
class _Sent:
    """A request on its way."""

    asked: Asked
    deliver: Deliver
    replica: _Replica
    ticket: int | None = None
    begun: bool = False
    """Whether anything of its answer was handed out: then it cannot be asked for elsewhere."""
    cancelled: bool = False


class Replicas:
    """An `Engine` of several that answer alike. Raises ValueError for none.

    A request whose replica fails before its first delta is asked for again at another one, once
    for each; later failures are the request's own.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        if not engines:
            raise ValueError("no replicas")
        self._replicas = [_Replica(engine, name) for name, engine in engines.items()]
        first = self._replicas[0].engine
        self.context_tokens = min(one.context_tokens for one in engines.values())
        self.vocab = min(one.vocab for one in engines.values())
        self.vocabulary = first.vocabulary
        shared = set.intersection(*(set(one.adapters) for one in engines.values()))
        self.adapters: Mapping[str, str] = {name: path for name, path in first.adapters.items()
                                            if name in shared}
        self._lock = threading.RLock()
        self._known: OrderedDict[Hashable, _Replica] = OrderedDict()
        self._sent: dict[int, _Sent] = {}
        self._tickets, self._open, self._refused = 0, True, 0

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """See `Engine.submit`: Busy where all replicas are, Closed where none is left."""
        with self._lock:
            if not self._open:
                raise Closed("the engine is closed")
            self._tickets += 1
            ticket = self._tickets
        if not self._send(ticket, asked, deliver, passed=()):
            with self._lock:
                self._refused += 1
            if all(one.closed for one in self._replicas):
                raise Closed("no replica is left")
            raise Busy("all replicas are busy")
        return ticket

    def cancel(self, ticket: int) -> None:
        """See `Engine.cancel`."""
        with self._lock:
            sent = self._sent.get(ticket)
            if sent is None:
                return
            sent.cancelled = True
            there = sent.ticket
        if there is not None:
            sent.replica.engine.cancel(there)

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """See `Engine.embed`: by the least busy replica that can."""
        closed: Closed | None = None
        for replica in self._order(None, ()):
            try:
                return replica.engine.embed(prompts)
            except Closed as error:
                closed = error
                self._rest(replica, str(error))
        raise closed or Closed("no replica is left")

    def stats(self) -> Stats:
        """All replicas' counts added up; weights and caches too, for each has its own."""
        all_ = [one.engine.stats() for one in self._replicas]
        total = Stats(**{one.name: sum(getattr(stats, one.name) for stats in all_)
                         for one in fields(Stats)})
        return replace(total, refused=self._refused,
                       resting=sum(not takes for takes in self.health().values()))

    def health(self) -> Mapping[str, bool]:
        """Which replicas take requests now."""
        now = time.monotonic()
        return {one.name: not one.closed and one.rests_until <= now for one in self._replicas}

    def drain(self) -> None:
        """See `Engine.drain`."""
        with self._lock:
            self._open = False
        for one in self._replicas:
            one.engine.drain()

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._open = False
            for sent in self._sent.values():
                sent.cancelled = True
        for one in self._replicas:
            one.engine.close()

    def _send(self, ticket: int, asked: Asked, deliver: Deliver,
              passed: Sequence[_Replica]) -> bool:
        """Hands a request to a replica that takes it; False where none does."""
        beginning = _beginning(asked)
        for replica in self._order(beginning, passed):
            sent = _Sent(asked, deliver, replica)
            with self._lock:
                self._sent[ticket] = sent
                replica.running += 1
            try:
                there = replica.engine.submit(asked, self._listener(ticket, sent,
                                                                    [*passed, replica]))
            except BaseException as error:
                with self._lock:
                    self._sent.pop(ticket, None)
                    replica.running -= 1
                if isinstance(error, Closed):
                    replica.closed = True
                    _log.warning("replica %s takes no more requests: %s", replica.name, error)
                elif not isinstance(error, Busy):
                    raise
                continue
            with self._lock:
                sent.ticket = there
                self._known[beginning] = replica
                self._known.move_to_end(beginning)
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
                late = sent.cancelled
            if late:
                replica.engine.cancel(there)
            return True
        return False

    def _order(self, beginning: Hashable, passed: Sequence[_Replica]) -> list[_Replica]:
        """Replicas that may be asked, best first; those that rest only where no other is left."""
        with self._lock:
            now = time.monotonic()
            able = [one for one in self._replicas if not one.closed and one not in passed]
            able.sort(key=lambda one: (one.rests_until > now, one.running))
            known = self._known.get(beginning)
            if known in able and known.rests_until <= now and (
                    known.running - able[0].running < MUCH_BUSIER):
                able.remove(known)
                able.insert(0, known)
            return able

    def _listener(self, ticket: int, sent: _Sent, passed: Sequence[_Replica]) -> Deliver:
        def listen(delta: Delta) -> None:
            if delta.finish is None:
                sent.begun = True
                sent.deliver(delta)
                return
            with self._lock:
                sent.replica.running -= 1
                self._sent.pop(ticket, None)
            if delta.finish != "failed":
                sent.replica.failed = 0
            elif not _is_own(delta):
                self._rest(sent.replica, str(delta.extra.get("reason", "no reason given")))
                if not sent.begun and not sent.cancelled and self._open and self._send(
                        ticket, sent.asked, sent.deliver, passed):
                    return
            sent.deliver(delta)

        return listen

    def _rest(self, replica: _Replica, why: str) -> None:
        with self._lock:
            replica.failed += 1
            replica.rests_until = time.monotonic() + REST_SECONDS
        _log.warning("replica %s failed and is passed over for %g s: %s", replica.name,
                     REST_SECONDS, why)


def _beginning(asked: Asked) -> Hashable:
    """What decides where a request's like went: its first tokens, its adapter and its salt."""
    prompt = asked.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        begin: Hashable = prompt[:BEGINNING]
    else:
        begin = str(prompt[:1])[:BEGINNING * 4]
    return asked.salt, asked.adapter, begin


def _is_own(delta: Delta) -> bool:
    """Whether a failure is the request's own (refused as it is), not the replica's."""
    return refuses(int(delta.extra.get("status", 0)))
