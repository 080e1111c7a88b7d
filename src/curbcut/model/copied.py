"""A model folder again, in Hugging Face's format and another dtype, everything else as it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curbcut.errors import DamagedFile, InputError, UnknownName
from curbcut.files import put_whole, write_whole
from curbcut.model import parts
from curbcut.model.config import shape_of
from curbcut.model.parts import CONFIG
from curbcut.model.weights import read_json, weight_files

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_BESIDE = ("tokenizer.json", "tokenizer_config.json", "generation_config.json",
           "special_tokens_map.json", "chat_template.jinja", "added_tokens.json", "vocab.json",
           "merges.txt", "LICENSE", "README.md")
"""What belongs to a model beside its weights; nothing else is copied, code least of all."""


def write(folder: Path | str, out: Path | str, type: str | None = None) -> int:
    """Copies the model of `folder` to `out` with weights in `type` (None: as they are); returns
    the bytes of all files.

    `config.json` is written last: where it is, the rest is. Raises UnknownName for a type,
    InputError for a model that Curbcut cannot run, for values that f16 cannot hold and where
    `out` is `folder`, DamagedFile.
    """
    if type is not None and type not in DTYPES:
        raise UnknownName("type", type, DTYPES, where="export")
    folder, out = Path(folder), Path(out)
    config = read_json(folder / CONFIG)
    shape_of(config, where=str(folder / CONFIG))
    files = weight_files(folder)
    if out.exists() and out.samefile(folder):
        raise InputError("this is the model's own folder", where=str(out),
                         mend="choose another folder with --out")
    dtype = DTYPES[type] if type else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / CONFIG).unlink(missing_ok=True)
        parts.write(out, _tensors(files, dtype))
        for name in _BESIDE:
            if (folder / name).is_file():
                _copy(folder / name, out / name)
        if dtype is not None:
            config = {key: value for key, value in config.items() if key != "torch_dtype"}
            config["dtype"] = str(dtype).removeprefix("torch.")
        write_whole(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    except (OSError, SafetensorError) as error:
        raise InputError(f"the model cannot be written ({error})", where=str(out),
                         mend="free disk space or choose another folder with --out") from error
    return sum(file.stat().st_size for file in out.iterdir() if file.is_file())


def _copy(source: Path, target: Path) -> None:
    put_whole(target, lambda aside: aside.write_bytes(source.read_bytes()))


def _tensors(files: list[Path], dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        with _opened(file) as content:
            for name in content.keys():  # noqa: SIM118  (not a mapping)
                value: Tensor = content.get_tensor(name)
                yield name, value if dtype is None else _cast(name, value, dtype)


def _cast(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    cast = value.to(dtype)
    if dtype == torch.float16 and not cast.isfinite().all():
        raise InputError(f"{name} has values that f16 cannot hold", where="export",
                         mend="choose --type bf16 or f32")
    return cast


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        opened = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"is not a readable safetensors file ({error})", where=str(file),
                          mend="copy the model again") from None
    with opened as content:
        yield content
