"""One formula for one case and for a million: numbers that are floats or NumPy arrays alike.

Formulas of this room are written with operators and the few functions here. Where every input is a
plain number they run without NumPy, in microseconds; where some inputs are arrays they broadcast.
A noun (`ModelShape`, `Recipe`) and its `Columns` have the same attributes, so either may be given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Number: TypeAlias = Any
"""A float, or an array of floats: all arrays of one formula broadcast against each other."""
Flag: TypeAlias = Any
"""A bool, or an array of them. Join with `&`, `|`; negate with `is_not`."""


def _plain(value: object) -> bool:
    return isinstance(value, (bool, int, float))


def where(condition: Flag, yes: Number, no: Number) -> Number:
    """`yes` where `condition` holds, else `no`. Both are computed: neither may raise."""
    if isinstance(condition, bool):
        return yes if condition else no
    import numpy as np

    return np.where(condition, yes, no)


def larger(one: Number, other: Number) -> Number:
    """The larger of two, case by case."""
    if _plain(one) and _plain(other):
        return one if one >= other else other
    import numpy as np

    return np.maximum(one, other)


def smaller(one: Number, other: Number) -> Number:
    """The smaller of two, case by case."""
    if _plain(one) and _plain(other):
        return one if one <= other else other
    import numpy as np

    return np.minimum(one, other)


def ceiling(value: Number) -> Number:
    """The next whole number upwards."""
    if _plain(value):
        return float(-(-value // 1))
    import numpy as np

    return np.ceil(value)


def log2(value: Number) -> Number:
    """Binary logarithm of a positive number."""
    if _plain(value):
        import math

        return math.log2(value)
    import numpy as np

    return np.log2(value)


def is_not(condition: Flag) -> Flag:
    """The opposite."""
    if isinstance(condition, bool):
        return not condition
    import numpy as np

    return np.logical_not(condition)


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A column of names out of few: comparing it with a name gives an array of flags."""

    codes: NDArray[np.int8]
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Choice:
        """The column of `values`."""
        import numpy as np

        names = tuple(sorted(set(values)))
        place = {name: code for code, name in enumerate(names)}
        return cls(np.array([place[value] for value in values], np.int8), names)

    def __eq__(self, name: object) -> Any:
        """Flags: which rows are `name`."""
        import numpy as np

        if name not in self.names:
            return np.zeros(self.codes.shape, bool)
        return self.codes == self.names.index(str(name))

    def __ne__(self, name: object) -> Any:
        """Flags: which rows are not `name`."""
        return is_not(self == name)

    __hash__ = None  # type: ignore[assignment]


class Columns:
    """Many nouns of one kind, a column an attribute: numbers and flags as arrays, names as
    `Choice`. Properties of the noun are columns too, under their own names.
    """

    def __init__(self, **columns: Number) -> None:
        """Columns by name; scalars stand for the same value in every row."""
        self.__dict__.update(columns)

    def __getattr__(self, name: str) -> Number:
        """Only reached where a column is missing."""
        raise AttributeError(f"no column {name!r}")

    def with_columns(self, **columns: Number) -> Columns:
        """The same with some columns added or replaced."""
        return Columns(**(self.__dict__ | columns))


def taken(column: Number, places: NDArray[np.intp]) -> Number:
    """Some of a column's rows; a scalar stands for all of them and stays."""
    import numpy as np

    if isinstance(column, Choice):
        return Choice(column.codes[places], column.names)
    return column[places] if isinstance(column, np.ndarray) else column


def columns(nouns: Sequence[Any]) -> Columns:
    """The columns of `nouns` (dataclasses of one kind, at least one): fields that are numbers,
    flags or names, and the kind's public properties.
    """
    kind = type(nouns[0])
    names = [field.name for field in dataclasses.fields(kind)]
    names += [name for name, value in vars(kind).items() if isinstance(value, property)]
    found = {name: _column([getattr(noun, name) for noun in nouns])
             for name in names if not name.startswith("_")}
    return Columns(**{name: column for name, column in found.items() if column is not None})


def _column(values: Sequence[Any]) -> Number:
    """One column, or None for values that are neither numbers nor names (mappings)."""
    import numpy as np

    if all(isinstance(value, bool) for value in values):
        return np.array(values, bool)
    if all(_plain(value) for value in values):
        return np.array(values, np.float64)
    if all(isinstance(value, str) for value in values):
        return Choice.of(values)
    return None
