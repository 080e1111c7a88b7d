"""What POST /v1/chat/completions asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from curbcut.serve.engine.chat import Conversation
from curbcut.serve.gateway.completion import check_answer, check_length
from curbcut.serve.gateway.fields import COMMON, Ask, common
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.messages import MESSAGES
from curbcut.serve.gateway.table import Field, flag, only, refused, take, whole, wrong
from curbcut.serve.gateway.tools import TABLE as TOOLS
from curbcut.serve.gateway.tools import ToolChoice, forced, settled


@dataclass(frozen=True, kw_only=True)
class Chat(Ask):
    """A conversation to answer in."""

    conversation: Conversation
    add_special: bool = False
    """Whether the tokenizer adds to what the template wrote."""
    echo: bool = False
    """Whether the answer begins with the message that it goes on with."""
    choice: ToolChoice = field(default_factory=ToolChoice)
    parallel: bool = True
    """Whether an answer may call several tools."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """All tools, for an engine elsewhere."""


def _variables(value: Any, name: str, limits: Limits) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > 64:
        raise wrong(name, "it must be an object of up to 64 entries")
    taken = {"messages", "tools", "documents", "add_generation_prompt", "chat_template",
             "raise_exception", "strftime_now", "bos_token", "eos_token"} & value.keys()
    if taken:
        raise wrong(name, f"{min(taken)} is given by other fields")
    check_length(len(json.dumps(value)), limits, name)
    return value


def _documents(value: Any, name: str, limits: Limits) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or len(value) > limits.messages \
            or not all(isinstance(item, dict) for item in value):
        raise wrong(name, f"it must be a list of up to {limits.messages} objects")
    check_length(len(json.dumps(value)), limits, name)
    return tuple(value)


PROMPT: Mapping[str, Field] = {
    "messages": MESSAGES,
    "documents": Field(_documents, {"type": "array", "items": {"type": "object"}}, ()),
    "chat_template_kwargs": Field(_variables, {"type": "object"}),
    "chat_template": refused("a template is code, and runs only where it came with the model"),
    "add_generation_prompt": Field(flag().read, {"type": "boolean"}),
    "continue_final_message": flag(),
    "add_special_tokens": flag(),
}
"""What becomes the prompt."""

TABLE: Mapping[str, Field] = {
    **COMMON, **PROMPT, **TOOLS,
    "max_tokens": whole(1, 2**31 - 1),
    "max_completion_tokens": whole(1, 2**31 - 1),
    "logprobs": flag(),
    "top_logprobs": whole(0, 20),
    "echo": flag(),
    "functions": only([]), "function_call": only("none", "auto"),
    "modalities": only(["text"]), "audio": only(), "prediction": only(),
    "web_search_options": only(), "reasoning_effort": only("none"), "verbosity": only("medium"),
    "moderation": only(),
}


def chat(body: Mapping[str, Any], limits: Limits) -> Chat:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(TABLE, body, limits)
    newer, older = taken["max_completion_tokens"], taken["max_tokens"]
    if newer is not None and older is not None and newer != older:
        raise wrong("max_tokens", "it differs from max_completion_tokens: give one of them")
    check_answer(newer, "max_completion_tokens", limits)
    check_answer(older, "max_tokens", limits)
    if taken["top_logprobs"] and not taken["logprobs"]:
        raise wrong("top_logprobs", "it is only allowed with logprobs = true")
    if taken["n"] > limits.answers:
        raise wrong("n", f"it must be at most {limits.answers}")
    tools, choice = taken["tools"], settled(taken["tools"], taken["tool_choice"])
    if taken["tool_choice"] == ToolChoice("auto") and not tools:
        raise wrong("tool_choice", "it is only allowed with tools")
    shared = common(taken, older if newer is None else newer,
                    (taken["top_logprobs"] or 0) if taken["logprobs"] else None)
    grammar = forced(tools, choice, taken["parallel_tool_calls"])
    if grammar is not None:
        shared["sampling"] = replace(shared["sampling"], grammar=grammar)
    return Chat(conversation=conversation(taken, tools if choice.mode != "none" else ()),
                add_special=taken["add_special_tokens"], echo=taken["echo"], choice=choice,
                parallel=taken["parallel_tool_calls"], tools=tools, **shared)


def conversation(taken: Mapping[str, Any],
                 tools: tuple[Mapping[str, Any], ...] = ()) -> Conversation:
    """What the chat template is given, from the fields of `PROMPT`; raises Refused (400)."""
    goes_on, begins = taken["continue_final_message"], taken["add_generation_prompt"]
    if goes_on and begins:
        raise wrong("continue_final_message", "a message that goes on does not begin: give "
                                              "add_generation_prompt = false")
    return Conversation(
        messages=taken["messages"], tools=tools, documents=taken["documents"],
        variables=taken["chat_template_kwargs"] or {}, goes_on=goes_on,
        begins=not goes_on if begins is None else begins)
