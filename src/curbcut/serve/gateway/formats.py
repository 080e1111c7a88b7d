"""What an answer's text must be: `response_format` and the names that other servers have for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from curbcut.serve.engine.interface import Grammar
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, inner, only, take, text, wrong

_SCHEMA_SHAPE = {"type": ["object", "boolean", "string"]}


def _schema(value: Any, name: str, limits: Limits) -> Grammar:
    """A JSON schema, as such or written as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise wrong(name, "it is no JSON schema") from None
    if not isinstance(value, dict | bool):
        raise wrong(name, "a JSON schema is an object")
    return _sized(Grammar("json_schema", json.dumps(value)), name, limits)


def _choices(value: Any, name: str, limits: Limits) -> Grammar:
    if not isinstance(value, list) or not 0 < len(value) <= limits.choices \
            or not all(isinstance(choice, str) and choice for choice in value):
        raise wrong(name, f"it must be a list of 1 to {limits.choices} texts")
    return _sized(Grammar("choice", json.dumps(value)), name, limits)


def _regex(value: Any, name: str, limits: Limits) -> Grammar:
    if not isinstance(value, str) or not value:
        raise wrong(name, "it must be a regular expression")
    return _sized(Grammar("regex", value), name, limits)


def _lark(value: Any, name: str, limits: Limits) -> Grammar:
    if not isinstance(value, str) or not value:
        raise wrong(name, "it must be a grammar, in Lark's syntax or as GBNF")
    return _sized(Grammar("lark", value), name, limits)


def _any_json(value: Any, name: str, _limits: Limits) -> Grammar | None:
    if not isinstance(value, bool):
        raise wrong(name, "it must be a JSON boolean")
    return Grammar("json") if value else None


def _sized(grammar: Grammar, name: str, limits: Limits) -> Grammar:
    if len(grammar.source) > limits.grammar_characters:
        raise wrong(name, f"it has {len(grammar.source)} characters; at most "
                          f"{limits.grammar_characters} are read", "string_above_max_length")
    return grammar


def _response_format(value: Any, name: str, limits: Limits) -> Grammar | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        take({"type": text()}, value, limits, f"{name}.")
        return None
    if kind == "json_object":  # llama.cpp's users give a schema with it
        found = take({"type": text(), "schema": SCHEMA}, value, limits, f"{name}.")
        return found["schema"] or Grammar("json")
    if kind == "json_schema":
        found = take({"type": text(), "json_schema": _NAMED}, value, limits, f"{name}.")
        if not found["json_schema"] or found["json_schema"]["schema"] is None:
            raise wrong(f"{name}.json_schema.schema", "type json_schema needs one")
        grammar: Grammar = found["json_schema"]["schema"]
        return grammar
    raise wrong(f"{name}.type", "it must be text, json_object or json_schema")


SCHEMA = Field(_schema, _SCHEMA_SHAPE)
_STRICT = Field(lambda value, name, limits: only(True, False).read(value, name, limits),
                {"type": "boolean"})
"""Every schema is held to the letter here, whether asked to be or not."""
_NAMED = inner({"name": text(64), "description": text(), "schema": SCHEMA, "strict": _STRICT})
RESPONSE_FORMAT = Field(_response_format, {"oneOf": [
    {"type": "object", "required": ["type"], "additionalProperties": False,
     "properties": {"type": {"const": "text"}}},
    {"type": "object", "required": ["type"], "additionalProperties": False,
     "properties": {"type": {"const": "json_object"}, "schema": {"type": "object"}}},
    {"type": "object", "required": ["type", "json_schema"], "additionalProperties": False,
     "properties": {"type": {"const": "json_schema"}, "json_schema": {
         "type": "object", "required": ["schema"], "additionalProperties": False,
         "properties": {"name": {"type": "string"}, "description": {"type": "string"},
                        "schema": {"type": "object"}, "strict": {"type": "boolean"}}}}}]})
_REGEX, _CHOICE = Field(_regex, {"type": "string"}), Field(_choices, {
    "type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}})
_LARK = Field(_lark, {"type": "string"})
_ONE_OF = {"json": SCHEMA, "regex": _REGEX, "choice": _CHOICE, "grammar": _LARK,
           "json_object": Field(_any_json, {"type": "boolean"})}

TABLE: Mapping[str, Field] = {
    "response_format": RESPONSE_FORMAT,
    "structured_outputs": inner({**_ONE_OF, "disable_any_whitespace": only(False),
                                 "disable_fallback": only(True, False),
                                 "disable_additional_properties": only(False),
                                 "whitespace_pattern": only(), "structural_tag": only()}),
    "guided_json": SCHEMA, "guided_regex": _REGEX, "guided_choice": _CHOICE,
    "guided_grammar": _LARK, "json_schema": SCHEMA, "regex": _REGEX, "grammar": _LARK,
    "ebnf": _LARK,
}
"""Every name under which a form can be asked for; at most one in a request."""


def grammar_of(taken: Mapping[str, Any]) -> Grammar | None:
    """The one grammar of a request; raises Refused (400) for two."""
    found: dict[str, Grammar] = {}
    for name in TABLE:
        value = taken[name]
        given = {f"{name}.{key}": value[key] for key in _ONE_OF} if isinstance(value, dict) \
            else {name: value}
        found |= {key: grammar for key, grammar in given.items() if grammar is not None}
    if len(found) > 1:
        first, second = list(found)[:2]
        raise wrong(second, f"{first} asks for another form: give one of them")
    return next(iter(found.values()), None)
