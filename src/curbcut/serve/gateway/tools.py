"""Tools of a chat: their declarations, and whether one must be called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curbcut.serve.engine.interface import Grammar
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, flag, inner, take, text, wrong

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_CALLS = 16
"""Calls in one forced answer: a schema without an end would let a small model go on for ever."""


@dataclass(frozen=True)
class ToolChoice:
    """Whether tools are called."""

    mode: Literal["none", "auto", "required", "named"] = "auto"
    name: str = ""
    """Of the function, where it is named."""


def read_name(value: Any, name: str, _limits: Limits) -> str:
    """The name of a function."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(name, "it must be 1 to 64 letters, digits, '_', '-' and '.'")
    return value


def _parameters(value: Any, name: str, limits: Limits) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise wrong(name, "it must be a JSON schema")
    if len(json.dumps(value)) > limits.grammar_characters:
        raise wrong(name, f"it has more than {limits.grammar_characters} characters")
    return value


FUNCTION: Mapping[str, Field] = {
    "name": Field(read_name, {"type": "string", "pattern": f"^{_NAME.pattern}$"}, required=True),
    "description": text(100_000), "parameters": Field(_parameters, {"type": "object"}),
    "strict": flag(),
}
_NAMED: Mapping[str, Field] = {"name": FUNCTION["name"]}


def _tools(value: Any, name: str, limits: Limits) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or len(value) > limits.tools:
        raise wrong(name, f"it must be a list of up to {limits.tools} tools")
    tools = tuple(_tool(item, f"{name}[{i}]", limits) for i, item in enumerate(value))
    if len({tool["function"]["name"] for tool in tools}) < len(tools):
        raise wrong(name, "two functions have one name")
    return tools


def _tool(item: Any, place: str, limits: Limits) -> Mapping[str, Any]:
    if not isinstance(item, dict) or item.get("type") != "function":
        raise wrong(f"{place}.type", "only tools of type function are called here")
    if not isinstance(item.get("function"), dict):
        raise wrong(f"{place}.function", "it must be an object")
    take({"type": text(), "function": inner(FUNCTION)}, item, limits, f"{place}.")
    return {"type": "function", "function": {
        key: value for key, value in item["function"].items() if value is not None}}


def _choice(value: Any, name: str, limits: Limits) -> ToolChoice:
    if value in ("none", "auto", "required"):
        return ToolChoice(value)
    if isinstance(value, dict) and value.get("type") == "function":
        found = take({"type": text(), "function": inner(_NAMED)}, value, limits, f"{name}.")
        if found["function"] is not None:
            return ToolChoice("named", found["function"]["name"])
    raise wrong(name, 'it must be none, auto, required or {"type": "function", "function": '
                      '{"name": ...}}')


def _object(properties: Mapping[str, Any], required: list[str]) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties, "required": required,
            "additionalProperties": False}


TABLE: Mapping[str, Field] = {
    "tools": Field(_tools, {"type": "array", "items": _object(
        {"type": {"const": "function"}, "function": _object(
            {name: field.schema for name, field in FUNCTION.items()}, ["name"])},
        ["type", "function"])}, ()),
    "tool_choice": Field(_choice, {"oneOf": [
        {"enum": ["none", "auto", "required"]},
        _object({"type": {"const": "function"},
                 "function": _object({"name": {"type": "string"}}, ["name"])},
                ["type", "function"])]}),
    "parallel_tool_calls": flag(True),
}


def settled(tools: Sequence[Mapping[str, Any]], choice: ToolChoice | None) -> ToolChoice:
    """The choice of a request, with its default; raises Refused (400) for one without a tool."""
    if choice is None:
        return ToolChoice("auto" if tools else "none")
    if choice.mode in ("required", "named") and not tools:
        raise wrong("tool_choice", "there are no tools")
    if choice.mode == "named" and choice.name not in {t["function"]["name"] for t in tools}:
        raise wrong("tool_choice", f"there is no tool {choice.name!r}")
    return choice if tools else ToolChoice("none")


def forced(tools: Sequence[Mapping[str, Any]], choice: ToolChoice,
           parallel: bool) -> Grammar | None:
    """What the answer must be where a call is asked for: JSON alone, without a template's marks.

    A named function's answer is its arguments; a required call's is a list of
    {"name", "arguments"}.
    """
    if choice.mode == "named":
        return Grammar("json_schema", json.dumps(_arguments(next(
            tool for tool in tools if tool["function"]["name"] == choice.name))))
    if choice.mode != "required":
        return None
    place = "/items" if len(tools) == 1 else "/items/anyOf/{}"
    calls = [_object({"name": {"const": tool["function"]["name"]}, "arguments": _moved(
        _arguments(tool), f"{place.format(i)}/properties/arguments")}, ["name", "arguments"])
        for i, tool in enumerate(tools)]
    return Grammar("json_schema", json.dumps({
        "type": "array", "minItems": 1, "maxItems": _MOST_CALLS if parallel else 1,
        "items": calls[0] if len(calls) == 1 else {"anyOf": calls}}))


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands inside another one, at `place`: what it refers to has moved with it."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: f"#{place}{value[1:]}" if key == "$ref" and isinstance(value, str)
            and (value == "#" or value.startswith("#/")) else _moved(value, place)
            for key, value in schema.items()}


def _arguments(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a function's arguments: an object in any case."""
    schema = tool["function"].get("parameters") or {"properties": {}}
    return schema if "type" in schema else {**schema, "type": "object"}
