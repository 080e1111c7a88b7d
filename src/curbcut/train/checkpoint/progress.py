"""What a checkpoint holds besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run stands: everything besides tensors that the next step depends on."""

    step: int
    """Optimiser steps done."""
    tokens: int
    """Tokens trained on."""
    recent_losses: tuple[float, ...] = ()
    """The policy's window."""
    skips_in_a_row: int = 0
    """Steps skipped just before."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent by kind, over all attempts."""
    joules: float | None = None
    """Measured energy over all attempts; None without a sensor."""
    threads: int = 0
    """CPU threads: bit-for-bit resume needs the same."""


def from_plain(raw: Mapping[str, Any]) -> Progress:
    """The reverse of `dataclasses.asdict` after JSON; raises TypeError or KeyError."""
    return Progress(**{**raw, "recent_losses": tuple(raw["recent_losses"])})
