"""When a budget begins anew: never, each month, each day; all in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

Period = Literal["all", "month", "day"]
PERIODS: tuple[Period, ...] = ("all", "month", "day")


def start_of(period: Period, when: float) -> int:
    """Start of the period that the time `when` (seconds since 1970) is in; 0 for "all"."""
    if period == "all":
        return 0
    at = datetime.fromtimestamp(when, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((at.replace(day=1) if period == "month" else at).timestamp())


def end_of(period: Period, when: float) -> float | None:
    """Its end; None for "all"."""
    if period == "all":
        return None
    start = datetime.fromtimestamp(start_of(period, when), UTC)
    if period == "day":
        return start.timestamp() + 86400
    month = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return month.timestamp()
