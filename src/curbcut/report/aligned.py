"""Aligned columns in a console's width: the text form of a table (`report.tables` says what each
column asks for).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curbcut.report.tables import Cell, Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

INDENT = 4
"""Columns before what stands below its row."""
LEAST_BELOW = 40
"""Columns that it has at least."""


def print_rows(console: Console, columns: Sequence[Column],
               rows: Sequence[Sequence[Cell | str]]) -> None:
    """Prints a heading and rows; the last columns are cut, with "…", or wrapped first. A column
    for which there is no room at all stands below its row.
    """
    from rich.text import Text

    table = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    columns = _fitting(columns, table, console.width)
    beside = [i for i, column in enumerate(columns) if not column.below]
    kept = [columns[i] for i in beside]
    head = [Cell(column.title, "dim") for column in kept]
    body = [[row[i] for i in beside] for row in table]
    gap = "  "
    needed = sum(column.least if column.wrap else width for column, width in zip(
        kept, _natural([head, *body]), strict=True))
    if needed + len(gap) * (len(kept) - 1) > console.width:
        gap = " "
    widths = _widths([head, *body], kept, console.width - len(gap) * (len(kept) - 1))
    if any(cell.text for cell in head):
        console.print(_line(Text(no_wrap=True, overflow="crop"), head, kept, widths, gap))
    for row, cells in zip(table, body, strict=True):
        for part in _parts(cells, kept, widths):
            console.print(_line(Text(no_wrap=True, overflow="crop"), part, kept, widths, gap))
        indent = INDENT + len(row[0].text) - len(row[0].text.lstrip())
        for cell in (row[i] for i, column in enumerate(columns) if column.below):
            for text in textwrap.wrap(cell.text, max(LEAST_BELOW, console.width - indent)):
                console.print(Text(" " * indent + text, cell.style))


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Cell]],
             width: int) -> list[Column]:
    """The columns, the last of them put below where they are too many for `width`."""
    found = list(columns)
    wide = _natural([[Cell(column.title) for column in columns], *rows])
    least = [min(column.least or width, one) for column, one in zip(columns, wide, strict=True)]
    for i in reversed(range(1, len(found))):
        beside = [least[n] for n, column in enumerate(found) if not column.below]
        if sum(beside) + len(beside) - 1 <= width:
            break
        found[i] = found[i]._replace(below=True)
    return found


def _line(line: Text, cells: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int],
          gap: str) -> Text:
    """One line of aligned cells, put behind `line`."""
    for column, width, cell in zip(columns, widths, cells, strict=True):
        text = cell.text if len(cell.text) <= width else cell.text[:width - 1] + "…"
        line.append(text.rjust(width) if column.right else text.ljust(width), cell.style)
        line.append(gap)
    line.rstrip()
    return line


def _parts(row: Sequence[Cell], columns: Sequence[Column],
           widths: Sequence[int]) -> Iterator[list[Cell]]:
    """The lines of one row: several where a cell that may go on below has to."""
    folded = [textwrap.wrap(cell.text, width) if column.wrap and len(cell.text) > width
              else [cell.text] for cell, column, width in zip(row, columns, widths, strict=True)]
    for n in range(max(map(len, folded))):
        yield [Cell(texts[n] if n < len(texts) else "", cell.style)
               for texts, cell in zip(folded, row, strict=True)]


def _natural(rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]


def _widths(rows: Sequence[Sequence[Cell]], columns: Sequence[Column], limit: int) -> list[int]:
    widths = _natural(rows)
    excess = sum(widths) - limit
    for i in reversed(range(len(columns))):
        if excess > 0 and columns[i].least:
            cut = min(excess, max(0, widths[i] - columns[i].least))
            widths[i] -= cut
            excess -= cut
    return widths
