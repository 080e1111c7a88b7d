"""The kinds of fields that only administration has; see `gateway.table` for the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from curbcut.errors import InputError, nearest
from curbcut.ledger import keys
from curbcut.ledger.keys import LONGEST_WORDS, check_name
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import Field, Schema, wrong

NAME: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
"""A name as `ledger.keys.check_name` takes it."""
MODEL: Schema = {"type": "string", "pattern": f"^{keys.MODEL.pattern}$"}
SCOPE: Schema = {"type": "string",
                 "pattern": "^(organisation|project|key):[a-z0-9][a-z0-9._-]{0,63}$"}
TEXT_SCOPE: Schema = {"type": "string",
                      "pattern": "^(organisation|project|model):[a-z0-9][a-z0-9._-]{0,63}$"}
KEY_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{8}$"}
HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{12,64}$"}
WORDS = 64
"""Pairs of what a person says of themselves."""


def name(*, required: bool = False, default: str | None = None) -> Field:
    """What may name an organisation, a project or a key."""
    def read(value: Any, name: str, _limits: Limits) -> str:
        try:
            return check_name(value if isinstance(value, str) else "")
        except InputError as error:
            raise wrong(name, error.mend) from None

    return Field(read, NAME, default, required)


def matching(schema: Schema) -> Field:
    """Text of a pattern."""
    pattern = re.compile(schema["pattern"][1:-1])

    def read(value: Any, name: str, _limits: Limits) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise wrong(name, f"it must match {schema['pattern']}")
        return value

    return Field(read, schema)


def needed(field: Field) -> Field:
    """The same field, which must be given."""
    return replace(field, required=True)


def one_of(*known: str, default: str | None = None) -> Field:
    """One of a few names."""
    def read(value: Any, name: str, _limits: Limits) -> str:
        if not isinstance(value, str) or value not in known:
            close = nearest(value[:100], known) if isinstance(value, str) else []
            hint = f"; did you mean {close[0]}?" if close else ""
            raise wrong(name, f"it must be one of {', '.join(known)}{hint}")
        return value

    return Field(read, {"enum": [*known, None]}, default)


def line(longest: int = LONGEST_WORDS, default: str = "") -> Field:
    """Printable text on one line."""
    def read(value: Any, name: str, _limits: Limits) -> str:
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            raise wrong(name, f"it must be up to {longest} printable characters on one line")
        return value

    return Field(read, {"type": "string", "maxLength": longest}, default)


def words() -> Field:
    """What a person says of themselves: pairs of lines."""
    def read(value: Any, name: str, limits: Limits) -> Mapping[str, str]:
        if not isinstance(value, dict) or len(value) > WORDS:
            raise wrong(name, f"it must be an object of up to {WORDS} pairs of text")
        return {line(64).read(key, name, limits): line().read(said, name, limits)
                for key, said in value.items()}

    return Field(read, {"type": "object", "maxProperties": WORDS, "additionalProperties": {
        "type": "string", "maxLength": LONGEST_WORDS}}, {})


def several(of: Schema, fits: Any, what: str, most: int = 256, default: Any = ()) -> Field:
    """A list of texts of one kind; `fits` says whether one is of it."""
    def read(value: Any, name: str, _limits: Limits) -> Sequence[str]:
        if not isinstance(value, list) or len(value) > most or not all(
                isinstance(one, str) and fits(one) for one in value):
            raise wrong(name, f"it must be a list of up to {most} {what}")
        return tuple(dict.fromkeys(value))

    return Field(read, {"type": "array", "maxItems": most, "items": of}, default)
