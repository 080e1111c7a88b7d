"""Prompts to embed, one between any two steps of an engine, so that answers go on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from curbcut.serve.engine.interface import Unfit
from curbcut.serve.engine.runner import Runner

Vector = list[float]


class Embedding:
    """What waits to be embedded. Any thread adds and waits; the engine's own does the work."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: deque[tuple[Sequence[int], Future[Vector]]] = deque()

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def add(self, prompts: Sequence[Sequence[int]]) -> list[Future[Vector]]:
        """Puts prompts of tokens behind those that wait."""
        added = [(prompt, Future[Vector]()) for prompt in prompts]
        self._waiting.extend(added)
        return [found for _, found in added]

    def next(self) -> None:
        """Embeds the first one; what fails is told to its asker. Nothing where nothing waits."""
        if not self._waiting:
            return
        prompt, found = self._waiting.popleft()
        if not found.set_running_or_notify_cancel():
            return
        try:
            found.set_result(self._runner.embed(prompt).tolist())
        except NotImplementedError:
            found.set_exception(Unfit("this engine has no embeddings"))
        except Exception as error:  # it is the asker's, whatever it is
            found.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Tells all who wait that they wait for nothing."""
        while self._waiting:
            _, found = self._waiting.popleft()
            if found.set_running_or_notify_cancel():
                found.set_exception(error)


def gathered(found: Sequence[Future[Vector]]) -> list[Vector]:
    """Waits for all; once one failed, nobody works on the others."""
    try:
        return [one.result() for one in found]
    finally:
        for one in found:
            one.cancel()
