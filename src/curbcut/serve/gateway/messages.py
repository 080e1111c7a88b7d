"""The messages of a chat, read to what a chat template expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from curbcut.serve.engine.interface import Message
from curbcut.serve.gateway.completion import check_length
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, Table, inner, only, take, text, wrong
from curbcut.serve.gateway.tools import FUNCTION

ROLES = ("system", "developer", "user", "assistant", "tool")


def read_content(value: Any, name: str, _limits: Limits) -> str:
    """Text, or parts of text joined; no part is ever fetched from anywhere."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(name, "it must be text, or a list of parts")
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text"):
            raise wrong(name, "only parts of type text are read here; images, sound and files "
                              "are not, and nothing is fetched from an address")
        if not isinstance(part.get("text"), str) or not part.keys() <= {
                "type", "text", "annotations", "logprobs", "cache_control"}:
            raise wrong(name, "a part of type text has a text, and nothing else")
    return "".join(part["text"] for part in value)


def _arguments(value: Any, name: str, _limits: Limits) -> Any:
    """Templates write arguments as they like, so they are handed over as an object."""
    try:
        found = json.loads(value) if isinstance(value, str) else None
        json.dumps(found, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise wrong(name, "it must be a JSON object, written as text")
    return found


def _tool_calls(value: Any, name: str, limits: Limits) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > limits.tools:
        raise wrong(name, f"it must be a list of up to {limits.tools} calls")
    calls: list[Mapping[str, Any]] = []
    for i, item in enumerate(value):
        place = f"{name}[{i}]"
        if not isinstance(item, dict) or item.get("type", "function") != "function":
            raise wrong(place, "it must be a call of type function")
        call = take(_CALL, item, limits, f"{place}.")
        if call["function"] is None:
            raise wrong(f"{place}.function", "it must be an object")
        calls.append({"id": call["id"] or "", "type": "function", "function": call["function"]})
    return calls


_CALL: Table = {"id": text(256), "type": text(), "index": Field(
    lambda value, name, limits: None, {"type": "integer"}), "function": inner({
        "name": FUNCTION["name"],
        "arguments": Field(_arguments, {"type": "string"}, required=True)})}
_MESSAGE: Table = {
    "role": text(20, required=True),
    "content": Field(read_content, {"anyOf": [{"type": "string"}, {
        "type": "array", "items": {
            "type": "object", "required": ["type", "text"], "additionalProperties": False,
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}]}),
    "name": text(256),
    "reasoning_content": text(1_000_000), "reasoning": text(1_000_000),
    "tool_calls": Field(_tool_calls, {"type": "array", "items": {
        "type": "object", "required": ["id", "type", "function"], "additionalProperties": False,
        "properties": {"id": {"type": "string"}, "type": {"const": "function"}, "function": {
            "type": "object", "required": ["name", "arguments"], "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "arguments": {"type": "string"}}}}}}),
    "tool_call_id": text(256), "refusal": text(1_000_000),
    "annotations": only([]), "audio": only(), "function_call": only(),
}


def read_messages(value: Any, name: str, limits: Limits) -> tuple[Message, ...]:
    """All messages of a chat; raises Refused (400) naming the one that is wrong."""
    if not isinstance(value, list) or not 0 < len(value) <= limits.messages:
        raise wrong(name, f"it must be a list of 1 to {limits.messages} messages")
    messages = tuple(_message(item, f"{name}[{i}]", limits) for i, item in enumerate(value))
    check_length(sum(_length(message) for message in messages), limits, name)
    return messages


def _message(item: Any, place: str, limits: Limits) -> Message:
    if not isinstance(item, dict):
        raise wrong(place, "it must be an object with role and content")
    found = take(_MESSAGE, item, limits, f"{place}.")
    role = found["role"]
    if role not in ROLES:
        raise wrong(f"{place}.role", f"it must be one of {', '.join(ROLES)}")
    if found["tool_calls"] and role != "assistant":
        raise wrong(f"{place}.tool_calls", "only the assistant calls tools")
    if role == "tool" and found["tool_call_id"] is None:
        raise wrong(f"{place}.tool_call_id", "a tool's message names the call it answers")
    if found["content"] is None:
        if role != "assistant" or not (found["tool_calls"] or found["refusal"]):
            raise wrong(f"{place}.content", "it must be text")
        found["content"] = found["refusal"] or ""
    found["reasoning_content"] = found["reasoning_content"] or found["reasoning"]
    kept = ("role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id")
    return {key: found[key] for key in kept if found[key] is not None}


def _length(message: Message) -> int:
    characters = sum(len(value) for value in message.values() if isinstance(value, str))
    if "tool_calls" in message:
        characters += len(json.dumps(message["tool_calls"]))
    return characters


MESSAGES = Field(read_messages, {"type": "array", "minItems": 1, "items": {
    "type": "object", "additionalProperties": False, "required": ["role"],
    "properties": {name: field.schema for name, field in _MESSAGE.items()}
    | {"role": {"enum": list(ROLES)}}}}, required=True)
