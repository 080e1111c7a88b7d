"""Whether JSON is what OpenAI's client says it is: no unknown field, no missing one, no other type.

The client itself is lenient: it lets anything through. Here its types are taken at their word.
"""

import types
import typing
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic

EXTENSIONS = frozenset(("max_model_len", "root", "parent", "stop_reason", "token_ids",
                        "prompt_token_ids", "prompt_logprobs", "store"))
"""Fields that OpenAI does not have, documented in `curbcut.serve.gateway.fields`."""


def problems(kind: Any, value: Any, place: str = "$") -> list[str]:
    """What is wrong with `value` as a `kind`; nothing if it is one."""
    origin = get_origin(kind)
    if origin is Annotated:
        return problems(get_args(kind)[0], value, place)
    if isinstance(kind, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return problems(kind.__value__, value, place)
    if kind in (Any, object):
        return []
    if origin in (Union, types.UnionType):
        found = [problems(one, value, place) for one in get_args(kind)]
        return min(found, key=len) if all(found) else []
    if origin is Literal:
        known = get_args(kind)
        return [] if value in known else [f"{place}: {value!r} is none of {known}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{place}: {value!r} is no list"]
        [inner] = get_args(kind)
        return [p for i, one in enumerate(value) for p in problems(inner, one, f"{place}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{place}: {value!r} is no object"]
        inner = get_args(kind)[1]
        return [p for key, one in value.items() for p in problems(inner, one, f"{place}.{key}")]
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return _model(kind, value, place)
    if kind is type(None):
        return [] if value is None else [f"{place}: {value!r} is not null"]
    fits = (int, float) if kind is float else kind
    right = isinstance(value, fits) and (kind is bool or not isinstance(value, bool))
    return [] if right else [f"{place}: {value!r} is no {kind.__name__}"]


def _model(kind: Any, value: Any, place: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{place}: {value!r} is no {kind.__name__}"]
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    found = [f"{place}.{name}: not a field of {kind.__name__}" for name in value
             if name not in fields and name not in EXTENSIONS]
    for name, field in fields.items():
        if name in value:
            found += problems(field.annotation, value[name], f"{place}.{name}")
        elif field.is_required():
            found.append(f"{place}.{name}: missing in {kind.__name__}")
    return found


def check(kind: Any, value: Any) -> Any:
    """The value, once it is what it should be."""
    found = problems(kind, value)
    assert not found, "\n".join(found)
    return value
