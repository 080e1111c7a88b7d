"""What POST /v1/responses asks for: read to a chat, for nothing is kept between requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from curbcut.serve.engine.chat import Conversation
from curbcut.serve.engine.interface import Grammar
from curbcut.serve.gateway import formats, messages
from curbcut.serve.gateway.chat import Chat
from curbcut.serve.gateway.completion import check_answer
from curbcut.serve.gateway.fields import COMMON, METADATA, ROUTING, common
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import (
    Field,
    Table,
    flag,
    inner,
    number,
    only,
    refused,
    take,
    text,
    whole,
    wrong,
)
from curbcut.serve.gateway.tools import FUNCTION, ToolChoice, forced, settled
from curbcut.serve.gateway.tools import TABLE as TOOLS


@dataclass(frozen=True, kw_only=True)
class Respond:
    """A chat, and what the answer repeats of the request."""

    chat: Chat
    repeated: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request that OpenAI's answer has again, as they were sent."""
    with_logprobs: bool = False


def _messages(value: Any, name: str, limits: Limits) -> tuple[Mapping[str, Any], ...]:
    """Items of a conversation as the messages of a chat."""
    if isinstance(value, str):
        return messages.read_messages([{"role": "user", "content": value}], name, limits)
    if not isinstance(value, list) or not 0 < len(value) <= limits.messages:
        raise wrong(name, f"it must be text, or a list of 1 to {limits.messages} items")
    found: list[dict[str, Any]] = []
    for i, item in enumerate(value):
        place = f"{name}[{i}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            found.append({key: item.get(key) for key in ("role", "content")})
            take(_ITEM, item, limits, f"{place}.")
        elif kind == "function_call":
            call = take(_CALL, item, limits, f"{place}.")
            if not found or found[-1]["role"] != "assistant":
                found.append({"role": "assistant", "content": None, "tool_calls": []})
            found[-1].setdefault("tool_calls", []).append({
                "id": call["call_id"], "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]}})
        elif kind == "function_call_output":
            done = take(_OUTPUT, item, limits, f"{place}.")
            found.append({"role": "tool", "tool_call_id": done["call_id"],
                          "content": done["output"]})
        elif kind != "reasoning":  # what a model thought before, which is not read again
            raise wrong(place, "only items of type message, function_call and "
                               "function_call_output are read here")
    return messages.read_messages(found or [{}], name, limits)


_ANY = Field(lambda value, name, limits: value, {})
_ITEM: Table = {"type": text(), "role": text(required=True), "content": _ANY, "id": text(),
                "status": text(), "phase": text()}
_CALL: Table = {"type": text(), "id": text(), "call_id": text(256, required=True),
                "status": text(), "name": Field(FUNCTION["name"].read, {}, required=True),
                "arguments": text(1_000_000, required=True), "caller": _ANY,
                "namespace": only()}
_OUTPUT: Table = {"type": text(), "id": text(), "call_id": text(256, required=True),
                  "status": text(), "caller": _ANY,
                  "output": Field(messages.read_content, {}, required=True)}


def _tools(value: Any, name: str, limits: Limits) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or len(value) > limits.tools:
        raise wrong(name, f"it must be a list of up to {limits.tools} tools")
    nested = [{"type": tool.get("type"),
               "function": {key: tool[key] for key in tool.keys() - {"type"}}}
              if isinstance(tool, dict) and tool.get("type") == "function" else tool
              for tool in value]
    found: tuple[Mapping[str, Any], ...] = TOOLS["tools"].read(nested, name, limits)
    return found


def _choice(value: Any, name: str, limits: Limits) -> ToolChoice:
    if isinstance(value, dict) and value.get("type") == "function":
        value = {"type": "function", "function": {"name": value.get("name")}}
    found: ToolChoice = TOOLS["tool_choice"].read(value, name, limits)
    return found


def _format(value: Any, name: str, limits: Limits) -> Grammar | None:
    if isinstance(value, dict) and value.get("type") == "json_schema":
        value = {"type": "json_schema",
                 "json_schema": {key: value[key] for key in value.keys() - {"type"}}}
    found: Grammar | None = formats.RESPONSE_FORMAT.read(value, name, limits)
    return found


def _include(value: Any, name: str, _limits: Limits) -> bool:
    known = ("message.output_text.logprobs", "reasoning.encrypted_content")
    if not isinstance(value, list) or not all(item in known for item in value):
        raise wrong(name, f"only {known[0]} can be included")
    return known[0] in value


_INPUT = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {
    "type": "object", "required": ["role", "content"], "additionalProperties": False,
    "properties": {"type": {"const": "message"}, "content": {"type": "string"},
                   "role": {"enum": ["user", "assistant", "system", "developer"]}}}}]}
