"""`/api/series`: metrics of runs against an axis, whole or as far as they are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import Route

from curbcut.errors import InputError, UnknownName
from curbcut.web.answers import as_json
from curbcut.web.columns import Column, Recorded
from curbcut.web.measures import AXES, METRICS, Axis, Metric, points
from curbcut.web.promises import promises
from curbcut.web.runs import known, named, opened
from curbcut.web.thinning import thinned

if TYPE_CHECKING:
    from curbcut.web.site import Site

MOST_POINTS = 1_500
LEAST_POINTS = 200
ALL_POINTS = 18_000
"""Of one answer, where the request says no number: many series have fewer points each."""
DIGITS = 7
"""Of a figure in an answer: more than any screen has points."""


@dataclass(frozen=True)
class Asked:
    """What one request asks for."""

    runs: list[str]
    metrics: list[Metric]
    axis: Axis
    points: int
    after: Mapping[str, tuple[int, int, int]]
    """By run, what an earlier answer had: generation, lines of steps, lines of evaluations."""


def routes(site: Site) -> list[Route]:
    """The JSON of charts."""
    def series(request: Request) -> dict[str, Any]:
        site.asked()
        return answer(site, read(site, request.query_params))

    def metrics(_request: Request) -> dict[str, Any]:
        return described()

    return [Route("/api/series", as_json(series)), Route("/api/metrics", as_json(metrics))]


def described() -> dict[str, Any]:
    """`/api/metrics`: what can be asked for, in the order of the page, and along what."""
    return {"axes": AXES, "metrics": [
        {"name": one.name, "label": one.label, "unit": one.unit, "section": one.section}
        for one in METRICS.values()]}


def read(site: Site, query: QueryParams) -> Asked:
    """A request's query; raises UnknownName and InputError for what it may not say."""
    runs = [known(site, name) for name in named(query.getlist("run"))]
    metrics = []
    for name in named(query.getlist("metric"), "metric"):
        if name not in METRICS:
            raise UnknownName("metric", name[:100], METRICS, where="metric")
        metrics.append(METRICS[name])
    wanted_axis = query.get("x", "step")
    axis = next((one for one in AXES if one == wanted_axis), None)
    if axis is None:
        raise UnknownName("axis", wanted_axis[:100], AXES, where="x")
    wanted = query.get("points")
    most = min(MOST_POINTS, max(LEAST_POINTS, ALL_POINTS // (len(runs) * len(metrics))))
    if wanted is not None:
        if not (wanted.isdecimal() and len(wanted) < 6 and 4 <= int(wanted) <= MOST_POINTS):
            raise InputError(f"{wanted[:20]!r} is no number of points", where="points",
                             mend=f"give one from 4 to {MOST_POINTS}")
        most = int(wanted)
    return Asked(runs, metrics, axis, most, _cursor(query.get("after", ""), runs))


def answer(site: Site, asked: Asked) -> dict[str, Any]:
    """The series that were asked for; with a cursor only those with new points.

    A series with `append` holds what comes behind the points that the cursor stands for; without,
    it stands in their place.
    """
    ledger = opened(site)
    found = site.recorded(asked.runs)
    promised = promises(ledger, asked.runs) if not asked.after else {}
    made = []
    for metric in asked.metrics:
        for run, recorded in found.items():
            one = _series(recorded, metric, asked, asked.after.get(run))
            if one is not None:
                made.append({"run": run, "metric": metric.name, "unit": metric.unit} | one
                            | _promise(promised.get(run, {}), metric))
    return {"cursor": ".".join(_far(recorded) for recorded in found.values()), "x": asked.axis,
            "x_unit": AXES[asked.axis], "series": made}


def _series(recorded: Recorded, metric: Metric, asked: Asked,
            after: tuple[int, int, int] | None) -> dict[str, Any] | None:
    """All of a series, or what is new of it; None for nothing new."""
    known_lines = 0
    if after is not None and after[0] == recorded.generation:
        known_lines = after[1] if metric.kind == "step" else after[2]
        if known_lines >= len(recorded.frames[metric.kind]):
            return None
    all_points = points(recorded, metric, asked.axis)
    new = int(np.searchsorted(all_points.line, known_lines))
    lines = recorded.frames[metric.kind]
    if known_lines and all_points.restarts and _did_again(lines["step"], known_lines):
        new = 0
    x, y = all_points.x[new:], all_points.y[new:]
    places = thinned(y, asked.points)
    return {"x": _numbers(x[places], 12), "y": _numbers(y[places], DIGITS), "total": len(x),
            "append": bool(new)}


def _did_again(step: Column, known_lines: int) -> bool:
    """Whether the lines from `known_lines` on do steps again that lines before had done."""
    before, after = step[:known_lines], step[known_lines:]
    return bool(len(before) and len(after) and np.nanmin(after) <= np.nanmax(before))


def _promise(figures: Mapping[tuple[str, str], Mapping[str, Any]],
             metric: Metric) -> dict[str, Any]:
    found = figures.get(metric.promise) if metric.promise else None
    return {"promised": dict(found) | {"at_end": metric.at_end}} if found else {}


def _numbers(values: Column, digits: int) -> list[float | None]:
    """Numbers with so many digits; null where the run recorded what is not finite."""
    finite = np.isfinite(values)
    with np.errstate(all="ignore"):
        size = np.where(finite & (values != 0), np.floor(np.log10(np.abs(values))), 0.0)
        power = 10.0 ** np.abs(digits - 1 - size)
        scaled = np.where(size <= digits - 1, np.rint(values * power) / power,
                          np.rint(values / power) * power)
    # The least numbers that there are have no such power of ten.
    rounded: list[float | None] = np.where(np.isfinite(scaled), scaled, values).tolist()
    if not finite.all():
        return [value if ok else None for value, ok in zip(rounded, finite.tolist(), strict=True)]
    return rounded


def _far(recorded: Recorded) -> str:
    frames = recorded.frames
    return f"{recorded.generation}-{len(frames['step'])}-{len(frames['evaluation'])}"


def _cursor(text: str, runs: list[str]) -> dict[str, tuple[int, int, int]]:
    """What an earlier answer for the same runs had; raises InputError for another text."""
    if not text:
        return {}
    parts = [part.split("-") for part in text.split(".")]
    if len(parts) != len(runs) or not all(
            len(part) == 3 and all(n.isdecimal() and len(n) < 16 for n in part) for part in parts):
        raise InputError("is no cursor for these runs", where="after",
                         mend="give the one of an answer for the same runs, or leave it out")
    return {run: (int(part[0]), int(part[1]), int(part[2]))
            for run, part in zip(runs, parts, strict=True)}
