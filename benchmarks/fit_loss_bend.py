"""Fits the bend of the loss law to published small runs, and says how well each power fits.

    python benchmarks/fit_loss_bend.py

Prints, for L = E + x / (1 + (x/S)^p)^(1/p): the S that scatters least against one free factor (the
runs are of another text and tokenizer than the law), and each run's ratio at p = 2. The cap goes
into `facts/loss_constants.csv` by hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curbcut.facts import loss_laws, loss_runs

POWERS = (1.0, 1.5, 2.0, 2.5, 3.0)
CAPS = np.arange(3.0, 12.05, 0.1)
LONGEST_WARMUP = 0.9
"""A run that only warmed up says nothing of what its tokens could teach."""


def logs(cap: float, power: float) -> NDArray[np.float64]:
    """ln of measured over lawful loss of each run that was trained out."""
    law = loss_laws.law()
    found = []
    for run in loss_runs.runs():
        if run.warmup_share < LONGEST_WARMUP:
            excess = law.A / run.parameters ** law.alpha + law.B / run.tokens ** law.beta
            bent = excess / (1 + (excess / cap) ** power) ** (1 / power)
            found.append(np.log(run.nats_per_token / (law.E + bent)))
    return np.array(found)


def best(power: float) -> tuple[float, float]:
    """(scatter of the logs, the cap that has it)."""
    return min((float(logs(cap, power).std()), float(cap)) for cap in CAPS)


def main() -> None:
    """Prints the fits."""
    for power in POWERS:
        scatter, cap = best(power)
        factor = float(np.exp(logs(cap, power).mean()))
        print(f"power {power:.1f}: cap {cap:.1f}, scatter {scatter:.2%}, factor {factor:.3f}")
    _, cap = best(2.0)
    trained = [run for run in loss_runs.runs() if run.warmup_share < LONGEST_WARMUP]
    for run, ratio in zip(trained, np.exp(logs(cap, 2.0)), strict=True):
        print(f"{run.run:14s} {run.nats_per_token:.3f} nats, {ratio:.3f} of the law")


if __name__ == "__main__":
    main()
