"""What requests took, told once each to whoever wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from curbcut.ledger.access import Caller
from curbcut.ledger.holds import Taken

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one request took, told once at its end."""

    key: str | None
    """Name of the key that asked; None where no keys are needed."""
    model: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    """From acceptance to the end."""
    finish: str
    """stop, length, cancelled or failed: of several answers, the worst."""
    cached_tokens: int = 0
    """Of the prompt's tokens, those that were remembered."""
    adapter: str = ""
    """The LoRA adapter that answered, "" for none."""
    ttft_seconds: float | None = None
    """From acceptance to the first token of any of its answers; None where there was none."""
    caller: Caller | None = None
    """Whose key it was; None where no keys are needed."""
    taken: Taken | None = None
    """What was charged; None where nothing was."""


OnUse = Callable[[Use], None]


class Uses:
    """Hands uses to `on_use` one after another on a thread of their own, so no answer waits."""

    def __init__(self, on_use: OnUse | None) -> None:
        self._on_use = on_use
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="curbcut-uses")

    def tell(self, use: Use) -> None:
        """Returns at once."""
        if self._on_use is not None:
            self._thread.submit(self._call, use)

    def close(self) -> None:
        """Returns when all uses are told."""
        self._thread.shutdown(wait=True)

    def _call(self, use: Use) -> None:
        assert self._on_use is not None
        try:
            self._on_use(use)
        except Exception:  # a ledger that cannot be written must not end the server
            _log.exception("a use was not recorded: %s", use)
