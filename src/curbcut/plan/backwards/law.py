"""The expected loss of many shapes and token counts at once: `loss.law` over columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curbcut.facts import loss_laws
from curbcut.plan.backwards.question import MOST_EPOCHS, Question
from curbcut.plan.loss import law, learned
from curbcut.plan.loss.text import bytes_per_token
from curbcut.spec.nouns import ModelShape

Floats = NDArray[np.float64]


class Law:
    """Bits a byte of `shapes` under the question's text, trained with one optimiser."""

    def __init__(self, shapes: Sequence[ModelShape], question: Question, optimiser: str) -> None:
        def column(values: Sequence[float]) -> Floats:
            return np.array(values, np.float64)

        text = question.text
        self.parameters = column([one.active_parameters for one in shapes])
        self.e = loss_laws.law().E
        self.expanded = column([law.expansion(one) for one in shapes])
        self.bytes = column([bytes_per_token(one.vocab, text) for one in shapes])
        self.worth = column([learned.taught_worth(
            text, optimiser, float(one.active_parameters), question.token_worth).value or 1.0
            for one in shapes])
        self.prior = learned.prior(text)
        self.unique = question.text_bytes / self.bytes if question.text_bytes else None
        self.capacity = np.asarray(law.of_parameters(self.parameters, None if self.unique is None
                                                     else law.law_tokens(self.unique, self.bytes),
                                                     self.expanded), np.float64)
        different = None if self.unique is None else float(
            law.law_tokens(self.unique[0], self.bytes[0]))
        self.readings = learned.readings(question.pairs, text, optimiser, different)

    @property
    def most_tokens(self) -> Floats:
        """Tokens beyond which the text teaches little more; infinite for endless text."""
        if self.unique is None:
            return np.full(len(self.parameters), np.inf)
        return MOST_EPOCHS * self.unique

    def unique_tokens(self, place: int) -> float | None:
        """Different tokens at hand for one shape; None for no end of them."""
        return None if self.unique is None else float(self.unique[place])

    def bits(self, tokens: Floats, places: NDArray[np.intp],
             worth: Floats | float = 1.0) -> Floats:
        """Expected bits a byte after `tokens` of the shapes at `places`, each token worth so much
        more (or less) than the question's.
        """
        own = self.bytes[places]
        unique = None if self.unique is None else law.law_tokens(self.unique[places], own)
        size, taught = self.parameters[places], law.law_tokens(tokens, own)
        data = law.of_tokens(taught, unique, worth * self.worth[places], self.expanded[places])
        nats = self.e + law.bent(self.capacity[places] + data)
        factor = learned.factors(self.prior, self.readings, size, taught)
        return np.asarray(factor * law.bits_per_byte(nats), np.float64)
