"""The fields that completions and chats have in common, as one table.

A field that is known but does nothing here is accepted only at a value at which it would do
nothing anywhere. So no answer ever differs in silence from what was asked for. Fields that OpenAI
does not have go by the names that vLLM and its users have for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curbcut.serve.engine.interface import Sampling
from curbcut.serve.gateway import formats
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, flag, inner, number, only, text, whole, wrong

_EPSILON = 1e-9
"""`top_p` 0 means the likeliest token alone, which the smallest share means too."""
_PAST_64_BITS = 2**63


def _stop(value: Any, name: str, limits: Limits) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if (not isinstance(texts, list) or len(texts) > limits.stop_texts
            or not all(isinstance(t, str) and 0 < len(t) <= limits.stop_characters
                       for t in texts)):
        raise wrong(name, f"it must be a text, or up to {limits.stop_texts} of them, each of "
                          f"1 to {limits.stop_characters} characters")
    return tuple(texts)


def _stop_tokens(value: Any, name: str, limits: Limits) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > limits.stop_tokens \
            or not all(type(token) is int and token >= 0 for token in value):
        raise wrong(name, f"it must be a list of up to {limits.stop_tokens} tokens")
    return tuple(value)


def _logit_bias(value: Any, name: str, limits: Limits) -> Mapping[int, float]:
    if not isinstance(value, dict) or len(value) > limits.biased_tokens:
        raise wrong(name, f"it must be an object of up to {limits.biased_tokens} tokens")
    biases = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 12):
            raise wrong(name, f"{token[:40]!r} is no token")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise wrong(name, "a bias must be a number from -100 to 100")
        biases[int(token)] = float(bias)
    return biases


def _metadata(value: Any, name: str, _limits: Limits) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > 16 or not all(
            len(key) <= 64 and isinstance(word, str) and len(word) <= 512
            for key, word in value.items()):
        raise wrong(name, "it must be up to 16 pairs of text, of 64 and 512 characters")
    return value


def _truncate(value: Any, name: str, limits: Limits) -> int | None:
    kept: int = whole(-1, 2**31 - 1).read(value, name, limits)
    if kept == 0:
        raise wrong(name, "it must be at least 1, or -1 for what the context holds")
    return kept


def _side(value: Any, name: str, _limits: Limits) -> str:
    if value not in ("left", "right"):
        raise wrong(name, "it must be left or right")
    return str(value)


METADATA = Field(_metadata, {"type": "object", "maxProperties": 16, "additionalProperties":
                             {"type": "string", "maxLength": 512}})
MODEL = text(10_000)
LABELS: Mapping[str, Field] = {name: text() for name in (
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "request_id")}
"""Fields that name the asker or a cache, and never change an answer: any text will do."""

ROUTING: Mapping[str, Field] = {
    "model": MODEL,
    "priority": whole(-2**31, 2**31 - 1, 0),
    "cache_salt": text(256, shortest=1),
    "service_tier": only("auto", "default"),
    **LABELS,
}
"""Which model, and when."""

CHOOSING: Mapping[str, Field] = {
    "temperature": number(0, 2, 1.0),
    "top_p": number(0, 1, 1.0),
    "top_k": whole(-1, 2**31 - 1, 0),
    "min_p": number(0, 1, 0.0),
    "presence_penalty": number(-2, 2, 0.0),
    "frequency_penalty": number(-2, 2, 0.0),
    "repetition_penalty": number(0, 10, 1.0, above=True),
    "logit_bias": Field(_logit_bias, {
        "type": "object", "propertyNames": {"pattern": "^[0-9]{1,11}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}),
    "seed": whole(-_PAST_64_BITS, _PAST_64_BITS - 1),
    "min_tokens": whole(0, 2**31 - 1, 0),
    "ignore_eos": flag(),
    "stop": Field(_stop, {"anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1}}]}, ()),
    "stop_token_ids": Field(_stop_tokens, {
        "type": "array", "items": {"type": "integer", "minimum": 0}}, ()),
    "include_stop_str_in_output": flag(),
    "skip_special_tokens": flag(True),
    "spaces_between_special_tokens": only(True),
    "prompt_logprobs": whole(0, 20),
    "use_beam_search": only(False), "length_penalty": only(1.0), "early_stopping": only(False),
    **formats.TABLE,
}
"""How tokens are chosen, and where the answer ends."""

COMMON: Mapping[str, Field] = {
    **ROUTING, **CHOOSING,
    "stream": flag(),
    "stream_options": inner({"include_usage": flag(), "continuous_usage_stats": flag(),
                             "include_obfuscation": only(False)}),
    "metadata": METADATA, "store": only(False),
    "n": whole(1, 128, 1),
    "return_token_ids": flag(),
    "return_tokens_as_token_ids": flag(),
    "truncate_prompt_tokens": Field(_truncate, {"type": "integer", "minimum": -1}),
    "truncation_side": Field(_side, {"enum": ["left", "right"]}, "left"),
    "cache_prompt": only(True), "id_slot": only(-1), "timings_per_token": only(False),
    "return_progress": only(False), "separate_reasoning": only(False), "verbose": only(False),
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What completions and chats both ask for."""

    model: str | None
    """None for the only model there is."""
    sampling: Sampling
    """With `max_tokens` as far as it is known."""
    max_tokens: int | None = None
    """None for what the context leaves."""
    stream: bool = False
    include_usage: bool = False
    running_usage: bool = False
    """Whether each chunk tells the counts so far."""
    n: int = 1
    salt: str = ""
    priority: int = 0
    return_ids: bool = False
    """Whether the answer has the tokens beside their text."""
    tokens_as_ids: bool = False
    """Whether log-probabilities name tokens by number, as in "token_id:7"."""
    truncate: int | None = None
    """Only so many last tokens of the prompt are read; -1 for as many as fit."""
    keep_first: bool = False
    """Whether those are its first tokens, instead."""


