"""Quality that narrower weights and caches are expected to lose, by what other models lost.

Between measured sizes the loss is interpolated in the logarithm of the parameters; beyond them it
is that of the nearest, with an interval that widens with the distance, for nobody looked there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from curbcut.facts import serving_quality
from curbcut.facts.serving_quality import Loss
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import ModelShape, ServeJob

DECADE_FACTOR = 3.0
"""Factor either way on a loss for each ten times of parameters beyond what was measured: an
assumption; larger models are mostly published to lose less."""
LEAST = 1e-4
"""Share of bits a byte below which a measured loss is noise of the text."""


def expected(shape: ModelShape, job: ServeJob) -> Estimate:
    """Rise of bits a byte of `shape` served as `job` says, as a share; no value where a part of it
    was never measured.
    """
    parts = [_of(serving_quality.rows(part, kind), shape.parameters, f"{part} in {kind}")
             for part, kind in (("weights", job.weight_precision), ("cache", job.cache_precision))
             if kind != "same"]
    if not parts:
        return given(0.0, "weights and cache as they are computed in")
    first, *rest = parts
    for one in rest:
        first = first.plus(one, f"{first.source}; {one.source}")
    return first


def _of(rows: Sequence[Loss], parameters: float, what: str) -> Estimate:
    if not rows:
        return unknown(f"{what}: nobody measured its loss", "modelled")
    below = max((row for row in rows if row.parameters <= parameters), default=rows[0],
                key=lambda row: row.parameters)
    above = min((row for row in rows if row.parameters >= parameters), default=rows[-1],
                key=lambda row: row.parameters)
    near = [row for row in rows if row.parameters in (below.parameters, above.parameters)]
    span = math.log(above.parameters / below.parameters)
    at = 0.0 if not span else math.log(parameters / below.parameters) / span
    at = min(1.0, max(0.0, at))

    def mean(of: float, name: str) -> float:
        found = [getattr(row, name) for row in near if row.parameters == of]
        return float(sum(found) / len(found))

    def between(name: str) -> float:
        return (1 - at) * mean(below.parameters, name) + at * mean(above.parameters, name)

    outside = max(0.0, math.log10(parameters / rows[-1].parameters),
                  math.log10(rows[0].parameters / parameters))
    spread = DECADE_FACTOR ** outside
    value = between("share")
    far = f", {10 ** outside:,.0f} times beyond what was measured" if outside > 0.01 else ""
    return Estimate(value, between("low") / spread, max(between("high"), LEAST) * spread,
                    "modelled", f"{what}: measured on {len(rows)} models{far}")
