"""What an engine has done, counted on its thread a few times a step."""

from __future__ import annotations

from collections.abc import Mapping

from curbcut.serve.engine.interface import Finish, StepRecord
from curbcut.serve.engine.request import Piece


class Counts:
    """The fields of `Stats` that grow with steps and ends, by their names there."""

    def __init__(self) -> None:
        self.finished = self.cancelled = self.failed = 0
        self.prompt_tokens = self.cached_tokens = self.answer_tokens = 0
        self.steps = self.decode_steps = self.decode_tokens = 0
        self.drafted_tokens = self.accepted_tokens = self.first_tokens = 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.first_token_seconds = self.next_token_seconds = 0.0

    def copy(self) -> Mapping[str, int | float]:
        """All of them as they are now."""
        return dict(self.__dict__)

    def piece(self, piece: Piece, going: bool, gave: int, now: float) -> None:
        """A piece gave its request `gave` tokens at `now`; `going` where its answer had begun or
        was to begin with the one token left to read.
        """
        request = piece.request
        if going:
            self.drafted_tokens += piece.count - 1
            self.accepted_tokens += max(0, gave - 1)
        if not gave:
            return
        waited, request.newest_seconds = now - request.newest_seconds, now
        self.answer_tokens += gave
        if request.answered > gave:
            self.decode_tokens += gave
            self.next_token_seconds += waited
        else:
            self.prompt_tokens += request.prompt_tokens
            self.cached_tokens += request.cached
            self.first_tokens += 1
            self.first_token_seconds += waited

    def step(self, record: StepRecord, computed: int) -> None:
        """A step of `computed` tokens in all; its time is shared out by them."""
        share = sum(record.prefill.values()) / computed
        self.steps += 1
        self.decode_steps += bool(record.decode)
        self.prefill_seconds += record.seconds * share
        self.decode_seconds += record.seconds * (1 - share)

    def end(self, finish: Finish) -> None:
        """A request has ended."""
        if finish == "cancelled":
            self.cancelled += 1
        elif finish == "failed":
            self.failed += 1
        else:
            self.finished += 1
