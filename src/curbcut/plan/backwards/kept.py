"""What many questions share: fleets and choices are priced once, and each question reads its part.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from curbcut.plan.backwards.choices import Choices
from curbcut.plan.backwards.fleets import Fleet
from curbcut.plan.backwards.table import Table

T = TypeVar("T")

MOST = {"fleets": 32, "tables": 128, "choices": 4}
"""Of each kind how many are kept, the newest used: all machines have 40 tables of 0.1 MB, and their
choices are 10 MB."""


class Kept:
    """For a process that answers one question after another. What is kept is of all shapes of the
    family; a question takes those within its reach, which are what it would have priced itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, OrderedDict[Hashable, Any]] = {
            kind: OrderedDict() for kind in MOST}

    def fleets(self, key: Hashable, find: Callable[[], list[Fleet]]) -> list[Fleet]:
        """The fleets of a wish at a place; `key` says all that they depend on."""
        return self._once("fleets", key, find)

    def table(self, key: Hashable, price: Callable[[], Table | None]) -> Table | None:
        """One accelerator's table of all shapes."""
        return self._once("tables", key, price)

    def choices(self, key: Hashable, join: Callable[[], Choices]) -> Choices:
        """The choices of all fleets among all shapes."""
        return self._once("choices", key, join)

    def _once(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        known = self._known[kind]
        with self._lock:
            if key in known:
                known.move_to_end(key)
                kept: T = known[key]
                return kept
        found = make()  # without the lock: accelerators are priced by threads
        with self._lock:
            known[key] = found
            while len(known) > MOST[kind]:
                known.popitem(last=False)
        return found
