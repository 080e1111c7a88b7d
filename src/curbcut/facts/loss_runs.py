"""Published runs with their loss, which laws are held against: small, optimal and over-trained."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from curbcut.facts import table


@dataclass(frozen=True, kw_only=True)
class LossRun:
    """One run of the testbed of arXiv:2403.08540: trained and evaluated on C4, GPT-NeoX tokens."""

    run: str
    parameters: float
    """With embedding and head."""
    tokens: float
    nats_per_token: float
    """On held-out C4."""
    warmup_share: float
    """Warm-up steps over all steps: near 1 the learning rate never came to its height."""
    source: str
    date: str


def runs() -> list[LossRun]:
    """All runs, in the order of the file."""
    return list(_all(table.overlay_folder()))


@functools.cache
def _all(overlay: Path) -> tuple[LossRun, ...]:
    return tuple(
        LossRun(run=row.text("run"), parameters=row.number("parameters"),
                tokens=row.number("tokens"), nats_per_token=row.number("nats_per_token"),
                warmup_share=row.number("warmup_share"), source=row.text("source"),
                date=row.text("date"))
        for row in table.rows("loss_runs", ("run",)))
