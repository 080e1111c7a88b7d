"""Several models in one process: loaded when first asked for, and put away, the longest unused
first, when another one needs the room.

A name is looked up in what was set out at the start and never becomes a path. An engine that
somebody holds is never put away. Models are loaded one at a time on a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

from curbcut.errors import InputError
from curbcut.ledger.keys import MODEL
from curbcut.serve.engine.interface import Closed, Engine, Stats
from curbcut.serve.engine.models import Leased, NoRoom, Served, UnknownModel

_log = logging.getLogger(__name__)
_SIZES = ("weights_bytes", "cache_bytes", "pages", "used_pages", "remembered_pages", "running",
          "waiting", "resting")
"""Fields of `Stats` that are of now, not counts."""


@dataclass(frozen=True, kw_only=True)
class Book:
    """One model that a shelf may hold."""

    load: Callable[[], Engine]
    """Brings it into memory."""
    bytes_: int
    """What it is expected to take there, weights and cache."""
    context_tokens: int
    created: int = 0
    """Seconds since 1970."""
    adapters: Sequence[str] = ()
    """Names of its adapters, each also served as "name:adapter"."""


@dataclass(eq=False)
class _Place:
    """A book and what became of it."""

    name: str
    book: Book
    engine: Engine | None = None
    loading: Future[None] | None = None
    holders: int = 0
    """Requests that use it or wait for it; while there are any, it stays."""
    used_seconds: float = 0.0
    bytes_: int = 0
    """What it takes: as expected until it is loaded, then as it is."""
    past: Stats = field(default_factory=Stats)
    """Counts of its engines that were put away."""


class Shelf:
    """`Models` that share `budget_bytes` of memory (None: as much as they take).

    Raises InputError for a name that is none, and for a model that is larger than all the room.
    """

    def __init__(self, books: Mapping[str, Book], budget_bytes: int | None = None) -> None:
        for name, book in books.items():
            _check_name(name)
            for adapter in book.adapters:
                _check_name(adapter)
            if budget_bytes is not None and book.bytes_ > budget_bytes:
                raise InputError(f"{name} takes about {book.bytes_ / 2**20:.0f} MiB, more than the "
                                 f"{budget_bytes / 2**20:.0f} MiB for all models", where="serve",
                                 mend="give more memory, a smaller cache or narrower weights")
        self._budget = budget_bytes
        self._places = {name: _Place(name, book) for name, book in books.items()}
        self._lock = threading.Lock()
        self._open = True
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="curbcut-loader")

    def names(self) -> Sequence[Served]:
        """See `Models.names`."""
        found = []
        for name, place in self._places.items():
            book, engine = place.book, place.engine
            context = engine.context_tokens if engine is not None else book.context_tokens
            found.append(Served(name, book.created, context))
            found += [Served(f"{name}:{adapter}", book.created, context, name)
                      for adapter in book.adapters]
        return found

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Leased]:
        """See `Models.lease`."""
        place, adapter = self._find(name)
        with self._held(place) as coming:
            if coming is not None:
                await asyncio.shield(asyncio.wrap_future(coming))
            assert place.engine is not None
            yield Leased(place.engine, adapter)

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Leased]:
        """The same outside of an event loop; waits while it is loaded."""
        place, adapter = self._find(name)
        with self._held(place) as coming:
            if coming is not None:
                coming.result()
            assert place.engine is not None
            yield Leased(place.engine, adapter)

    def stats(self) -> Mapping[str, Stats]:
        """See `Models.stats`; engines that were put away count on."""
        found = {}
        for name, place in self._places.items():
            engine = place.engine
            if engine is not None or place.past.requests:
                found[name] = total([place.past] + ([engine.stats()] if engine else []))
        return found

    def drain(self) -> None:
        """See `Models.drain`."""
        with self._lock:
            self._open = False
            engines = [place.engine for place in self._places.values() if place.engine]
        for engine in engines:
            engine.drain()

    def close(self) -> None:
        """See `Models.close`."""
        self.drain()
        self._loader.shutdown(wait=True)
        for place in self._places.values():
            if place.engine is not None:
                self._put_away(place)

    def _find(self, name: str) -> tuple[_Place, str]:
        base, _, adapter = name.partition(":")
        place = self._places.get(base)
        if place is None or (adapter and adapter not in place.book.adapters) or (
                name.endswith(":")):
            raise UnknownModel(name)
        return place, adapter

    @contextlib.contextmanager
    def _held(self, place: _Place) -> Iterator[Future[None] | None]:
        """Keeps a place as it is, and gives what must be waited for before it has an engine."""
        with self._lock:
            if not self._open:
                raise Closed("the server is shutting down")
            if place.engine is None and place.loading is None:
                place.loading = self._loader.submit(self._bring, place)
            place.holders += 1
            coming = place.loading
        try:
            yield coming
        finally:
            with self._lock:
                place.holders -= 1
                place.used_seconds = time.monotonic()

    # -- below: the loader's thread only, and `close` after it --------------------------------

    def _bring(self, place: _Place) -> None:
        try:
            if not self._open:
                raise Closed("the server is shutting down")
            self._make_room(place)
            started = time.perf_counter()
            engine = place.book.load()
            stats = engine.stats()
            place.bytes_ = stats.weights_bytes + stats.cache_bytes
            _log.info("%s is in memory after %.1f s", place.name, time.perf_counter() - started)
            with self._lock:
                place.engine = engine
                if not self._open:
                    engine.drain()
        finally:
            with self._lock:
                place.loading = None

    def _make_room(self, place: _Place) -> None:
        """Puts idle models away until `place` fits; raises NoRoom, and puts none away, where that
        would not do.
        """
        if self._budget is None:
            return
        with self._lock:
            inside = [one for one in self._places.values() if one.engine is not None]
            idle = sorted((one for one in inside if one.holders == 0),
                          key=lambda one: one.used_seconds)
            over = place.book.bytes_ + sum(one.bytes_ for one in inside) - self._budget
            leaving: list[tuple[_Place, Engine]] = []
            while over > 0 and idle:
                one = idle.pop(0)
                over -= one.bytes_
                leaving.append((one, one.engine))  # type: ignore[arg-type]
            if over > 0:
                raise NoRoom(f"there is no room for {place.name} while the others answer")
            for one, _ in leaving:  # whoever asks for it from now on loads it again, after this
                one.engine = None
        for one, engine in leaving:
            self._end(one, engine)

    def _put_away(self, place: _Place) -> None:
        engine, place.engine = place.engine, None
        assert engine is not None
        self._end(place, engine)

    @staticmethod
    def _end(place: _Place, engine: Engine) -> None:
        engine.close()
        past = total([place.past, engine.stats()])
        place.past = replace(past, **dict.fromkeys(_SIZES, 0))
        _log.info("%s was put away", place.name)


def total(parts: Sequence[Stats]) -> Stats:
    """The sum of each field."""
    return Stats(**{one.name: sum(getattr(part, one.name) for part in parts)
                    for one in fields(Stats)})


def _check_name(name: str) -> None:
    if not MODEL.fullmatch(name) or ":" in name:
        raise InputError(f"{name[:100]!r} is no name of a model: up to 64 of a-z, 0-9, '.', '_' "
                         "and '-'", where="serve", mend=f"call it {plain_name(name)}")


def plain_name(text: str) -> str:
    """The nearest name of a model to any text: "Qwen/Qwen3 0.6B" is qwen-qwen3-0.6b."""
    kept = "".join(letter if letter in "abcdefghijklmnopqrstuvwxyz0123456789._-" else "-"
                   for letter in text.lower())
    return kept.strip("-.")[:64] or "model"
