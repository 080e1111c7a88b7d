"""Chat templates run in a sandbox, with bounds on time and size.

A template is Jinja that came with a model: a program by a stranger. Jinja's sandbox keeps it from
everything but its variables; here its loops and calls are counted against a clock, and what it
makes against a size, so that a template that never ends, or doubles a text for ever, is an error
within a second. What transformers gives to templates (`tojson` without HTML's escapes,
`strftime_now`, `raise_exception`, loop controls, `generation` blocks) is here too.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from curbcut.serve.engine.interface import Unfit

SECONDS = 0.5
"""Longest time of one rendering."""
CHARACTERS = 4_000_000
"""Longest text that a rendering makes, at its end or on the way."""
_WIDTH = 100_000
"""Largest number that a filter or a method is given, for some make so many spaces of it."""
_BITS = 4096
_WIDE = re.compile(r"\d{6,}")


class _Budget(threading.local):
    """What the rendering on this thread may still use."""

    end = 0.0
    ticks = 0
    characters = 0

    def start(self) -> None:
        self.end, self.ticks, self.characters = time.monotonic() + SECONDS, 0, 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks % 256 == 0 and time.monotonic() > self.end:
            raise Unfit(f"it takes longer than {SECONDS} s")


_budget = _Budget()


def _sized(value: Any) -> Any:
    """The value itself; raises Unfit for one that is too large."""
    if (isinstance(value, str | list | tuple) and len(value) > CHARACTERS) or (
            isinstance(value, int) and value.bit_length() > _BITS):
        raise Unfit("it makes something too large")
    return value


def _check(function: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Holds what is cheap to ask for and dear to make, before it is made."""
    _budget.tick()
    if any(isinstance(value, int) and abs(value) > _WIDTH for value in (*given, *named.values())):
        raise Unfit(f"it gives a function a number above {_WIDTH}")
    owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
    values = (owner, *given) if isinstance(owner, str) else given
    name = getattr(function, "__name__", "")
    if name in ("replace", "do_replace"):
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) >= 3 and texts[0].count(texts[1]) * len(texts[2]) > CHARACTERS:
            raise Unfit("it makes something too large")
    elif name in ("join", "do_join"):
        for value in values:
            if isinstance(value, list | tuple) and sum(
                    len(item) + 1 for item in value if isinstance(item, str)) > CHARACTERS:
                raise Unfit("it makes something too large")
    elif "format" in name and any(isinstance(v, str) and _WIDE.search(v) for v in values):
        raise Unfit("it makes something too wide")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter within the budget; Jinja's own marks on the function stay."""
    @wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        _check(function, given, named)
        return _sized(function(*given, **named))
    return checked


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _budget.tick()
        yield item


class _Items:
    """Something to loop over, counted; as long as what it wraps."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return _counted(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _joined(*parts: Any) -> str:
    texts = [str(part) for part in parts]
    if sum(map(len, texts)) > CHARACTERS:
        raise Unfit("it makes something too large")
    return "".join(texts)


def _written(value: Any) -> Any:
    """What `{{ }}` writes, counted."""
    _budget.tick()
    text = str(value)
    _budget.characters += len(text)
    if _budget.characters > 2 * CHARACTERS:
        raise Unfit("it writes too much")
    return text


class _Generation(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside, as they are."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, within the budget."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            over: Any = loop.iter
            loop.iter = _call("_counted_items", [over], loop.lineno)
        _without_concat(tree)
        return tree

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _check(__obj, args, kwargs)
        return _sized(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _budget.tick()
        sizes = [len(side) if isinstance(side, str | list | tuple) else side
                 for side in (left, right)]
        if operator == "*" and all(isinstance(size, int) for size in sizes) \
                and sizes[0] * sizes[1] > CHARACTERS and not (sizes == [left, right]):
            raise Unfit("it makes something too large")
        if operator == "**" and isinstance(right, int) and abs(right) > 1000:
            raise Unfit("it makes something too large")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise Unfit("it makes something too wide")
        return _sized(super().call_binop(context, operator, left, right))


def _call(name: str, given: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load", lineno=line), given, [], None, None, lineno=line)


def _without_concat(node: Any) -> Any:
    """Every `a ~ b` as a call, which can be counted; the tree is changed in place."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, field, [_without_concat(item) if isinstance(item, nodes.Node) else item
                                  for item in value])
        elif isinstance(value, nodes.Node):
            setattr(node, field, _without_concat(value))
    return _call("_joined", node.nodes, node.lineno) if isinstance(node, nodes.Concat) else node


def _refuse(message: str) -> None:
    raise Unfit(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    from jinja2.ext import loopcontrols

    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_written,
                       extensions=[loopcontrols, _Generation])
    sandbox.filters["tojson"] = _to_json
    sandbox.filters = {name: _bounded(function) for name, function in sandbox.filters.items()}
    del sandbox.globals["lipsum"]
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": _now,
                        "_counted_items": _Items, "_joined": _joined}
    return sandbox.from_string(source)


def render(source: str, variables: Mapping[str, Any]) -> str:
    """What a template writes; raises Unfit, saying why."""
    _budget.start()
    try:
        text: str = _compiled(source).render(**variables)
    except Unfit as unfit:
        raise Unfit(f"the model's chat template refuses these messages: {unfit}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
            RecursionError, MemoryError, AssertionError) as error:
        raise Unfit(f"the model's chat template refuses these messages: {str(error)[:500]}"
                    ) from None
    return text
