"""Tables as Markdown, CSV and JSON (`report.tables` says what each holds)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curbcut.report.tables import Column, Format, Plain, Table, Value, read, spelt
from curbcut.spec import Estimate


def written(tables: Sequence[Table], chosen: Format,
            plain: object = None) -> str:
    """Tables in a format that is not "text", with its last newline."""
    if chosen == "json":
        content = plain if plain is not None else {"tables": [as_plain(one) for one in tables]}
        return json.dumps(_strict(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    each = as_csv if chosen == "csv" else as_markdown
    if chosen == "csv":
        tables = [table for table in tables if table.columns]
    parts = [each(table, titled=len(tables) > 1 or chosen == "markdown") for table in tables]
    return "\n".join(parts)


def as_plain(table: Table) -> dict[str, Any]:
    """One table as JSON-ready data."""
    return {
        "title": table.title,
        "columns": [{"key": one.key, "title": one.title, "unit": one.unit or None}
                    for one in table.columns if one.only != "people"],
        "rows": [{column.key: _plain(read(value)) for column, value in _read(table, row)}
                 for row in table.rows],
        "notes": list(table.notes)}


def _read(table: Table, row: Sequence[Value]) -> Iterator[tuple[Column, Value]]:
    """The cells of a row that programs read, each with its column."""
    pairs = zip(table.columns, row, strict=True)
    return ((column, value) for column, value in pairs if column.only != "people")


def _plain(value: Plain) -> Any:
    if isinstance(value, Estimate):
        return {"value": value.value, "low": value.low, "high": value.high,
                "basis": value.basis, "source": value.source}
    return value


def _strict(value: Any) -> Any:
    """JSON has no infinity: a bound that is none is null."""
    if isinstance(value, Mapping):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(table: Table, *, titled: bool = False) -> str:
    """One table as CSV, under a line with its title where it is one of several."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if titled:
        writer.writerow([table.title])
    writer.writerow([name for column in table.columns if column.only != "people"
                     for name in _names(column)])
    for row in table.rows:
        writer.writerow([text for column, value in _read(table, row)
                         for text in _fields(column, read(value))])
    return out.getvalue()


def _names(column: Column) -> Iterator[str]:
    yield column.key
    if column.interval:
        yield f"{column.key}_low"
        yield f"{column.key}_high"


def _fields(column: Column, value: Plain) -> Iterator[str]:
    if isinstance(value, Estimate):
        ends = (value.value, value.low, value.high) if column.interval else (value.value,)
        yield from map(_field, ends)
        return
    yield _field(value)
    if column.interval:
        # A figure without an interval is exact: it is its own low and high.
        exact = value if isinstance(value, float | int) else None
        yield from (_field(exact), _field(exact))


def _field(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(float(value) if isinstance(value, float)
                                                     else value)


def as_markdown(table: Table, *, titled: bool = True) -> str:
    """One table as GitHub's Markdown has it."""
    columns, rows = spelt(table)
    lines = [f"### {table.title}", ""] if titled and table.title else []
    if columns:
        lines.append(_line([column.title for column in columns]))
        lines.append("|".join(["", *("---:" if column.right else "---" for column in columns), ""]))
        lines += [_line([cell.text for cell in row]) for row in rows]
    if table.notes:
        lines += [*([""] if columns else ()), *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    """`text` so that it stays in its cell and is text there."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
