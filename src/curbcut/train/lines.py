"""What the lines of a run's record say in numbers: one meaning for pages, terminals and trackers.

A line that cannot tell a figure leaves it out; "nan" and "inf", which a record keeps as text, are
no figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNITS: Mapping[str, str] = {
    "loss": "nats/token", "bits_per_byte": "bits/byte", "tokens": "tokens",
    "tokens_per_second": "tokens/s", "mfu": "fraction", "gradient_norm": "", "learning_rate": "",
    "step_seconds": "seconds", "seconds": "seconds", "hours": "hours", "joules": "joules",
    "usd": "usd", "kwh": "kwh", "memory_bytes": "bytes", "busiest_expert": "times",
}
"""Every figure that `figures` may tell, and its unit."""

_AS_THEY_ARE = ("loss", "tokens", "gradient_norm", "learning_rate", "step_seconds", "mfu", "joules",
                "usd", "kwh", "memory_bytes", "busiest_expert", "bits_per_byte")


def figures(kind: str, body: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line of kind "step" or "evaluation", by name; of other kinds none.

    `seconds` and `hours` are wall clock of all attempts so far, `tokens`, `joules`, `usd` and
    `kwh` of the whole run so far; the others are of the step.
    """
    if kind not in ("step", "evaluation"):
        return {}
    found = {name: value for name in _AS_THEY_ARE if (value := number(body.get(name))) is not None}
    step, tokens, took = (number(body.get(name)) for name in ("step", "tokens", "step_seconds"))
    if step and tokens is not None and took:
        found["tokens_per_second"] = tokens / step / took  # all steps have as many tokens
    parts = body.get("seconds")
    if isinstance(parts, Mapping) and parts:
        known = [value for part in parts.values() if (value := number(part)) is not None]
        found["seconds"] = math.fsum(known)
        found["hours"] = found["seconds"] / 3600
    return found


def number(value: Any) -> float | None:
    """A finite number as it is, None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and math.isfinite(value) else None
