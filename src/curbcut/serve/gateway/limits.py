"""How much may be asked, held before any work is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from curbcut.serve.engine.interface import Asked
from curbcut.serve.gateway.refusal import Refused

_AROUND_TOKENS = 256
"""What the template of an engine elsewhere may add to a chat."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest of everything. Beyond the body's size (413), each is a 400 that names it."""

    body_bytes: int = 1_000_000
    """Bytes of a request's body."""
    prompt_characters: int = 400_000
    """Characters of a prompt, or of all messages together."""
    messages: int = 2048
    """Messages of a chat."""
    prompts: int = 256
    """Prompts of a completion, texts of embeddings."""
    answers: int = 128
    """Answers of one request: prompts times `n` or `best_of`."""
    tools: int = 128
    """Tools of a chat (as OpenAI has it)."""
    stop_texts: int = 4
    """Stop texts of a request (as OpenAI has it)."""
    stop_characters: int = 256
    """Characters of a stop text."""
    stop_tokens: int = 256
    """Stop tokens of a request."""
    biased_tokens: int = 1024
    """Entries of logit_bias."""
    choices: int = 1024
    """Texts of guided_choice."""
    grammar_characters: int = 65_536
    """Characters of a JSON schema, expression or grammar."""
    answer_tokens: int = 131_072
    """Tokens of an answer."""
    queue: int = 64
    """Requests that wait while all rows are taken; the next one gets a 429."""


def room_for_answer(prompt: Sequence[int], max_tokens: int | None, context_tokens: int,
                    limits: Limits, param: str) -> int:
    """Tokens that the answer may have; `max_tokens` None takes what is left.

    Raises Refused (400) for an empty prompt, and for one that does not fit with its answer.
    """
    if not prompt:
        raise Refused(400, "The prompt is empty: this model needs at least one token to go on "
                           "from.", param=param, code="empty_prompt")
    left = context_tokens - len(prompt)
    wanted = min(left, limits.answer_tokens) if max_tokens is None else max_tokens
    if left < 1 or wanted > left:
        raise Refused(400, f"This model's maximum context length is {context_tokens} tokens, but "
                           f"you asked for {len(prompt)} in the prompt and "
                           f"{max(wanted, 1)} for the answer.",
                      param=param, code="context_length_exceeded")
    return wanted


def check_known(tokens: Sequence[int], vocabulary: int, param: str) -> None:
    """Raises Refused (400) for a token that the model does not have."""
    if tokens and not (min(tokens) >= 0 and max(tokens) < vocabulary):
        wrong = next(token for token in tokens if not 0 <= token < vocabulary)
        raise Refused(400, f"Token {str(wrong)[:40]} is not between 0 and {vocabulary - 1}.",
                      param=param, code="invalid_value")


def most_tokens(asked: Asked, context_tokens: int) -> int:
    """Tokens of a prompt; where only an engine elsewhere can count them, what they are at most: no
    token is shorter than a byte.
    """
    if asked.prompt and isinstance(asked.prompt[0], int):
        return len(asked.prompt)
    told = json.dumps([asked.prompt, dict(asked.extra)], ensure_ascii=False)
    return min(len(told.encode()) + _AROUND_TOKENS, context_tokens)
