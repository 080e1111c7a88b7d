"""What a safetensors file says it holds, checked before a byte of it is taken for a weight.

The format (github.com/huggingface/safetensors): 8 bytes of length, little-endian; a JSON table of
that length: name -> {"dtype", "shape", "data_offsets": [begin, end]} and "__metadata__"; the data.
A file from a stranger is read by these rules, each of which holds for every file that the library
itself writes.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from curbcut.errors import DamagedFile

MOST_HEADER_BYTES = 25_000_000
"""A header of 100,000 tensors has about 12 MB."""
MOST_TENSORS = 200_000
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
         "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
         "C64": 8}
"""Bytes of an element by its type's name in the file."""
FLOATS = ("F64", "F32", "F16", "BF16")


class Told(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def read(file: Path) -> dict[str, Told]:
    """The tensors of a file by name. Raises DamagedFile for whatever is not a sound file: a header
    too long, a name twice, an unknown type, parts that overlap, leave gaps or lie outside.
    """
    try:
        mode = file.stat()
        if not stat.S_ISREG(mode.st_mode):
            raise _damaged(file, "is no plain file")
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if mode.st_size < 8 or length > mode.st_size - 8:
                raise _damaged(file, "is not a readable safetensors file (it is cut short)")
            if length > MOST_HEADER_BYTES:
                raise _damaged(file, f"has a header of {length} bytes, and at most "
                                     f"{MOST_HEADER_BYTES} are read")
            table = _parsed(file, content.read(length))
    except FileNotFoundError:
        raise DamagedFile("is missing", where=str(file), mend="copy the model again") from None
    except OSError as error:
        raise _damaged(file, f"cannot be read ({error.strerror})") from None
    table.pop("__metadata__", None)
    if len(table) > MOST_TENSORS:
        raise _damaged(file, f"says that it has {len(table)} tensors")
    parts = sorted((*_part(file, name, told), name) for name, told in table.items())
    _check_order(file, parts, mode.st_size - 8 - length)
    return {name: Told(told["dtype"], tuple(told["shape"])) for name, told in table.items()}


def _parsed(file: Path, header: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _damaged(file, "names a tensor twice")
        return found

    try:
        table = json.loads(header, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise _damaged(file, "is not a readable safetensors file (its header is no JSON)") from None
    if not isinstance(table, dict):
        raise _damaged(file, "is not a readable safetensors file (its header is no table)")
    return table


def _part(file: Path, name: str, told: Any) -> tuple[int, int]:
    """Where a tensor begins and ends in the data; as long as its type and shape say."""
    said = told if isinstance(told, dict) else {}
    dtype: Any = said.get("dtype")
    shape: Any = said.get("shape")
    place: Any = said.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _damaged(file, f"{_short(name)} is of type {_short(dtype)}, which is not known")
    if not (_are_counts(shape) and _are_counts(place) and len(place) == 2):
        raise _damaged(file, f"{_short(name)} has no shape or place")
    if place[1] - place[0] != math.prod(shape) * BYTES[dtype]:
        raise _damaged(file, f"{_short(name)} is said to be {_short(shape)} of {dtype} in "
                             f"{place[1] - place[0]} bytes")
    return place[0], place[1]


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(
        type(one) is int and 0 <= one < 2**63 for one in value)


def _check_order(file: Path, parts: Iterable[tuple[int, int, str]], size: int) -> None:
    end = 0
    for begin, after, name in parts:
        if begin != end:
            raise _damaged(file, f"{_short(name)} overlaps another tensor or leaves a gap")
        end = after
    if end != size:
        raise _damaged(file, f"is not a readable safetensors file (its tensors end at byte {end} "
                             f"of {size})")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _damaged(file: Path, what: str) -> DamagedFile:
    return DamagedFile(what, where=str(file),
                       mend="copy the model again, or use an earlier checkpoint")
