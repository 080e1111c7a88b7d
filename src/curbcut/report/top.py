"""The runs as a terminal shows them live: one line a run, or one run with its course."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curbcut import units

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Row = Mapping[str, Any]
"""A state as `states.plain` has it."""

_LOOKS = {"training": ("●", "green"), "planned": ("○", "dim"), "stopped": ("■", "yellow"),
          "done": ("✓", "cyan"), "crashed": ("✗", "bold red")}
_BAR = 8
_LEVELS = "▁▂▃▄▅▆▇█"
_NOTHING = "–"
"""What is not known."""
EVENTS = 8
"""Of a run's events, so many of the newest are shown."""


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Row], str]
    right: bool = True
    dropped: int = 0
    """Where the terminal is narrow, columns with the highest number go first; 0 stays."""


_COLUMNS = (
    _Column("run", lambda row: str(row["name"]), right=False),
    _Column("model", lambda row: str(row["model"]) or _NOTHING, right=False, dropped=8),
    _Column("progress", lambda row: progress(row), right=False, dropped=2),
    _Column("loss", lambda row: _number(row["loss"], ".3f"), dropped=1),
    _Column("bits/byte", lambda row: _number(row["bits_per_byte"], ".3f"), dropped=7),
    _Column("tok/s", lambda row: _shown(row["tokens_per_second"], "count"), dropped=3),
    _Column("MFU", lambda row: _number(row["mfu"], ".1%"), dropped=6),
    _Column("money", lambda row: spent(row["usd"], "usd"), dropped=4),
    _Column("energy", lambda row: spent(row["kwh"], "kwh"), dropped=5),
    _Column("last sign", lambda row: ago(row["age_seconds"]), dropped=1),
)


def runs_table(rows: Sequence[Row], width: int) -> Table:
    """All runs; columns that do not fit into `width` characters are left out."""
    from rich.table import Table
    from rich.text import Text

    shown = _fitting(rows, width)
    table = Table(box=None, pad_edge=False, header_style="bold", caption=_legend(rows),
                  caption_justify="left", caption_style="dim")
    table.add_column("state", no_wrap=True)
    for column in shown:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True,
                         overflow="ellipsis")
    for row in rows:
        table.add_row(_state(row), *(Text(column.cell(row)) for column in shown))
    return table


def run_view(row: Row, losses: Sequence[float], events: Sequence[Row],
             width: int) -> RenderableType:
    """One run: its figures, the course of its loss, and what happened to it last."""
    from rich.console import Group
    from rich.text import Text

    facts = [("", runs_table([row], width)), ("why", row["reason"]), ("machine", row["machine"]),
             ("steps", f"{_whole(row['step'])} of {_whole(row['steps'])}"),
             ("tokens", _shown(row["tokens"], "count")),
             ("time", _shown(row["seconds"], "seconds")),
             ("money", _promise(row["usd"], "usd")), ("energy", _promise(row["kwh"], "kwh"))]
    lines: list[RenderableType] = [
        Text(f"{name:<8} {value}") if isinstance(value, str) else value
        for name, value in facts if value]
    known = [loss for loss in losses if math.isfinite(loss)]
    if known:
        lines.append(Text(f"{'loss':<8} {sparkline(losses, max(10, width - 30))} "
                          f"{max(known):.3f} → {known[-1]:.3f}"))
    lines += [Text(f"{_clock(event['time'])}  {told(event['kind'], event['body'])}"[:width], "dim")
              for event in events[-EVENTS:]]
    return Group(*lines)


def progress(row: Row) -> str:
    """A bar and the share of steps that are done."""
    share = row["progress"]
    if share is None:
        return _NOTHING
    full = min(_BAR, int(share * _BAR))
    return f"{'█' * full}{'░' * (_BAR - full)} {math.floor(100 * share):>3}%"


