"""From recorded columns to what a chart shows: a metric against an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curbcut.accounts.energy import JOULES_PER_KWH
from curbcut.web.columns import Column, Frame, Recorded

Axis = Literal["step", "tokens", "hours", "usd", "kwh"]
HOUR = 3600.0


@dataclass(frozen=True)
class Metric:
    """One figure over the course of a run."""

    name: str
    label: str
    unit: str
    """Dimension, as `units.show` takes it."""
    section: str
    """Of the page: loss, speed, memory, energy & money."""
    kind: str = "step"
    """Of the lines that record it."""
    promise: tuple[str, str] | None = None
    """Section and kind of the forecast's figure that it answers."""
    at_end: bool = False
    """Whether what is promised is of the end of the run, not of any moment in it."""
    of: Callable[[Frame], Column] | None = None
    """How it follows from columns; None where it is one of them."""


def _speed(frame: Frame) -> Column:
    return _over(_over(frame["tokens"], frame["step"]), frame["step_seconds"])


def _watts(frame: Frame) -> Column:
    """At the device, by its sensor; where there is none what was modelled, at the facility."""
    joules = frame["joules"]
    if np.isnan(joules).all():
        joules = frame["kwh"] * JOULES_PER_KWH
    return _over(_since(joules), _since(frame["seconds"]))


METRICS: Mapping[str, Metric] = {one.name: one for one in (
    Metric("loss", "training loss", "nats/token", "loss", promise=("loss", "nats_per_token"),
           at_end=True),
    Metric("bits_per_byte", "held-out bits per byte", "bits/byte", "loss", "evaluation",
           ("loss", "bits_per_byte"), at_end=True),
    Metric("nats_per_token", "held-out loss", "nats/token", "loss", "evaluation",
           ("loss", "nats_per_token"), at_end=True),
    Metric("gradient_norm", "gradient norm", "", "loss"),
    Metric("learning_rate", "learning rate", "", "loss"),
    Metric("tokens_per_second", "speed", "tokens/s", "speed",
           promise=("tokens_per_second", "steps"), of=_speed),
    Metric("mfu", "MFU", "fraction", "speed", promise=("mfu", "run")),
    Metric("step_seconds", "time of a step", "seconds", "speed"),
    Metric("busiest_expert", "busiest expert, times its even share", "", "speed"),
    Metric("memory_bytes", "peak memory", "bytes", "memory", promise=("memory_bytes", "peak")),
    Metric("watts", "power", "watts", "energy & money", promise=("watts", "device"), of=_watts),
    Metric("usd", "money so far", "usd", "energy & money", promise=("usd", "total"), at_end=True),
    Metric("kwh", "energy so far", "kwh", "energy & money", promise=("kwh", "facility"),
           at_end=True),
)}

AXES: Mapping[Axis, str] = {"step": "", "tokens": "count", "hours": "hours", "usd": "usd",
                            "kwh": "kwh"}
"""Dimension of each axis."""


@dataclass(frozen=True)
class Points:
    """A metric against an axis, all points that there are: `[points]` each."""

    x: Column
    y: Column
    """Infinity where the run recorded what is not finite."""
    line: np.ndarray[tuple[int], np.dtype[np.intp]]
    """Which recorded line each point is of, in the order in which lines came."""
    restarts: bool
    """Whether a later attempt did steps again that earlier points were of."""


def points(recorded: Recorded, metric: Metric, axis: Axis) -> Points:
    """All points of a metric; a run that lacks a column of it has none."""
    frame = recorded.frames[metric.kind]
    y = metric.of(frame) if metric.of else frame[metric.name]
    x = _axis(recorded, frame, metric.kind, axis)
    line = np.arange(len(frame))
    restarts = False
    if axis in ("step", "tokens"):
        kept = survivors(frame["step"])
        restarts = not kept.all()
        x, y, line = x[kept], y[kept], line[kept]
    known = ~np.isnan(y) & np.isfinite(x)
    x, y, line = x[known], y[known], line[known]
    return Points(np.maximum.accumulate(x) if len(x) else x, y, line, restarts)


def survivors(step: Column) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which lines no later attempt did again: those before every later line's step."""
    filled = np.where(np.isnan(step), np.inf, step)
    later = np.append(np.minimum.accumulate(filled[::-1])[::-1][1:], np.inf)
    kept: np.ndarray[tuple[int], np.dtype[np.bool_]] = filled < later
    return kept


def _axis(recorded: Recorded, frame: Frame, kind: str, axis: Axis) -> Column:
    """The axis' value of each line; between lines of steps it is read off by time."""
    if axis == "step":
        return frame["step"]
    steps = recorded.frames["step"]
    whole = steps["seconds"] / HOUR if axis == "hours" else steps[axis]
    if kind == "step":
        return whole
    known = np.isfinite(whole)
    if not known.any():
        return np.full(len(frame), np.nan)
    if axis == "tokens":
        return np.interp(frame["step"], *_ascending(steps["step"][known], whole[known]))
    return np.interp(frame["time"], steps["time"][known], whole[known])


def _ascending(x: Column, y: Column) -> tuple[Column, Column]:
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _since(values: Column) -> Column:
    """Each value less the one before it; NaN for the first, and where it fell."""
    if not len(values):
        return values
    risen = np.diff(values, prepend=np.nan)
    return np.where(risen >= 0, risen, np.nan)


def _over(part: Column, whole: Column) -> Column:
    """NaN where there is nothing to divide by."""
    shares: Column = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return shares
