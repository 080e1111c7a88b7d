"""Reads one CSV of facts: ours, and then the user's own on top.

A user's folder is `$CURBCUT_FACTS`, else `~/.config/curbcut/facts`. A file there has the name of
ours and may leave columns out: a row with the key of one of ours replaces it (columns left out keep
our value), any other row is added. Each row there, too, must say its `source` and `date`.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curbcut.errors import InputError, UnknownName

OURS = Path(__file__).parent
PROVENANCE = ("source", "date")


@dataclass(frozen=True)
class Row:
    """One line of a CSV: its cells as text, and where it stands for messages."""

    cells: Mapping[str, str]
    place: str
    """ "file, line N"."""

    def text(self, column: str) -> str:
        """The cell; raises InputError when it is empty."""
        value = self.cells[column]
        if not value:
            raise InputError(f"{column} is empty", where=self.place, mend=f"give the {column}")
        return value

    def maybe_text(self, column: str) -> str:
        """The cell, or "" where nothing is known."""
        return self.cells[column]

    def number(self, column: str) -> float:
        """The cell as a finite number, 0 or more; raises InputError otherwise."""
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise InputError(f"{column} is {text!r}, which is no number of 0 or more",
                             where=self.place, mend="write a plain number, like 1.5 or 2e12")
        return value

    def maybe_number(self, column: str) -> float | None:
        """The cell as a number, or None when it is empty: not known, which is never 0."""
        return self.number(column) if self.cells[column] else None

    def whole(self, column: str) -> int:
        """The cell as a whole number; raises InputError otherwise."""
        value = self.number(column)
        if value != int(value):
            raise InputError(f"{column} is {value:g}, which is no whole number", where=self.place,
                             mend="write a whole number")
        return int(value)

    def flag(self, column: str) -> bool:
        """The cell as yes or no; raises InputError otherwise."""
        return self.choice(column, ("yes", "no")) == "yes"

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        """The cell, one of `allowed`; raises UnknownName otherwise."""
        text = self.text(column)
        if text not in allowed:
            raise UnknownName(column, text, allowed, where=self.place)
        return text

    def many(self, column: str) -> tuple[str, ...]:
        """The cell's parts between "|"; empty for an empty cell."""
        return tuple(part.strip() for part in self.cells[column].split("|") if part.strip())

    def interval(self, value: str = "value") -> tuple[float, float, float]:
        """The columns `value`, low and high; both ends are the value where they are empty.

        Raises InputError when they are not in order.
        """
        middle = self.number(value)
        low, high = self.maybe_number("low"), self.maybe_number("high")
        low, high = middle if low is None else low, middle if high is None else high
        if not low <= middle <= high:
            raise InputError(f"low {low:g}, {value} {middle:g}, high {high:g} are not in order",
                             where=self.place, mend="write low <= value <= high")
        return middle, low, high


def overlay_folder() -> Path:
    """The folder of the user's own facts, whether or not it is there."""
    if _settled:
        return _settled[0]
    known = os.environ.get
    return _folder(known("CURBCUT_FACTS"), known("XDG_CONFIG_HOME"), known("HOME"))


_settled: list[Path] = []


def settle() -> None:
    """From now on the environment is not asked again: for a process that answers many questions,
    where asking it takes a third of a plan's time.
    """
    _settled[:] = [overlay_folder()]


@functools.cache
def _folder(chosen: str | None, config: str | None, home: str | None) -> Path:
    # Each look-up of a fact asks; making the path anew took more than the look-up.
    if chosen:
        return Path(chosen).expanduser()
    return Path(config or "~/.config").expanduser() / "curbcut" / "facts"


def rows(name: str, key: tuple[str, ...]) -> tuple[Row, ...]:
    """All rows of `name`.csv, ours first; the `key` columns tell rows apart.

    With an empty key, rows are never replaced, only added. Raises InputError (with file and line)
    for a row of the user's that cannot be read.
    """
    return _rows(name, key, overlay_folder())


@functools.cache
def _rows(name: str, key: tuple[str, ...], overlay: Path) -> tuple[Row, ...]:
    columns, ours = _read(OURS / f"{name}.csv", None)
    _refuse_stray(overlay)
    own = overlay / f"{name}.csv"
    if not own.is_file():
        return tuple(ours)
    found = {_key(row.cells, key) or (str(i),): row for i, row in enumerate(ours)}
    for row in _read(own, columns)[1]:
        blank = dict.fromkeys(columns, "")
        stated = Row({**blank, **row.cells}, row.place)
        for needed in (*key[:1], *PROVENANCE):
            stated.text(needed)
        replaced = found.get(_key(stated.cells, key))
        merged = Row({**(replaced.cells if replaced else blank), **row.cells}, row.place)
        found[_key(merged.cells, key) or (row.place,)] = merged
    return tuple(found.values())


@functools.cache
def _refuse_stray(overlay: Path) -> None:
    """Raises UnknownName for a CSV of the user's that has no name of ours: nothing reads it."""
    ours = [path.relative_to(OURS).as_posix() for path in OURS.rglob("*.csv")]
    for path in sorted(overlay.rglob("*.csv")):
        if path.relative_to(overlay).as_posix() not in ours:
            raise UnknownName("file of facts", path.name, ours, where=str(overlay))


def _key(cells: Mapping[str, str], key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cells[column].casefold() for column in key)


def _read(path: Path, known: Sequence[str] | None) -> tuple[list[str], list[Row]]:
    """Header and rows of one file; columns must be among `known` where that is given."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path),
                         mend="give a readable CSV file in UTF-8") from None
    shown = path.name if known is None else str(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    found: list[Row] = []
    try:
        for cells in reader:
            place = f"{shown}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            if not header:
                header = _header(cells, known, place)
            else:
                found.append(_row(header, cells, place))
    except csv.Error as error:
        raise InputError(f"is no CSV ({error})", where=f"{shown}, line {reader.line_num}",
                         mend="mend the quotes on that line") from None
    return header, found


def _header(cells: list[str], known: Sequence[str] | None, place: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    for column in header:
        if known is not None and column not in known:
            raise UnknownName("column", column, known, where=place)
    return header


def _row(header: list[str], cells: list[str], place: str) -> Row:
    if len(cells) != len(header):
        raise InputError(f"has {len(cells)} cells, the header has {len(header)}", where=place,
                         mend='put quotes around text with commas: "a, b"')
    stripped = (cell.strip() for cell in cells)
    return Row(dict(zip(header, stripped, strict=True)), place)
