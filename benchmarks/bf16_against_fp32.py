"""The same 1,000 steps on real text in bf16 (fp32 masters, fp32 loss) and in fp32.

Prints both final held-out losses and how far apart they are, and the largest distance of the
training losses' running means; fails beyond `TOLERANCE`.

    python benchmarks/bf16_against_fp32.py [--steps 1000] [--optimiser adamw|muon] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import RECIPE, Kept, curve, shape, text

TOLERANCE = 0.005
WINDOW = 20


def means(losses: list[float]) -> list[float]:
    """Means of each `WINDOW` training losses."""
    return [statistics.fmean(losses[i:i + WINDOW]) for i in range(0, len(losses), WINDOW)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--json", type=Path, help="where results are kept")
    parser.add_argument("--text", type=Path, help="where the prepared text is kept")
    arguments = parser.parse_args()
    kept = Kept(arguments.json)
    with tempfile.TemporaryDirectory() as aside:
        corpus = text(arguments.text or Path(aside) / "text")
        found = {kind: kept.of(
            f"{kind}, {arguments.optimiser}, {arguments.steps} steps",
            lambda kind=kind: curve(corpus, shape(), replace(
                RECIPE, precision=kind, optimiser=arguments.optimiser), arguments.steps))
            for kind in ("fp32", "bf16")}
    apart = found["bf16"]["loss"] / found["fp32"]["loss"] - 1
    widest = max(abs(a / b - 1) for a, b in zip(
        means(found["bf16"]["training"]), means(found["fp32"]["training"]), strict=True))
    print(f"final held-out loss: fp32 {found['fp32']['loss']:.4f}, bf16 "
          f"{found['bf16']['loss']:.4f} nats a token: {apart:+.2%}")
    print(f"training loss, means of {WINDOW} steps: at most {widest:.2%} apart")
    if abs(apart) > TOLERANCE:
        sys.exit(f"more than {TOLERANCE:.1%} apart")


if __name__ == "__main__":
    main()
