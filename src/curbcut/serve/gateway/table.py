"""Tables of fields: what a field may be, read and published from one line each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curbcut.errors import nearest
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.refusal import Refused

Schema = Mapping[str, Any]
Read = Callable[[Any, str, Limits], Any]


@dataclass(frozen=True)
class Field:
    """One field of a request. `null` is as good as leaving it out."""

    read: Read
    """(value, name, limits) to what it means; raises Refused naming the field."""
    schema: Schema
    """What it may be, as JSON schema."""
    default: Any = None
    required: bool = False


Table = Mapping[str, Field]


def take(table: Table, body: Mapping[str, Any], limits: Limits, prefix: str = "") -> dict[str, Any]:
    """All fields of `table`, read from `body` or at their default; raises Refused (400) for a
    field that is not in the table, naming the nearest one that is.
    """
    taken = {name: field.default for name, field in table.items()}
    for name, value in body.items():
        field = table.get(name)
        if field is None:
            raise unknown(name, table, prefix)
        if value is not None:
            taken[name] = field.read(value, prefix + name, limits)
    for name, field in table.items():
        if field.required and body.get(name) is None:
            raise Refused(400, f"You must provide {prefix}{name}.", param=prefix + name,
                          code="missing_required_parameter")
    return taken


def unknown(name: str, known: Sequence[str] | Table, prefix: str = "") -> Refused:
    """The refusal of a field that nobody knows."""
    close = nearest(name[:100], known)
    hint = f" Did you mean {close[0]}?" if close else ""
    shown = (prefix + name)[:100]
    return Refused(400, f"Unknown field: {shown}.{hint}", param=shown, code="unknown_parameter")


def wrong(name: str, why: str, code: str = "invalid_value") -> Refused:
    """The refusal of a value."""
    return Refused(400, f"Invalid {name[:100]}: {why}.", param=name[:100], code=code)


def number(low: float, high: float, default: float | None = None, *, above: bool = False) -> Field:
    """A number from `low` (or above it) to `high`."""
    span = f"above {low:g}, up to {high:g}" if above else f"from {low:g} to {high:g}"

    def read(value: Any, name: str, _limits: Limits) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) \
                or not (low < value if above else low <= value) or not value <= high:
            raise wrong(name, f"it must be a number {span}")
        return float(value)

    lowest = {"exclusiveMinimum": low} if above else {"minimum": low}
    return Field(read, {"type": "number", **lowest, "maximum": high}, default)


def whole(low: int, high: int, default: int | None = None) -> Field:
    """A whole number from `low` to `high`; 2.0 is none."""
    def read(value: Any, name: str, _limits: Limits) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(name, "it must be a whole number")
        if not low <= value <= high:
            raise wrong(name, f"it must be from {low} to {high}")
        return value

    return Field(read, {"type": "integer", "minimum": low, "maximum": high}, default)


def flag(default: bool = False) -> Field:
    """True or false."""
    def read(value: Any, name: str, _limits: Limits) -> bool:
        if not isinstance(value, bool):
            raise wrong(name, "it must be a JSON boolean")
        return value

    return Field(read, {"type": "boolean"}, default)


def text(longest: int = 10_000, *, shortest: int = 0, required: bool = False) -> Field:
    """A text of `shortest` to `longest` characters."""
    def read(value: Any, name: str, _limits: Limits) -> str:
        if not isinstance(value, str) or not shortest <= len(value) <= longest:
            raise wrong(name, f"it must be text of {shortest} to {longest} characters")
        return value

    return Field(read, {"type": "string", "minLength": shortest, "maxLength": longest},
                 required=required)


def only(*accepted: Any) -> Field:
    """A field that does nothing here: accepted at values at which it would do nothing anywhere."""
    shown = " or ".join(json.dumps(value) for value in accepted) or "null"

    def read(value: Any, name: str, _limits: Limits) -> Any:
        if not any(isinstance(value, bool) == isinstance(fits, bool) and value == fits
                   for fits in accepted):
            raise Refused(400, f"{name} is not supported here, other than at {shown}.",
                          param=name, code="unsupported_parameter")
        return None

    return Field(read, {"enum": [*accepted, None]})


def refused(why: str) -> Field:
    """A field that is known and never accepted; `why` says what to do instead."""
    def read(_value: Any, name: str, _limits: Limits) -> Any:
        raise Refused(400, f"{name} is not supported here: {why}.", param=name,
                      code="unsupported_parameter")

    return Field(read, {"type": "null"})


def inner(table: Table, default: Any = None) -> Field:
    """An object with fields of its own; read to a dict."""
    def read(value: Any, name: str, limits: Limits) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(name, "it must be a JSON object")
        return take(table, value, limits, f"{name}.")

    return Field(read, schema_of(table), default)


def schema_of(table: Table) -> Schema:
    """The JSON schema of a table."""
    return {"type": "object", "additionalProperties": False,
            "properties": {name: field.schema if field.required or "enum" in field.schema
                           else {"anyOf": [field.schema, {"type": "null"}]}
                           for name, field in table.items()},
            **({"required": needed} if (needed := [name for name, field in table.items()
                                                   if field.required]) else {})}
