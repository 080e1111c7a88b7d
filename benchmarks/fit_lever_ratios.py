"""How far the ratio of two recipes' steps may be off, of one model on one machine with one stack:
`lever_step_ratio_share` and `lever_layout_floor` of the facts, from pairs of published rows.

    python benchmarks/fit_lever_ratios.py [--data ../shared/data]

A pair is two rows of one source, model, machine and sequence whose recipes differ. The time model
is that of a stack never seen, so that no row of the pair's own stack helped. Of each pair, the
logarithm of the measured ratio of seconds a token is set against the predicted one. What is printed
is the root mean square of their difference over that of the predicted ratio, each source with equal
weight, and of precision and compile apart; then the median error over 0.6745, and its root mean
square, of layouts that are predicted to be alike.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from curbcut.plan.validation import rows, timing
from curbcut.plan.validation.rows import Row

TABLE = "validation_training_throughput.csv"
ALIKE = 0.03
MOST_PAIRS = 400
"""Of one source."""
Pair = tuple[float, float, str]
"""Log of the measured and of the predicted ratio, and what differs."""


def pairs(found: list[Row], seconds: list[float]) -> dict[str, list[Pair]]:
    """Pairs by source, every other one of many."""
    alike: dict[tuple[object, ...], list[tuple[Row, float]]] = defaultdict(list)
    for row, each in zip(found, seconds, strict=True):
        if "seconds" in row.measured and math.isfinite(each) and row.measured["seconds"] > 0:
            key = (row.source, row.shape, repr(row.machine), row.recipe.sequence_tokens)
            alike[key].append((row, each))
    made: dict[str, list[Pair]] = defaultdict(list)
    for group in alike.values():
        for (one, mine), (other, theirs) in itertools.combinations(group, 2):
            if one.recipe != other.recipe:
                tokens = math.log(other.recipe.step_tokens / one.recipe.step_tokens)
                real = math.log(one.measured["seconds"] / other.measured["seconds"]) + tokens
                made[one.source].append((real, math.log(mine / theirs) + tokens, _what(one, other)))
    return {source: of[::-(-len(of) // MOST_PAIRS)] for source, of in made.items()}


def _what(one: Row, other: Row) -> str:
    names = [name for name in ("precision", "compile") if getattr(one.recipe, name)
             != getattr(other.recipe, name)]
    return " and ".join(names) or "layout"


def share(found: list[list[Pair]]) -> float:
    """Root mean square of the error over that of the predicted ratio, sources weighing alike."""
    errors = [statistics.fmean((real - said) ** 2 for real, said, _ in of) for of in found]
    sizes = [statistics.fmean(said ** 2 for _, said, _ in of) for of in found]
    return (sum(errors) / sum(sizes)) ** 0.5


def main() -> int:
    """Prints the share; returns 0, also where the table is not at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    path = parser.parse_args().data / TABLE
    if not path.is_file():
        print(f"skipped: {path} is not here", file=sys.stderr)
        return 0
    found = [row for row in rows.throughput(path)[0] if row.status == "ok"]
    made = pairs(found, list(timing.unseen(found).seconds))
    for kind in ("", "precision", "compile", "layout"):
        chosen = [[pair for pair in of if kind in pair[2]] for of in made.values()]
        chosen = [of for of in chosen if of]
        if chosen:
            print(f"{kind or 'all':10} {sum(map(len, chosen)):5} pairs of {len(chosen):2} sources: "
                  f"{share(chosen):.2f}")
    near = [real - said for of in made.values() for real, said, what in of
            if what == "layout" and abs(said) < ALIKE]
    median = statistics.median(map(abs, near)) / 0.6745
    square = statistics.fmean(error * error for error in near) ** 0.5
    print(f"alike      {len(near):5} pairs: {median:.3f}, {square:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
