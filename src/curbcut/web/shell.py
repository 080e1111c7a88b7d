"""What all pages share: the shell around them, the files they load, and how a page is filled in.

A page is a template that extends `shell.html`. All it loads comes from `static/`, by plain names
from a fixed list, with a digest in the address: a browser keeps a file until it changes. Nothing
comes from elsewhere, and no page holds a script or a style of its own, so that a strict
Content-Security-Policy stands. A page that is saved as one file holds them all, and its policy
allows these and no others.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curbcut.errors import MissingExtra

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".txt": "text/plain; charset=utf-8", ".svg": "image/svg+xml"}
"""Media types of the files that pages load, by their ending."""

NAVIGATION = (("/", "Runs"), ("/compare", "Compare"), ("/planner", "Planner"),
              ("/access", "Models & keys"), ("/budget", "Budget"))
"""Address and name of each page of the navigation."""

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
          "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
"""The Content-Security-Policy under which every page works."""


class Static(NamedTuple):
    """One file that pages load."""

    body: bytes
    media_type: str
    digest: str
    """Of the body: part of its address."""


@lru_cache(maxsize=1)
def static_files() -> dict[str, Static]:
    """All files that pages load, by plain name: asking for another name finds nothing."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            found[path.name] = Static(body, TYPES[path.suffix],
                                      hashlib.sha256(body).hexdigest()[:12])
    return found


def address(name: str) -> str:
    """The address of a file in `static/`: it changes with its bytes. KeyError for no such file."""
    return f"/static/{name}?v={static_files()[name].digest}"


def data(value: Any) -> str:
    """JSON that may stand inside a page's `<script type="application/json">`.

    `<`, `>` and `&` are escaped, so that no text can end the element. Not-a-numbers raise
    ValueError: JSON has none, and what is not known is null.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def render(template: str, *, page: str = "", answers: Mapping[str, Any] | None = None,
           **values: Any) -> str:
    """The page that `templates/TEMPLATE` makes of `values`; `page` is its address in NAVIGATION.

    With `answers` (of /api, by address) it is one file that holds all it needs. Text is escaped; a
    value becomes JSON by `{{ value | data }}`. Raises MissingExtra where Jinja is not installed.
    """
    return _templates().get_template(template).render(page=page, answers=answers, **values)


def saved_policy() -> str:
    """The Content-Security-Policy of a page saved as one file: its own scripts, no more."""
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(one.body).digest()).decode()}'"
        for one in static_files().values() if one.media_type.startswith("text/javascript"))
    return (f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'")


@lru_cache(maxsize=1)
def _templates() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
        from jinja2.runtime import Context
        from markupsafe import Markup
    except ImportError:
        raise MissingExtra("jinja2", "ui") from None
    made = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    @pass_context
    def script(context: Context, name: str, defer: bool = True) -> Markup:
        if context["answers"]:
            return Markup("<script>{}</script>").format(Markup(_text(name)))
        return Markup('<script src="{}"{}></script>').format(
            address(name), Markup(" defer") if defer else "")

    @pass_context
    def style(context: Context, name: str) -> Markup:
        if context["answers"]:
            return Markup("<style>{}</style>").format(Markup(_text(name)))
        return Markup('<link rel="stylesheet" href="{}">').format(address(name))

    made.globals.update(static=address, navigation=NAVIGATION, saved_policy=saved_policy,
                        script=script, style=style)
    made.filters["data"] = lambda value: Markup(data(value))
    return made


def _text(name: str) -> str:
    return static_files()[name].body.decode()
