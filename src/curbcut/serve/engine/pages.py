"""Who holds which page of the cache, and which prompts' pages are remembered.

A page holds keys and values of `page_tokens` positions in all layers. Full pages are known by
their tokens and the page before them, compared exactly, so that no collision can hand out
another prompt's values; the first page stands behind a root of its own for each salt. A page that
nobody holds stays remembered until its room is needed, the longest unused first, and the end of a
sequence before its beginning: whatever is remembered can be reached from its root.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

Key = tuple[Hashable, tuple[int, ...]]
"""What a full page is known by: what it stands behind (a root, or the page before it), and its
tokens."""


class Pages:
    """`count` pages. One thread owns it."""

    def __init__(self, count: int, page_tokens: int) -> None:
        self.count, self.page_tokens = count, page_tokens
        self._holders = [0] * count
        self._keys: list[Key | None] = [None] * count
        self._by_key: dict[Key, int] = {}
        self._identity: list[int] = [0] * count
        """Changes whenever a page is given new content: no key outlives what it stands behind."""
        self._serial = 0
        self._free: OrderedDict[int, None] = OrderedDict((page, None) for page in range(count))
        """Pages that nobody holds, in the order in which they are given out."""
        self.remembered = 0
        """Pages that nobody holds and whose content is known."""

    @property
    def free(self) -> int:
        """Pages that can be taken, remembered ones included."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Pages that are held."""
        return self.count - len(self._free)

    def find(self, tokens: Sequence[int], root: Hashable) -> tuple[list[int], Hashable]:
        """Pages that have the beginning of `tokens`, as far as they are known, and what a next
        one would stand behind. They are not held yet.
        """
        found: list[int] = []
        link, size = root, self.page_tokens
        for start in range(0, len(tokens) - size + 1, size):
            page = self._by_key.get((link, tuple(tokens[start: start + size])))
            if page is None:
                break
            found.append(page)
            link = self._identity[page]
        return found, link

    def unheld(self, pages: Sequence[int]) -> int:
        """How many of `pages` nobody holds yet."""
        return sum(not self._holders[page] for page in pages)

    def hold(self, pages: Sequence[int]) -> None:
        """Holds pages that were just found."""
        for page in pages:
            if self._holders[page] == 0:
                del self._free[page]
                self.remembered -= 1
            self._holders[page] += 1

    def take(self, count: int) -> list[int] | None:
        """New pages, or None where there are not so many."""
        if count > len(self._free):
            return None
        taken = []
        for _ in range(count):
            page, _ = self._free.popitem(last=False)
            key = self._keys[page]
            if key is not None:
                del self._by_key[key]
                self._keys[page] = None
                self.remembered -= 1
            self._serial += 1
            self._identity[page] = self._serial
            self._holders[page] = 1
            taken.append(page)
        return taken

    def know(self, pages: list[int], place: int, tokens: tuple[int, ...],
             link: Hashable) -> Hashable:
        """Remembers that the held page `pages[place]` holds `tokens` (a whole page of them) behind
        `link`; returns what the next page stands behind. Where another page is known to hold the
        same, it takes this one's place in `pages`, so that each content is there once.
        """
        key, page = (link, tokens), pages[place]
        other = self._by_key.get(key)
        if other is None:
            self._keys[page], self._by_key[key] = key, page
        elif other != page:
            self.hold([other])
            self.release([page])
            pages[place] = page = other
        return self._identity[page]

    def release(self, pages: Sequence[int]) -> None:
        """Gives pages back; the last ones of a sequence will be forgotten first."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free[page] = None
                if self._keys[page] is None:
                    self._free.move_to_end(page, last=False)
                else:
                    self.remembered += 1
