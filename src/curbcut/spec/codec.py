"""Between nouns and plain dicts (TOML, JSON). Strict: what is not known is an error."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from curbcut import units
from curbcut.errors import InputError, UnknownName
from curbcut.spec.fields import Quantity


@cache
def hints(noun: type) -> dict[str, Any]:
    """Field types of a noun, annotations kept."""
    return get_type_hints(noun, include_extras=True)


def check(noun: type, raw: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Reads `raw` as a partial `noun`: known keys only, units parsed, ranges held.

    Returns a nested dict of typed leaves; keys that `raw` leaves out stay out. Raises UnknownName
    for a key or unit, InputError for a value of the wrong kind or range.
    """
    known = hints(noun)
    result: dict[str, Any] = {}
    for key, value in raw.items():
        place = f"{where}.{key}" if where and not where.endswith(":") else f"{where} {key}".strip()
        if key not in known:
            raise UnknownName("key", key, known, where=where or "the run")
        result[key] = _read(known[key], value, place)
    return result


def build(noun: type, values: Mapping[str, Any], where: str = "") -> Any:
    """A complete `noun` from checked values; raises InputError naming what is missing."""
    known = hints(noun)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(noun):
        inner = _noun_of(known[item.name])
        if item.name in values:
            value = values[item.name]
            if inner is not None and isinstance(value, Mapping):
                value = build(inner, value, f"{where}.{item.name}".strip("."))
            arguments[item.name] = value
        elif inner is not None and _is_required(item):
            arguments[item.name] = build(inner, {}, f"{where}.{item.name}".strip("."))
        elif _is_required(item):
            raise InputError(f"{item.name} has no value", where=where or noun.__name__,
                             mend=f"add `{item.name} = ...` under [{where}]")
    return noun(**arguments)


def plain(value: Any) -> Any:
    """A noun as plain JSON-ready data: dicts, lists, strings, numbers, None left in place."""
    if isinstance(value, units.Money):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _noun_of(hint: Any) -> type | None:
    return hint if dataclasses.is_dataclass(hint) and hint is not units.Money else None  # type: ignore[return-value]


def _read(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return _read_quantity(base, next(m for m in marks if isinstance(m, Quantity)), value, where)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _read(next(a for a in get_args(hint) if a is not type(None)), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise UnknownName("value", str(value), map(str, get_args(hint)), where=where)
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError("expected a table", where=where, mend=f"write [{where.split()[-1]}]")
        return check(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError("expected a list", where=where, mend='write ["a", "b"]')
        return tuple(_read(get_args(hint)[0], v, where) for v in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError("expected a table", where=where, mend="write { name = 1.0 }")
        return {str(k): _read(get_args(hint)[1], v, where) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value, where)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise InputError(f"expected {_english(hint)}, got {value!r}", where=where,
                         mend=f"write {_example(hint)}")
    if isinstance(value, float):
        units.finite(value, where)
    return value


def _read_quantity(base: type, mark: Quantity, value: Any, where: str) -> Any:
    if base is units.Money:
        if not isinstance(value, str):
            raise InputError(f"{value!r} has no currency", where=where, mend='write "500 EUR"')
        money = units.parse_money(value, where)
        units.finite(money.amount, where, above=mark.above, at_least=mark.at_least, said=value)
        return money
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(f"expected {_english(base)}, got {value!r}", where=where,
                         mend=f"write {_example(base)}")
    number = units.parse(value, mark.dimension, where) if isinstance(value, str) else (
        _as_float(value, where))
    least = "" if base is not int or mark.above is None else f"{mark.above + 1:g}"
    units.finite(number, where, above=mark.above, at_least=mark.at_least, said=str(value),
                 nearest=least)
    if base is int:
        if number != int(number):
            raise InputError(f"{value!r} must be a whole number", where=where, mend="round it")
        return value if isinstance(value, int) else int(number)
    return number


def _as_float(value: float, where: str) -> float:
    """`value` as a float; raises InputError for a whole number that none can hold."""
    try:
        return float(value)
    except OverflowError:
        raise InputError("is too large a number to plan with", where=where,
                         mend="give a smaller one") from None


def _english(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
        hint, str(hint))


def _example(hint: Any) -> str:
    return {int: "a number like 8", float: "a number like 0.5", str: 'text in "quotes"',
            bool: "true or false"}.get(hint, "another value")