def spent(figure: Mapping[str, Any], dimension: str) -> str:
    """What is used, of what was promised; "~" before what is modelled."""
    now, promised = figure["now"], figure["promised"]
    said = _NOTHING if now is None else units.show(now, dimension, like=promised or None)
    if figure["basis"] not in ("measured", ""):
        said = f"~{said}"
    return said if promised is None else f"{said} / {units.show(promised, dimension)}"


def ago(seconds: float | None) -> str:
    """How long ago, in one whole unit."""
    if seconds is None:
        return _NOTHING
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def sparkline(values: Sequence[float], width: int) -> str:
    """`values` as at most `width` bars, low to high; of each stretch the most, so that a spike
    stays one, and "!" for a value that is not finite.
    """
    count = min(width, len(values))
    parts = [values[i * len(values) // count:(i + 1) * len(values) // count] for i in range(count)]
    tops = [max(part, key=lambda v: v if math.isfinite(v) else math.inf) for part in parts]
    known = [top for top in tops if math.isfinite(top)]
    low = min(known, default=0.0) / 2  # halves: a difference of two floats may be none
    size = max(known, default=0.0) / 2 - low
    return "".join("!" if not math.isfinite(top) else
                   _LEVELS[round((top / 2 - low) / size * (len(_LEVELS) - 1)) if size else 0]
                   for top in tops)


def told(kind: str, body: Mapping[str, Any]) -> str:
    """An event of a run in words."""
    at = f"step {body['step']}: " if isinstance(body.get("step"), int) else ""
    match kind:
        case "start":
            return f"started at step {body.get('step')} of {body.get('steps')}"
        case "end":
            return f"{at}ended: {body.get('reason')}"
        case "evaluation":
            bits = body.get("bits_per_byte")
            return f"{at}held out {_number(bits, '.3f')} bits/byte"
        case "checkpoint":
            return f"checkpoint {body.get('path')}"
        case "trouble":
            return f"{at}{'applied' if body.get('applied') else 'skipped'}: {body.get('what')}"
        case "straggler":
            return f"{at}slowed {_number(body.get('times'), '.1f')} times by one rank"
        case "forecast":
            return f"{at}will end at {_shown(body.get('seconds'), 'seconds')}, promised " \
                   f"{_shown(body.get('promised_seconds'), 'seconds')}"
        case "launch":
            fault = body.get("fault") or {}
            return f"launch {body.get('number')} ended: {fault.get('what', body.get('outcome'))}"
        case "note":
            return str(body.get("text", ""))
    return kind


def _fitting(rows: Sequence[Row], width: int) -> list[_Column]:
    """The columns that fit beside the state, each as wide as its widest cell."""
    wide = {column: max([len(column.title), *(len(column.cell(row)) for row in rows)]) + 2
            for column in _COLUMNS}
    left, shown = width - len("● training  "), list(_COLUMNS)
    while sum(wide[column] for column in shown) > left:
        least = max(shown, key=lambda column: column.dropped)
        if not least.dropped:
            break
        shown.remove(least)
    return shown


def _state(row: Row) -> Text:
    from rich.text import Text

    symbol, style = _LOOKS.get(row["state"], ("?", ""))
    return Text(f"{symbol} {row['state']}", style=style)


def _legend(rows: Sequence[Row]) -> str | None:
    modelled = any(row[key]["basis"] == "modelled" for row in rows for key in ("usd", "kwh"))
    return "~ modelled; used / promised" if modelled else None


def _promise(figure: Mapping[str, Any], dimension: str) -> str:
    said = spent({**figure, "promised": None}, dimension)
    if figure["promised"] is None:
        return f"{said}, nothing was promised"
    low, high = (_shown(figure[side], dimension) for side in ("low", "high"))
    return f"{said} of {units.show(figure['promised'], dimension)} promised ({low} to {high})"


def _clock(seconds: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(seconds))


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else _NOTHING


def _shown(value: Any, dimension: str) -> str:
    return units.show(value, dimension) if isinstance(value, int | float) else _NOTHING


def _whole(value: Any) -> str:
    return _NOTHING if value is None else f"{value:,}"