def common(taken: Mapping[str, Any], max_tokens: int | None,
           logprobs: int | None) -> dict[str, Any]:
    """The fields of `Ask` from those of `COMMON`; raises Refused (400)."""
    options = taken["stream_options"] or {}
    if options and not taken["stream"]:
        raise wrong("stream_options", "it is only allowed with stream = true")
    if max_tokens is not None and taken["min_tokens"] > max_tokens:
        raise wrong("min_tokens", f"it is more than the {max_tokens} tokens of the answer")
    return {
        "model": taken["model"], "stream": taken["stream"], "max_tokens": max_tokens,
        "include_usage": options.get("include_usage", False),
        "running_usage": options.get("continuous_usage_stats", False),
        "sampling": sampling(taken, max_tokens or 1, logprobs), "n": taken["n"],
        "salt": taken["cache_salt"] or "", "priority": taken["priority"],
        "return_ids": taken["return_token_ids"], "truncate": taken["truncate_prompt_tokens"],
        "tokens_as_ids": taken["return_tokens_as_token_ids"],
        "keep_first": taken["truncation_side"] == "right",
    }


def sampling(taken: Mapping[str, Any], max_tokens: int, logprobs: int | None) -> Sampling:
    """How tokens are chosen, from the fields of `CHOOSING`; raises Refused (400)."""
    return Sampling(
        max_tokens=max_tokens, min_tokens=taken["min_tokens"], temperature=taken["temperature"],
        top_p=max(taken["top_p"], _EPSILON), top_k=max(taken["top_k"], 0), min_p=taken["min_p"],
        presence_penalty=taken["presence_penalty"],
        frequency_penalty=taken["frequency_penalty"],
        repetition_penalty=taken["repetition_penalty"], logit_bias=taken["logit_bias"] or {},
        seed=taken["seed"], stop=taken["stop"], stop_tokens=taken["stop_token_ids"],
        include_stop=taken["include_stop_str_in_output"], ignore_end=taken["ignore_eos"],
        special_text=not taken["skip_special_tokens"], logprobs=logprobs,
        prompt_logprobs=taken["prompt_logprobs"], grammar=formats.grammar_of(taken))
