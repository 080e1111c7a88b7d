"""The share of wall time that trains, where machines fail: checkpoints, lost work, restarts.

Each checkpoint costs time; each fault loses the work since the last one, and a restart. Young's
interval sqrt(2 d M) for a checkpoint of d seconds and a mean time to interrupt of M (CACM 17, 1974)
minimises the sum to first order; Daly's higher-order one (FGCS 22, 2006, equation 37) holds where d
is no longer small beside M. Faults come to each accelerator alike, so M falls as their number
grows.
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.facts import constants
from curbcut.physics.numbers import Number, larger, where

INTERRUPTION = "interruption_accelerator_hours"
RESTART = "restart_seconds"
SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Goodput:
    """Where wall time goes, as shares of it that add up to 1."""

    productive: Number
    checkpoints: Number
    lost: Number
    """Work done again after a fault."""
    restarts: Number
    interval_seconds: Number
    """Time between checkpoints that was assumed."""


def interruption_seconds(accelerators: Number) -> Number:
    """Mean time to an interruption of a job on so many accelerators (published: see the facts)."""
    hours = constants.constant(INTERRUPTION).value
    return SECONDS_AN_HOUR * hours / accelerators


def young(checkpoint_seconds: Number, mean_seconds: Number) -> Number:
    """Young's interval between checkpoints."""
    return (2.0 * checkpoint_seconds * mean_seconds) ** 0.5


def daly(checkpoint_seconds: Number, mean_seconds: Number) -> Number:
    """Daly's interval: sqrt(2 d M) (1 + sqrt(d/2M)/3 + d/18M) - d, and M where d >= 2M."""
    share = checkpoint_seconds / (2.0 * mean_seconds)
    found = (young(checkpoint_seconds, mean_seconds) * (1.0 + share ** 0.5 / 3.0 + share / 9.0)
             - checkpoint_seconds)
    return where(checkpoint_seconds < 2.0 * mean_seconds, found, mean_seconds)


def goodput(checkpoint_seconds: Number, accelerators: Number,
            interval_seconds: Number | None = None, restart_seconds: Number | None = None,
            mean_seconds: Number | None = None) -> Goodput:
    """Goodput with a checkpoint every `interval_seconds` of work (Daly's where None) and a fault
    every `mean_seconds` (by the number of accelerators where None).

    In the long run, a second of work brings d/T of checkpoints and 1/M of faults, each of which
    costs half an interval with its checkpoint, and a restart.
    """
    mean = interruption_seconds(accelerators) if mean_seconds is None else mean_seconds
    interval = daly(checkpoint_seconds, mean) if interval_seconds is None else interval_seconds
    interval = larger(interval, 1e-9)
    restart = constants.constant(RESTART).value if restart_seconds is None else restart_seconds
    saving = checkpoint_seconds / interval
    losing = (interval + checkpoint_seconds) / 2.0 / mean
    restarting = restart / mean
    whole = 1.0 + saving + losing + restarting
    return Goodput(1.0 / whole, saving / whole, losing / whole, restarting / whole, interval)
