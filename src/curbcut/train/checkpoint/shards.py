"""One rank's file of a checkpoint: safetensors, with each piece's place in its whole tensor.

The places stand in the header under the name that torch's distributed checkpoint uses
(`DCP_SHARDING_INFO`), so its safetensors reader understands these files too. We neither write nor
read through it: it plans saving and loading by object collectives, which pickle, and makes a
file's bytes in memory before it writes them. Here bytes are streamed, and hashed on their way, so a
byte that the disk keeps wrongly is found.

Format: https://huggingface.co/docs/safetensors (length, JSON header, data in header order).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from curbcut.train.checkpoint.pieces import Piece

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}
CHUNK_BYTES = 8 << 20
"""Written and hashed at a time."""
_PLACES, _OFFSETS, _WHOLE = "DCP_SHARDING_INFO", "saved_offsets", "size"


@dataclass(frozen=True)
class Facts:
    """A file as it was meant to be: what a checkpoint's manifest says of it."""

    name: str
    bytes: int
    sha256: str


def write(path: Path, held: Sequence[tuple[Piece, torch.Tensor]],
          reached: Callable[[str], None]) -> Facts:
    """Writes pieces [local size] into a new file and waits until it is on the disk.

    `reached` hears the names of failure points. Raises OSError.
    """
    held = _ordered(held)
    head = header(held)
    size, half = len(head), len(head) + sum(_bytes(t) for _, t in held) // 2
    digest = hashlib.sha256(head)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with ThreadPoolExecutor(1) as hashing:  # hashing and writing both let other threads run
            _put(handle, head)
            for chunk in _chunks(held):
                done = hashing.submit(digest.update, chunk)
                _put(handle, chunk)
                if size < half <= size + len(chunk):
                    reached("save: in shard")
                size += len(chunk)
                done.result()
        reached("save: before sync")
        os.fsync(handle)
    finally:
        os.close(handle)
    return Facts(path.name, size, digest.hexdigest())


def check(path: Path, held: Sequence[tuple[Piece, torch.Tensor]]) -> None:
    """Reads a file just written and compares it with the tensors in memory, which costs a third of
    hashing it again. Raises OSError where it gives back other bytes.
    """
    held = _ordered(held)
    with path.open("rb", buffering=0) as file:
        buffer = np.empty(CHUNK_BYTES, np.uint8)
        same = file.read(len(header(held))) == header(held)
        for chunk in _chunks(held):
            there = file.readinto(buffer[:len(chunk)].data)
            same = same and there == len(chunk) and np.array_equal(buffer[:there], chunk)
        if not same or file.read(1):
            raise OSError(errno.EIO, "gives back other bytes than were written", path.name)


def header(held: Sequence[tuple[Piece, torch.Tensor]]) -> bytes:
    """The first bytes of a file that holds these pieces in this order."""
    places = {piece.name: {_OFFSETS: list(piece.offset), _WHOLE: list(piece.whole)}
              for piece, _ in held}
    content: dict[str, Any] = {"__metadata__": {"format": "pt", _PLACES: json.dumps(places)}}
    begin = 0
    for piece, tensor in held:
        end = begin + _bytes(tensor)
        content[piece.name] = {"dtype": DTYPES[tensor.dtype], "shape": list(piece.size),
                               "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def places(file: Any) -> Iterator[Piece]:
    """The pieces in an open file (`safe_open`); raises KeyError or ValueError where they are not
    said.
    """
    said: Mapping[str, Any] = json.loads(file.metadata()[_PLACES])
    for name in file.keys():  # noqa: SIM118  (not a mapping)
        yield Piece(name, tuple(said[name][_WHOLE]), tuple(said[name][_OFFSETS]),
                    tuple(file.get_slice(name).get_shape()))


def read(file: Any, piece: Piece, offset: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """The box at `offset` of the whole tensor of `size`, all within `piece` of an open file."""
    if tuple(size) == piece.size:
        whole: torch.Tensor = file.get_tensor(piece.name)
        return whole
    box = tuple(slice(begin - start, begin - start + length)
                for begin, start, length in zip(offset, piece.offset, size, strict=True))
    part: torch.Tensor = file.get_slice(piece.name)[box]
    return part


def opened(path: Path) -> Any:
    """An open file; raises SafetensorError or OSError."""
    return safe_open(path, framework="pt")


def _ordered(held: Sequence[tuple[Piece, torch.Tensor]]) -> Sequence[tuple[Piece, torch.Tensor]]:
    """Widest first: every tensor then begins at a multiple of its element's size."""
    return sorted(held, key=lambda one: (-one[1].element_size(), one[0].name))


def _chunks(held: Sequence[tuple[Piece, torch.Tensor]]) -> Iterator[memoryview]:
    for _, tensor in held:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        data = flat.numpy().data
        for begin in range(0, len(data), CHUNK_BYTES):
            yield data[begin:begin + CHUNK_BYTES]


def _put(handle: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view):]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
