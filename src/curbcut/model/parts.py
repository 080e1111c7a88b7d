"""Weights of a model folder in files of bounded size, as transformers and vLLM read them.

A model that fits one file is `model.safetensors`; a larger one is
`model-00001-of-00003.safetensors` and so on, with `model.safetensors.index.json` to say which file
has which tensor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from curbcut.files import put_whole, sync, write_whole

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
MOST_BYTES = 5_000_000_000
"""Bytes of tensors a file: what transformers writes (`max_shard_size="5GB"`), and so about the
memory that writing takes."""


def write(folder: Path, tensors: Iterable[tuple[str, Tensor]],
          most_bytes: int = MOST_BYTES) -> None:
    """Writes named tensors, of which no file holds more than `most_bytes` (a larger tensor has a
    file of its own), and removes files of an earlier model. Raises OSError, SafetensorError.

    Where there are several files, `config.json` is removed before the first gets its name and must
    be written after this: no crash leaves a mixture that can be loaded.
    """
    pending: dict[str, Tensor] = {}
    written: list[tuple[Path, list[str]]] = []
    size = total = 0
    try:
        for name, tensor in tensors:
            length = tensor.numel() * tensor.element_size()
            if pending and size + length > most_bytes:
                written.append((_aside(folder, pending, len(written)), list(pending)))
                pending, size = {}, 0
            pending[name] = tensor
            size, total = size + length, total + length
        if not written:
            put_whole(folder / WEIGHTS, lambda path: _save(pending, path))
            _remove(folder, {WEIGHTS})
            return
        written.append((_aside(folder, pending, len(written)), list(pending)))
        _put_in_place(folder, written, total)
    finally:
        for path, _ in written:
            path.unlink(missing_ok=True)


def _aside(folder: Path, tensors: dict[str, Tensor], place: int) -> Path:
    path = folder / f".model-{place:05d}.{os.getpid()}.tmp"
    _save(tensors, path)
    sync(path)
    return path


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def _put_in_place(folder: Path, written: list[tuple[Path, list[str]]], total: int) -> None:
    (folder / CONFIG).unlink(missing_ok=True)
    sync(folder)
    where: dict[str, str] = {}
    for place, (path, names) in enumerate(written, 1):
        final = f"model-{place:05d}-of-{len(written):05d}.safetensors"
        path.replace(folder / final)
        where |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")
    _remove(folder, {INDEX, *where.values()})


def _remove(folder: Path, keep: set[str]) -> None:
    """Takes away weights of an earlier model that was divided in another way."""
    for path in [folder / WEIGHTS, folder / INDEX, *folder.glob("model-*-of-*.safetensors")]:
        if path.name not in keep:
            path.unlink(missing_ok=True)
