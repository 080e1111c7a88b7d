"""A few lines that a model writes on, for eyes: no cache, no batching, no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from curbcut.data import Corpus
from curbcut.data.tokenizer import END_OF_TEXT_ID
from curbcut.errors import InputError
from curbcut.evaluate.bits import evaluating


@dataclass(frozen=True)
class Sample:
    """What a model wrote on with."""

    prompt: str
    written: str


PROMPT_TOKENS = 24


def of_held_out(model: Any, corpus: Corpus, count: int = 3, tokens: int = 40, *,
                sequence_tokens: int, seed: int = 0) -> list[Sample]:
    """What `model` makes of the beginnings of a few held-out documents, evenly chosen."""
    offsets, text = corpus.document_offsets("validation"), corpus.tokens("validation")
    tokenizer = corpus.tokenizer()
    found = []
    for place in range(min(count, len(offsets) - 1)):
        number = place * (len(offsets) - 1) // count
        first, last = int(offsets[number]), int(offsets[number + 1])
        prompt = [int(one) for one in text[first:min(last, first + PROMPT_TOKENS)]
                  if one != END_OF_TEXT_ID]
        said = tokenizer.decode(prompt, skip_special_tokens=False)
        found.append(Sample(said, continued(model, tokenizer, said, tokens, temperature=0.7,
                                            sequence_tokens=sequence_tokens, seed=seed)))
    return found


def continued(model: Any, tokenizer: Any, prompt: str, tokens: int, *, sequence_tokens: int,
              temperature: float = 0.0, seed: int = 0) -> str:
    """What `model` (a `bits.LanguageModel`) writes after `prompt`: up to `tokens` tokens.

    The likeliest token each time at temperature 0, else drawn with `seed`. The model sees the last
    `sequence_tokens` tokens; it stops at the end of text. An empty prompt begins a new document.
    Raises InputError for a negative temperature.
    """
    if not temperature >= 0:
        raise InputError(f"temperature {temperature} is below 0", where="temperature",
                         mend="give 0 for the likeliest token, 1 for the model's own odds")
    ids = list(tokenizer.encode(prompt, add_special_tokens=False).ids) or [END_OF_TEXT_ID]
    begun, known = len(ids), tokenizer.get_vocab_size()
    with evaluating(model) as device:
        chance = torch.Generator().manual_seed(seed)
        for _ in range(tokens):
            seen = torch.tensor([ids[-sequence_tokens:]], device=device)
            logits = model.logits(model(seen)[:, -1:])[0, 0, :known].float().cpu()
            following = _drawn(logits, temperature, chance)
            if following == END_OF_TEXT_ID:
                break
            ids.append(following)
    return str(tokenizer.decode(ids[begun:], skip_special_tokens=False))


def _drawn(logits: torch.Tensor, temperature: float, chance: torch.Generator) -> int:
    """One token of logits [vocab]."""
    if temperature == 0:
        return int(logits.argmax())
    odds = torch.softmax(logits / temperature, dim=0)
    return int(torch.multinomial(odds, 1, generator=chance))
