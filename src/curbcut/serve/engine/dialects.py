"""How servers that speak OpenAI's API say what that API does not: a table, and how to tell them.

Nothing that was asked for is left out in silence: what a server does not know is `Unfit`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from curbcut.serve.engine.interface import Asked, Grammar, Sampling, Unfit

Kind = Literal["tokens", "text", "messages"]


@dataclass(frozen=True)
class Dialect:
    """What one server knows besides OpenAI's own fields."""

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    """Names of fields of `Sampling` there."""
    grammar: Callable[[Grammar], Mapping[str, Any]] | None = None
    """How a grammar is said; None: by response_format alone."""
    tells_ids: bool = False
    """Whether it tells the tokens of an answer (`return_token_ids`)."""
    salts: bool = False
    """Whether it keeps remembered prompts apart (`cache_salt`)."""
    ranks: bool = False
    """Whether a request may have a priority; elsewhere all are served as they come."""
    token_prompts: bool = True


_PLAIN = {"top_p": "top_p", "presence_penalty": "presence_penalty", "seed": "seed",
          "frequency_penalty": "frequency_penalty", "stop": "stop", "logit_bias": "logit_bias"}
_MORE = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty",
         "min_tokens": "min_tokens", "stop_tokens": "stop_token_ids", "ignore_end": "ignore_eos",
         "special_text": "skip_special_tokens"}
_VLLM = {"json_schema": "json", "regex": "regex", "choice": "choice", "lark": "grammar",
         "json": "json_object"}


def _for_vllm(grammar: Grammar) -> Mapping[str, Any]:
    said: Any = {"json": True}.get(grammar.kind, grammar.source)
    if grammar.kind in ("json_schema", "choice"):
        said = json.loads(grammar.source)
    return {"structured_outputs": {_VLLM[grammar.kind]: said}}


def _for_sglang(grammar: Grammar) -> Mapping[str, Any]:
    if grammar.kind == "regex":
        return {"regex": grammar.source}
    return _as_format(grammar)


def _for_llama(grammar: Grammar) -> Mapping[str, Any]:
    if grammar.kind == "json_schema":
        return {"json_schema": json.loads(grammar.source)}
    return _as_format(grammar)


def _as_format(grammar: Grammar) -> Mapping[str, Any]:
    if grammar.kind == "json":
        return {"response_format": {"type": "json_object"}}
    if grammar.kind == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": json.loads(grammar.source)}}}
    raise Unfit(f"the server behind this model takes no grammar of kind {grammar.kind}")


DIALECTS: Mapping[str, Dialect] = {one.name: one for one in (
    Dialect("openai"),
    Dialect("vllm", _MORE | {"include_stop": "include_stop_str_in_output",
                             "prompt_logprobs": "prompt_logprobs"}, _for_vllm,
            tells_ids=True, salts=True),
    Dialect("sglang", _MORE, _for_sglang),
    Dialect("llama.cpp", {"top_k": "top_k", "min_p": "min_p", "ignore_end": "ignore_eos",
                          "repetition_penalty": "repeat_penalty"}, _for_llama),
    Dialect("curbcut", _MORE | {"include_stop": "include_stop_str_in_output",
                                "prompt_logprobs": "prompt_logprobs"}, _for_vllm,
            tells_ids=True, salts=True, ranks=True),
)}


def tell(ask: Callable[[str], Mapping[str, Any] | None], models: Mapping[str, Any]) -> Dialect:
    """The dialect of a server. `ask(path)` is the JSON object at a path of it, or None; `models`
    what it said at /v1/models.
    """
    listed = models.get("data")
    first = listed[0] if isinstance(listed, list) and listed else {}
    owner = str(first.get("owned_by", "")) if isinstance(first, dict) else ""
    named = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp", "curbcut": "curbcut"}
    if owner in named:
        return DIALECTS[named[owner]]
    if "default_generation_settings" in (ask("/props") or {}):
        return DIALECTS["llama.cpp"]
    return DIALECTS["vllm" if "version" in (ask("/version") or {}) else "openai"]


def kind_of(asked: Asked) -> Kind:
    """What a prompt is."""
    if isinstance(asked.prompt, str):
        return "text"
    return "tokens" if asked.prompt and isinstance(asked.prompt[0], int) else "messages"


def body(asked: Asked, model: str, dialect: Dialect) -> dict[str, Any]:
    """The request's body. Raises Unfit for what the dialect cannot say."""
    sampling, kind = asked.sampling, kind_of(asked)
    if kind == "tokens" and not dialect.token_prompts:
        raise Unfit("the server behind this model takes no tokens for a prompt")
    whole = sampling.prompt_logprobs is not None    # of which no server tells piece by piece
    said: dict[str, Any] = dict(asked.extra)
    said = {"max_tokens": sampling.max_tokens} | said
    if said["max_tokens"] is None:  # as many as there is room for, which only the server knows
        del said["max_tokens"]
    if said.get("echo") and dialect.name == "llama.cpp":
        raise Unfit("the server behind this model does not repeat a prompt")
    said |= {"model": asked.adapter or model, "temperature": sampling.temperature,
             "stream": not whole}
    if not whole:
        said["stream_options"] = {"include_usage": True}
    said |= {"messages": list(asked.prompt)} if kind == "messages" else {
        "prompt": asked.prompt if kind == "text" else list(asked.prompt)}
    said |= _fields(sampling, dialect)
    if sampling.logprobs is not None:
        said |= ({"logprobs": True, "top_logprobs": sampling.logprobs} if kind == "messages"
                 else {"logprobs": sampling.logprobs})
    if sampling.grammar is not None:
        said |= (dialect.grammar or _as_format)(sampling.grammar)
    if dialect.tells_ids:
        said |= {"return_token_ids": True}
        if sampling.logprobs is not None:
            said["return_tokens_as_token_ids"] = True
    if dialect.salts and asked.salt:
        said["cache_salt"] = asked.salt
    if dialect.ranks and asked.priority:
        said["priority"] = asked.priority
    if dialect.name == "vllm" and kind == "tokens":
        said["add_special_tokens"] = False
    return said


def _fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Fields of `Sampling` that are not at their defaults, by their names there."""
    plain = Sampling(max_tokens=1)
    names = {**_PLAIN, **dialect.fields}
    said: dict[str, Any] = {}
    for ours in (*_PLAIN, *_MORE, "include_stop", "prompt_logprobs"):
        value = getattr(sampling, ours)
        if value == getattr(plain, ours):
            continue
        if ours not in names:
            raise Unfit(f"the server behind this model ({dialect.name}) knows no {ours}")
        said[names[ours]] = list(value) if isinstance(value, tuple) else value
    if "logit_bias" in said:
        said["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.special_text:
        said[names["special_text"]] = False         # there, whether they are left out
    return said