TABLE: Mapping[str, Field] = {
    **ROUTING,
    "input": Field(_messages, _INPUT, required=True),
    "instructions": text(400_000),
    "tools": Field(_tools, {"type": "array", "items": {
        "type": "object", "required": ["type", "name"], "additionalProperties": False,
        "properties": {"type": {"const": "function"},
                       **{name: field.schema for name, field in FUNCTION.items()}}}}, ()),
    "tool_choice": Field(_choice, {"enum": ["none", "auto", "required"]}),
    "parallel_tool_calls": flag(True),
    "text": inner({"format": Field(_format, {"oneOf": [
        {"type": "object", "required": ["type"], "additionalProperties": False,
         "properties": {"type": {"enum": ["text", "json_object"]}}}]}),
        "verbosity": only("medium")}),
    "max_output_tokens": whole(1, 2**31 - 1),
    "temperature": number(0, 2, 1.0), "top_p": number(0, 1, 1.0),
    "top_logprobs": whole(0, 20),
    "include": Field(_include, {"type": "array", "items": {
        "enum": ["message.output_text.logprobs"]}}, False),
    "stream": flag(), "stream_options": inner({"include_obfuscation": only(False)}),
    "metadata": METADATA, "store": only(False),
    "previous_response_id": refused("nothing is kept between requests: send the whole "
                                    "conversation as input"),
    "conversation": refused("nothing is kept between requests: send the whole conversation as "
                            "input"),
    "prompt": refused("prompts are not kept here: send input and instructions"),
    "background": only(False), "truncation": only("disabled"), "max_tool_calls": only(),
    "reasoning": only({}, {"effort": "none"}), "moderation": only(),
} | {name: COMMON[name] for name in ("top_k", "min_p", "repetition_penalty", "seed", "stop",
                                      "logit_bias", "presence_penalty", "frequency_penalty")}


def respond(body: Mapping[str, Any], limits: Limits) -> Respond:
    """Reads the body; raises Refused (400) naming the field."""
    taken = take(TABLE, body, limits)
    check_answer(taken["max_output_tokens"], "max_output_tokens", limits)
    tools, choice = taken["tools"], settled(taken["tools"], taken["tool_choice"])
    with_logprobs = taken["include"] or bool(taken["top_logprobs"])
    shared = common({**{name: field.default for name, field in COMMON.items()}, **taken,
                     "stream_options": None}, taken["max_output_tokens"],
                    (taken["top_logprobs"] or 0) if with_logprobs else None)
    grammar = forced(tools, choice, taken["parallel_tool_calls"]) \
        or (taken["text"] or {}).get("format")
    shared["sampling"] = replace(shared["sampling"], grammar=grammar)
    said = taken["input"]
    if taken["instructions"]:
        said = ({"role": "system", "content": taken["instructions"]}, *said)
    return Respond(
        chat=Chat(conversation=Conversation(
                      messages=said, tools=tools if choice.mode != "none" else ()),
                  choice=choice, parallel=taken["parallel_tool_calls"], tools=tools, **shared),
        repeated=_repeated(body, taken), with_logprobs=with_logprobs)


def _repeated(body: Mapping[str, Any], taken: Mapping[str, Any]) -> Mapping[str, Any]:
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    return {
        "instructions": taken["instructions"], "max_output_tokens": taken["max_output_tokens"],
        "metadata": taken["metadata"] or {}, "parallel_tool_calls": taken["parallel_tool_calls"],
        "temperature": taken["temperature"], "top_p": taken["top_p"],
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [{"type": "function", "name": tool["function"]["name"],
                   "description": tool["function"].get("description"),
                   "parameters": tool["function"].get("parameters"),
                   "strict": tool["function"].get("strict", True)} for tool in taken["tools"]],
        "text": {"format": form}, "top_logprobs": taken["top_logprobs"] or 0,
        "truncation": "disabled", "previous_response_id": None, "background": False,
        "user": taken["user"], "store": False,
    }
