"""What POST /v1/completions asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curbcut.serve.gateway.fields import COMMON, Ask, common
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.table import Field, flag, only, take, whole, wrong

Prompt = str | tuple[int, ...]
DEFAULT_TOKENS = 16
"""OpenAI's."""


@dataclass(frozen=True, kw_only=True)
class Completion(Ask):
    """Texts to go on with."""

    prompts: tuple[Prompt, ...] = ()
    best_of: int = 1
    """So many answers are made of each prompt, and the `n` likeliest given."""
    echo: bool = False
    """Whether the prompt is part of the answer."""
    add_special: bool = True
    """Whether the tokenizer puts around the prompt what it puts around texts."""


def read_prompts(value: Any, name: str, limits: Limits) -> tuple[Prompt, ...]:
    """One text, one list of tokens, or a list of either; raises Refused (400)."""
    many = value if isinstance(value, list) and value and type(value[0]) is not int else [value]
    if len(many) > limits.prompts:
        raise wrong(name, f"it has {len(many)} prompts; at most {limits.prompts} are read",
                    "array_above_max_length")
    prompts: list[Prompt] = []
    for one in many:
        if isinstance(one, str):
            prompts.append(one)
        elif isinstance(one, list) and all(type(token) is int for token in one):
            prompts.append(tuple(one))
        else:
            raise wrong(name, "it must be a text, a list of texts, a list of tokens, or a list "
                              "of lists of tokens")
    check_length(sum(len(one) for one in prompts), limits, name)
    return tuple(prompts)


def check_length(characters: int, limits: Limits, name: str) -> None:
    """Raises Refused (400) for more than is ever tokenised."""
    if characters > limits.prompt_characters:
        raise Refused(400, f"{name} has {characters} characters; at most "
                           f"{limits.prompt_characters} are read.", param=name,
                      code="string_above_max_length")


_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PROMPTS = Field(read_prompts, {"anyOf": [
    {"type": "string"}, {"type": "array", "items": {"type": "string"}}, _TOKENS,
    {"type": "array", "items": _TOKENS}]}, required=True)

TABLE: Mapping[str, Field] = {
    **COMMON,
    "prompt": PROMPTS,
    "max_tokens": whole(0, 2**31 - 1),
    "best_of": whole(1, 128),
    "echo": flag(),
    "logprobs": whole(0, 5),
    "suffix": only(""),
    "add_special_tokens": flag(True),
}


def completion(body: Mapping[str, Any], limits: Limits) -> Completion:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(TABLE, body, limits)
    limit = taken["max_tokens"]
    if limit is None:
        limit = max(DEFAULT_TOKENS, taken["min_tokens"])
    check_answer(limit, "max_tokens", limits)
    best_of = taken["best_of"] or taken["n"]
    if best_of < taken["n"]:
        raise wrong("best_of", "it must be at least n")
    if taken["stream"] and best_of > taken["n"]:
        raise wrong("best_of", "the best answers are known at the end only: not with stream")
    if len(taken["prompt"]) * best_of > limits.answers:
        raise wrong("n", f"{len(taken['prompt']) * best_of} answers in one request; at most "
                         f"{limits.answers} are made")
    return Completion(prompts=taken["prompt"], best_of=best_of, echo=taken["echo"],
                      add_special=taken["add_special_tokens"],
                      **common(taken, limit, taken["logprobs"]))


def check_answer(tokens: int | None, name: str, limits: Limits) -> None:
    """Raises Refused (400) for an answer longer than any is."""
    if tokens is not None and tokens > limits.answer_tokens:
        raise wrong(name, f"it must be at most {limits.answer_tokens}")
