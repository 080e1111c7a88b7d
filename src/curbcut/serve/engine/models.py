"""The models that a server has, as the rooms above see them: names, and engines to borrow.

One model alone is `Single`; several that share this process's memory are a `shelf.Shelf`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from curbcut.serve.engine.interface import Engine, Stats


class Served(NamedTuple):
    """One name under which answers can be asked for."""

    name: str
    created: int
    """Seconds since 1970."""
    context_tokens: int
    """Longest prompt plus answer."""
    parent: str = ""
    """For an adapter, the name of the model that it changes."""


@dataclass(frozen=True)
class Leased:
    """An engine that stays as long as it is held."""

    engine: Engine
    adapter: str = ""
    """What `Asked.adapter` must be for the name that was asked for."""


class UnknownModel(LookupError):
    """No model goes by this name (404)."""


class NoRoom(Exception):
    """The model is not in memory, and those that are cannot go now (503, come again)."""


class Models(Protocol):
    """Takes questions from the event loop."""

    def names(self) -> Sequence[Served]:
        """All names that `lease` takes, in memory or not."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[Leased]:
        """The engine of a model, for as long as the block runs; loads it where needed, off the
        event loop. Raises UnknownModel, NoRoom, Closed, or CurbcutError for a folder that cannot
        be loaded.
        """
        ...

    def stats(self) -> Mapping[str, Stats]:
        """What the engines in memory have done so far, by the names of their models."""
        ...

    def drain(self) -> None:
        """Takes no more requests; those taken in go on."""
        ...

    def close(self) -> None:
        """Ends what runs, and all engines. May be called twice."""
        ...


class Single:
    """`Models` that are one engine, already in memory, and its adapters ("name:adapter")."""

    def __init__(self, engine: Engine, name: str, created: int) -> None:
        self.engine, self.name, self.created = engine, name, created

    def names(self) -> Sequence[Served]:
        """See `Models.names`."""
        context = self.engine.context_tokens
        return [Served(self.name, self.created, context),
                *(Served(f"{self.name}:{adapter}", self.created, context, self.name)
                  for adapter in self.engine.adapters)]

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Leased]:
        """See `Models.lease`."""
        adapter = name.removeprefix(f"{self.name}:") if name != self.name else ""
        if name != self.name and (adapter == name or adapter not in self.engine.adapters):
            raise UnknownModel(name)
        yield Leased(self.engine, adapter)

    def stats(self) -> Mapping[str, Stats]:
        """See `Models.stats`."""
        return {self.name: self.engine.stats()}

    def drain(self) -> None:
        """See `Models.drain`."""
        self.engine.drain()

    def close(self) -> None:
        """See `Models.close`."""
        self.engine.close()
