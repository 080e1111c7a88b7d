"""Who holds which page of the cache, and which prompts' pages are remembered.

A page holds keys and values of `page_tokens` positions in all layers. Full pages are known by
their tokens and the page before them, compared exactly, so that no collision can hand out
another prompt's values; the first page stands behind a root of its own for each salt. A page that
nobody holds stays remembered until its room is needed, the longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

Key = tuple[Hashable, tuple[int, ...]]
"""What a full page is known by: the page before it (or a root), and its tokens."""


class Pages:
    """`count` pages. One thread owns it."""

    def __init__(self, count: int, page_tokens: int) -> None:
        self.count, self.page_tokens = count, page_tokens
        self._holders = [0] * count
        self._keys: list[Key | None] = [None] * count
        self._by_key: dict[Key, int] = {}
        self._serial = 0
        self._identity: list[int] = [0] * count
        """Changes whenever a page is given new content, so that a child's key dies with it."""
        self._free: OrderedDict[int, None] = OrderedDict((page, None) for page in range(count))
        """Pages that nobody holds, the longest unused first."""

    @property
    def free(self) -> int:
        """Pages that can be taken, remembered ones included."""
        return len(self._free)

    @property
    def remembered(self) -> int:
        """Pages that nobody holds and whose content is known."""
        return sum(self._keys[page] is not None for page in self._free)

    def hold_known(self, tokens: Sequence[int], root: Hashable) -> list[int]:
        """Holds the pages that have the beginning of `tokens`, as far as they are remembered."""
        found: list[int] = []
        before: Hashable = root
        size = self.page_tokens
        for start in range(0, len(tokens) - size + 1, size):
            page = self._by_key.get((before, tuple(tokens[start: start + size])))
            if page is None:
                break
            found.append(page)
            before = self._identity[page]
        for page in found:
            self._hold(page)
        return found

    def take(self, count: int) -> list[int] | None:
        """New pages, or None where there are not so many."""
        if count > len(self._free):
            return None
        taken = []
        for _ in range(count):
            page, _ = self._free.popitem(last=False)
            self._forget(page)
            self._holders[page] = 1
            taken.append(page)
        return taken

    def know(self, pages: Sequence[int], tokens: Sequence[int], root: Hashable) -> None:
        """Remembers what full pages hold: all whole pages of `tokens`, which lie in `pages`."""
        before: Hashable = root
        size = self.page_tokens
        for place in range(len(tokens) // size):
            page = pages[place]
            if self._keys[page] is None:
                key = (before, tuple(tokens[place * size: (place + 1) * size]))
                if key in self._by_key:  # another one has the same: this copy stays unknown
                    before = self._identity[self._by_key[key]]
                    continue
                self._keys[page], self._by_key[key] = key, page
            before = self._identity[page]

    def release(self, pages: Sequence[int]) -> None:
        """Gives pages back; the last ones of a sequence will be forgotten first."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free[page] = None
                if self._keys[page] is None:
                    self._free.move_to_end(page, last=False)

    def check(self) -> None:
        """Raises AssertionError where the books do not balance; for tests and idle moments."""
        held = sum(count > 0 for count in self._holders)
        assert held + len(self._free) == self.count, "pages are lost"
        assert all(self._holders[page] == 0 for page in self._free), "a free page is held"
        assert all(self._keys[page] == key for key, page in self._by_key.items()), "a stale key"

    def _hold(self, page: int) -> None:
        if self._holders[page] == 0:
            del self._free[page]
        self._holders[page] += 1

    def _forget(self, page: int) -> None:
        key = self._keys[page]
        if key is not None:
            del self._by_key[key]
            self._keys[page] = None
        self._serial += 1
        self._identity[page] = self._serial
