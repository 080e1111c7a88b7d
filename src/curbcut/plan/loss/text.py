"""What tokens are: their bytes by vocabulary, what one teaches, and what text is meant."""

from __future__ import annotations

import itertools
import math

from curbcut.facts import loss_constants
from curbcut.physics.numbers import Number, larger, log2, smaller
from curbcut.plan import machines
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Run

PYTHON = "python-stdlib"
GENERAL = ""
"""Text that nobody named: web pages and books, as the law's own."""
BYTES_PER_TOKEN = ((1024, 2.54), (2048, 2.92), (4096, 3.29), (8192, 3.58), (16384, 3.76),
                   (32768, 3.85))
"""Measured bytes a token of a byte-level BPE by vocabulary, on held-out files of Python's library
that its training did not see."""
SMALL_WORTH_PARAMETERS, LARGE_WORTH_PARAMETERS = 0.1e9, 1.2e9
"""Model sizes of the two published figures of Muon (arXiv:2509.02046, abstract)."""


def bytes_per_token(vocab: int, text: str = PYTHON) -> float:
    """Bytes a token by vocabulary, between the known ones on a log scale: of Python's own library
    as measured; of any other text by the published figures of prose at 32k and 64k entries, and
    towards those of Python at small vocabularies, whose tokens are pieces of words in either.
    """
    points = [(math.log(size), value) for size, value in BYTES_PER_TOKEN]
    if text != PYTHON:
        longer = loss_constants.value("law_bytes_per_token") / points[-1][1]
        span = points[-1][0] - points[0][0]
        points = [(place, value * longer ** ((place - points[0][0]) / span))
                  for place, value in points]
        points.append((math.log(65536), loss_constants.value("bytes_per_token_65536")))
    place = min(max(math.log(vocab), points[0][0]), points[-1][0])
    for (left, low), (right, high) in itertools.pairwise(points):
        if place <= right:
            return low + (high - low) * (place - left) / (right - left)
    return points[-1][1]


def optimiser_worth(optimiser: str, parameters: Number) -> Number:
    """Tokens of well-tuned AdamW that one token is worth with `optimiser`: Muon's 1.4 at 0.1B
    parameters falls to 1.1 at 1.2B on a log scale, and stays so outside; the others have 1.
    """
    if optimiser != "muon":
        return 1.0
    small, large = (loss_constants.value(f"muon_tokens_{size}") for size in ("small", "large"))
    span = math.log2(LARGE_WORTH_PARAMETERS / SMALL_WORTH_PARAMETERS)
    share = log2(parameters / SMALL_WORTH_PARAMETERS) / span
    return small * (large / small) ** larger(0.0, smaller(1.0, share))


def worth(optimiser: str, parameters: float, token_worth: float = 1.0) -> Estimate:
    """What a token teaches with this optimiser, in tokens of the law: the optimiser's worth times
    what the person says of the text's quality (`TrainJob.token_worth`).
    """
    middle = float(optimiser_worth(optimiser, parameters))
    said = "" if token_worth == 1 else f", x {token_worth:g} a token of this text (given)"
    if optimiser != "muon":
        return Estimate(token_worth, token_worth, token_worth, "given",
                        f"{optimiser} as the law's runs{said}")
    known = loss_constants.constant(
        "muon_tokens_small" if parameters < LARGE_WORTH_PARAMETERS else "muon_tokens_large")
    ends = (min(middle, known.low), max(middle, known.high))
    return Estimate(middle * token_worth, ends[0] * token_worth, ends[1] * token_worth, "modelled",
                    f"{known.source}{said}")


def meant(run: Run, prepared: bool) -> str:
    """The text that a run's loss is of. The default text is taken at its word where it is
    prepared or the run is on the machine at hand; a plan for another machine that says nothing of
    its text means general text, not Python's library.
    """
    unsaid = run.train.text == PYTHON and not prepared and not machines.is_here(run.machine.name)
    return GENERAL if unsaid else run.train.text
