"""A model's folder as a book for the shelf: what it takes in memory, and how it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.errors import InputError
from curbcut.serve.engine.shelf import Book
from curbcut.serve.opening import Way, open_engine, refuse_long_context

if TYPE_CHECKING:
    from curbcut.serve.engine.interface import OnStep

USUAL_TOKENS = 4096
"""Longest request that the cache is made for, times `max_batch`; a longer one takes the room of
several."""
_LEAST_TOKENS = 64
"""A cache for less is none."""
_SHARE = 0.5
"""Of the memory that is free beside the weights, what a cache takes at most."""


def book(folder: Path | None, way: Way, on_step: OnStep | None = None) -> Book:
    """What the shelf needs to know of a model, read from its small files only.

    Raises InputError where there is no model, no tokenizer or no room for a cache, DamagedFile
    where files are unsound.
    """
    if way.max_batch < 1:
        raise InputError(f"{way.max_batch} requests at once are none", where="--max-batch",
                         mend="give at least 1")
    adapters = tuple(way.adapters)
    if folder is None or way.engine != "own":
        return Book(load=lambda: open_engine(folder, way, on_step), bytes_=0,
                    context_tokens=way.context_tokens or 0, adapters=adapters)
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json

    refuse_long_context(folder, way)
    config = read_json(folder / CONFIG)
    if not (folder / "tokenizer.json").exists():
        raise InputError("no tokenizer.json here", where=str(folder),
                         mend="give the folder of a model, as `curbcut train` writes it")
    weights = weights_bytes(folder, config, way)
    tokens, each = cache_room(folder, config, way, weights)
    sized = replace(way, cache_tokens=tokens)
    longest = way.context_tokens or int(config.get("max_position_embeddings") or 2048)
    return Book(load=lambda: open_engine(folder, sized, on_step),
                bytes_=weights + (tokens or 0) * each,
                context_tokens=min(longest, tokens or longest),
                created=int((folder / CONFIG).stat().st_mtime), adapters=adapters)


def weights_bytes(folder: Path, config: Mapping[str, Any], way: Way) -> int:
    """Size of the weight files, at the width that they are computed in."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return stored * _width(way, config) // _stored_width(config)


def cache_room(folder: Path, config: Mapping[str, Any], way: Way,
               weights: int) -> tuple[int | None, int]:
    """Positions of the cache (None: what the runner of another family takes), and bytes of each.

    All requests of a batch get a whole context, of `USUAL_TOKENS` at most, and the cache half of
    the memory that `weights` (bytes) leave free, at most. Raises InputError where that is nothing.
    """
    from curbcut.model.config import shape_of

    try:
        shape = shape_of(config, where=str(folder))
    except InputError:
        return way.cache_tokens, 0
    each = 2 * shape.layers * shape.kv_heads * shape.head_size * _width(way, config)
    if way.cache_tokens is not None:
        return way.cache_tokens, each
    longest = min(way.context_tokens or shape.context_tokens, shape.context_tokens)
    wanted = max(way.max_batch * min(longest, USUAL_TOKENS), longest)
    free = free_bytes()
    room = int(max(0, free - weights) * _SHARE) // each
    if room < min(longest, _LEAST_TOKENS):
        raise InputError(f"weights of {weights / 2**20:.0f} MiB leave no room for a cache in the "
                         f"{free / 2**20:.0f} MiB that are free", where=str(folder),
                         mend="close other programs, or serve a smaller model")
    return min(wanted, room), each


def free_bytes() -> int:
    """Memory that can be had now: of the device, or of the machine."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _stored_width(config: Mapping[str, Any]) -> int:
    told = config.get("dtype") or config.get("torch_dtype") or "float32"
    return 2 if told in ("bfloat16", "float16") else 4


def _width(way: Way, config: Mapping[str, Any]) -> int:
    return {"auto": _stored_width(config), "fp32": 4, "bf16": 2}[way.dtype]
