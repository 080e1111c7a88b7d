"""A run's page as one file: to keep, to send, to read where nothing is installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote, urlencode

from curbcut.errors import InputError, MissingExtra
from curbcut.files import write_whole

if TYPE_CHECKING:
    from curbcut.web.site import Site

POINTS = 600
"""Of a line in a saved page: its peaks stay. As `run.js` asks for them."""


def write_page(runs: Path, name: str, path: Path, ledger_at: str = "") -> int:
    """Writes the page of run `name` of the folder `runs` to `path`; returns its bytes.

    `ledger_at` names another ledger than the folder's own. What its processes left behind is taken
    into the ledger first. Raises UnknownName for a run that
    is not there, InputError for a file that cannot be written, MissingExtra without the packages of
    the pages.
    """
    try:
        from curbcut.web.site import Site
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", "ui") from None
    site = Site(runs, ledger_at)
    try:
        site.look()
        text = page(site, name)
    finally:
        site.close()
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(path),
                         mend="give another place with --out") from None
    return path.stat().st_size


def page(site: Site, name: str, now: float | None = None) -> str:
    """The page with the answers that it will ask for; `now` is in seconds since 1970.

    Raises UnknownName for a run that is not there.
    """
    from curbcut.web.shell import render

    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() if now is None else now))
    return render("run.html", page="/", name=name, answers=answers(site, name), saved_at=at)


def answers(site: Site, name: str) -> dict[str, Any]:
    """What /api would say to the page of run `name`, by address."""
    from starlette.datastructures import QueryParams

    from curbcut.web import series
    from curbcut.web.measures import METRICS, Axis
    from curbcut.web.runs import in_full, opened
    from curbcut.web.timeline import timeline

    whole = in_full(site, name)
    base = f"/api/runs/{quote(name, safe='')}"
    found = {base: whole, f"{base}/events": timeline(opened(site), name),
             "/api/metrics": series.described()}
    for axis in get_args(Axis):
        query = urlencode([("run", name), *(("metric", metric) for metric in METRICS),
                           ("x", axis), ("points", POINTS)])
        found[f"/api/series?{query}"] = series.answer(site, series.read(site, QueryParams(query)))
    return found
