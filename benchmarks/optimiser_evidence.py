"""What each optimiser and schedule is worth on our own text: tokens to reach a loss, against AdamW.

AdamW's rate is swept, then AdamW is trained at its best rate for half, once and twice the tokens:
its final held-out loss against tokens is the yardstick. Every variant is trained once, and its
final loss says how many tokens tuned AdamW would have needed for it; over its own tokens that is
its worth. muP: rates swept at a small width, the best applied to a larger one with and without muP,
beside that width's own sweep. Runs are kept in a JSON file: the same command goes on where it was.

    python benchmarks/optimiser_evidence.py --json FILE [--steps 400] [--text FOLDER] [--only NAME]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import RECIPE, Kept, curve, shape, text

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)
LENGTHS = (0.5, 1.0, 2.0)
NARROW, WIDE = 64, 256
GROUPS = ("adamw", "muon", "others", "mup")
Runs = dict[str, dict[str, Any]]


class Bench:
    """One text, one length, and what was run so far."""

    def __init__(self, arguments: argparse.Namespace, corpus: Any) -> None:
        self.kept, self.steps, self.corpus = Kept(arguments.json), arguments.steps, corpus

    def run(self, name: str, *, width: int = 128, length: float = 1.0,
            **changes: Any) -> dict[str, Any]:
        """A variant of the recipe, trained for `length` times the usual steps."""
        recipe, steps = replace(RECIPE, **changes), round(self.steps * length)
        return self.kept.of(f"{name} ({self.steps} steps)", lambda: curve(
            self.corpus, shape(width), recipe, steps))

    def swept(self, name: str, width: int = 128, **changes: Any) -> float:
        """The rate of `RATES` with the lowest final loss."""
        ends = {rate: self.run(f"{name}, rate {rate:g}", width=width, learning_rate=rate,
                               **changes)["loss"] for rate in RATES}
        return min(ends, key=ends.__getitem__)


def yardstick(bench: Bench, rate: float) -> list[tuple[float, float]]:
    """(log tokens, final loss) of tuned AdamW, falling loss."""
    ends = [bench.run(f"adamw, rate {rate:g}" + (f", {length:g} x tokens" if length != 1 else ""),
                      length=length, learning_rate=rate) for length in LENGTHS]
    return [(math.log(one["curve"][-1][0]), one["loss"]) for one in ends]


def worth(points: list[tuple[float, float]], loss: float) -> float:
    """Tokens that AdamW would need for `loss`, over those of its run of length 1: on the line
    through the nearest two points, log tokens against loss.
    """
    pair = points[:2] if loss > points[1][1] else points[1:]
    (first, high), (last, low) = pair
    return math.exp(first + (last - first) * (high - loss) / (high - low) - points[1][0])


def variants(bench: Bench, rate: float, wanted: set[str]) -> Runs:
    """All runs beside AdamW's, by name."""
    found: Runs = {}
    if "muon" in wanted:
        best = bench.swept("muon", optimiser="muon")
        found[f"muon, rate {best:g}"] = bench.run(f"muon, rate {best:g}")
    if "others" in wanted:
        for name, changes in {
                "cosine": {"schedule": "cosine"}, "constant": {"schedule": "constant"},
                "constant, ema 0.98": {"schedule": "constant", "ema_decay": 0.98},
                "ema 0.98": {"ema_decay": 0.98}, "z-loss 1e-4": {"z_loss": 1e-4},
                "adamw8": {"optimiser": "adamw8"},
                "adafactor": {"optimiser": "adafactor"}}.items():
            found[name] = bench.run(name, learning_rate=rate, **changes)
    return found


def transferred(bench: Bench) -> None:
    """Prints what the narrow width's best rate gives at the wide one."""
    narrow = bench.swept(f"width {NARROW}", width=NARROW)
    own = bench.swept(f"width {WIDE}", width=WIDE)
    scaled = bench.swept(f"width {WIDE} muP", width=WIDE, mup_base_width=NARROW)
    rows = [("own sweep", "", own), ("narrow's rate as it is", "", narrow),
            ("narrow's rate by muP", " muP", narrow), ("best under muP", " muP", scaled)]
    print(f"\nWidth {WIDE} with the rate of width {NARROW} ({narrow:g}):")
    for label, how, rate in rows:
        loss = bench.run(f"width {WIDE}{how}, rate {rate:g}")["loss"]
        print(f"  {label:26} rate {rate:<7g} {loss:.4f} nats a token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="where results are kept")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--text", type=Path, help="where the prepared text is kept")
    parser.add_argument("--only", choices=GROUPS, action="append")
    arguments = parser.parse_args()
    wanted = set(arguments.only or GROUPS)
    with tempfile.TemporaryDirectory() as aside:
        bench = Bench(arguments, text(arguments.text or Path(aside) / "text"))
        rate = bench.swept("adamw")
        points = yardstick(bench, rate)
        rows = variants(bench, rate, wanted)
        print(f"\nAdamW's best rate {rate:g}: {points[1][1]:.4f} nats a token\n")
        print(f"{'variant':26}{'nats a token':>14}{'worth in AdamW tokens':>24}")
        for name, result in rows.items():
            print(f"{name:26}{result['loss']:14.4f}{worth(points, result['loss']):24.2f}")
        if "mup" in wanted:
            transferred(bench)


if __name__ == "__main__":
    main()
