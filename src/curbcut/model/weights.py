"""A decoder to and from a folder that transformers, vLLM and llama.cpp read as it is.

    FOLDER/
    ├── model.safetensors         or, when large, several and model.safetensors.index.json
    ├── tokenizer.json, tokenizer_config.json, generation_config.json
    └── config.json               written last: where it is, the rest is

Nothing is ever unpickled; each file is written aside, synced and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curbcut import __version__
from curbcut.errors import DamagedFile, InputError
from curbcut.files import put_whole, write_whole
from curbcut.model import headers, parts
from curbcut.model.config import config, shape_of
from curbcut.model.decoder import Attention, Decoder
from curbcut.model.names import places, stored
from curbcut.model.parts import CONFIG, INDEX, WEIGHTS
from curbcut.spec.nouns import ModelShape

__all__ = ["config", "end_of_text", "is_needless", "load", "read_json", "save", "shape_of",
           "weight_files", "write"]

_END_OF_TEXT = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>")
_MOST_PARAMETERS = 10**14
_MOST_CONTEXT = 2**24
"""Far beyond any model there is; a table of positions is made of as many rows."""
_MOST_JSON_BYTES = 100_000_000
_FLOATS = ", ".join(headers.FLOATS)


def save(model: Decoder, shape: ModelShape, folder: str | os.PathLike[str],
         tokenizer: Path | None = None) -> None:
    """Writes `model` into `folder` in the dtype of its weights; see `write`."""
    write(model.state_dict().items(), shape, folder, tokenizer, dtype=model.head_weight.dtype)


def write(weights: Iterable[tuple[str, Tensor]], shape: ModelShape,
          folder: str | os.PathLike[str], tokenizer: Path | None = None, *,
          dtype: torch.dtype) -> None:
    """Writes the named `weights` of a decoder into `folder` in `dtype`, the tokenizer beside them.

    `tokenizer` is a `tokenizer.json` or the folder that has it; files of the tokenizer that lie
    beside it are copied, and made where there are none. Raises CurbcutError when the disk
    refuses; nothing half-written is left behind under a final name.
    """
    folder = Path(folder)
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tensors = ((name, value.detach().cpu().to(dtype).contiguous())
                   for name, value in stored(weights, shape))
        content = config(shape) | {"dtype": _name_of(dtype),
                                   "curbcut_version": __version__}
        if tokenizer is not None:
            content |= _save_tokenizer(tokenizer, shape, folder)
        parts.write(folder, tensors)
        _write_json(folder / CONFIG, content)


def load(folder: str | os.PathLike[str], attention: Attention = "fused",
         dtype: torch.dtype | None = None,
         device: str | torch.device = "cpu") -> tuple[Decoder, ModelShape]:
    """The decoder of a folder, in `dtype` (None: as it is stored) on `device`.

    Raises InputError where the folder has no model or one of another kind, DamagedFile for a
    file that cannot be read, and for a tensor that is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    shape = shape_of(read_json(folder / CONFIG), where=str(folder / CONFIG))
    files = weight_files(folder)
    told = _told(files, shape)
    _check_size(shape, len(told), folder)
    with torch.device("meta"):
        model = Decoder(shape, attention)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    where = places(wanted, shape)
    _check_tensors(told, where, wanted, folder)
    found: dict[str, Tensor] = {}
    for file in files:
        for name, value in _tensors(file, torch.device(device)):
            if name not in where:
                continue
            whole, place = where[name]
            value = value if dtype is None else value.to(dtype)
            if place is None:
                found[whole] = value
            else:
                found.setdefault(whole, value.new_empty(wanted[whole]))[place] = value
    model.load_state_dict(found, assign=True)
    return model.requires_grad_(True), shape


def _told(files: Iterable[Path], shape: ModelShape) -> dict[str, tuple[Path, headers.Told]]:
    """What the headers of all files say of each tensor that is needed, and where it lies."""
    found: dict[str, tuple[Path, headers.Told]] = {}
    for file in files:
        for name, told in headers.read(file).items():
            if is_needless(name, shape):
                continue
            if name in found:
                raise DamagedFile(f"{name} stands in {found[name][0].name} too", where=str(file),
                                  mend="copy the model again")
            found[name] = (file, told)
    return found


def _check_size(shape: ModelShape, tensors: int, folder: Path) -> None:
    """Refuses a config that no weights here can be meant for, before anything is built by it."""
    least = 9 * shape.layers + 3 * shape.experts * shape.expert_layers
    if (least > 2 * tensors + 100 or shape.parameters > _MOST_PARAMETERS
            or shape.context_tokens > _MOST_CONTEXT):
        raise DamagedFile(
            f"says {shape.layers} layers, {shape.parameters} parameters and a context of "
            f"{shape.context_tokens} tokens, but the weights are {tensors} tensors",
            where=str(folder / CONFIG), mend="use the config.json that belongs to these weights")


def _check_tensors(told: Mapping[str, tuple[Path, headers.Told]],
                   where: Mapping[str, tuple[str, int | None]],
                   wanted: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    for name, (file, (dtype, found)) in told.items():
        if name not in where:
            raise DamagedFile(f"unexpected tensor {name[:200]}", where=str(file),
                              mend="use the config.json that belongs to these weights")
        whole, place = where[name]
        size = wanted[whole] if place is None else wanted[whole][1:]
        if found != size:
            raise DamagedFile(f"{name} has shape {list(found)}, but config.json says "
                              f"{list(size)}", where=str(file),
                              mend="use the config.json that belongs to these weights")
        if dtype not in headers.FLOATS:
            raise DamagedFile(f"{name} is of type {dtype}, and weights are {_FLOATS}",
                              where=str(file), mend="use weights that are not quantised")
    missing = [name for name in where if name not in told]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DamagedFile(f"tensor {missing[0]}{more} is missing", where=str(folder),
                          mend="copy all files of the model again")


def end_of_text(tokenizer: dict[str, Any]) -> tuple[str, int] | None:
    """The special token that ends a text, and its id, from a parsed `tokenizer.json`.

    A well-known name wins; else the only special token there is; else None.
    """
    special = {t["content"]: int(t["id"]) for t in tokenizer.get("added_tokens", [])
               if t.get("special")}
    for name in _END_OF_TEXT:
        if name in special:
            return name, special[name]
    return next(iter(special.items())) if len(special) == 1 else None


def _save_tokenizer(source: Path, shape: ModelShape, folder: Path) -> dict[str, Any]:
    """Puts the tokenizer's files into `folder`; returns what config.json should say of them."""
    file = source / "tokenizer.json" if source.is_dir() else source
    tokenizer = read_json(file)
    put_whole(folder / "tokenizer.json", lambda path: path.write_bytes(file.read_bytes()))
    end = end_of_text(tokenizer)
    ids = {"bos_token_id": end[1], "eos_token_id": end[1]} if end else {}
    made: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context_tokens,
            "clean_up_tokenization_spaces": False,
        } | ({"bos_token": end[0], "eos_token": end[0]} if end else {}),
        "generation_config.json": {"do_sample": True, "temperature": 1.0} | ids,
    }
    for name, content in made.items():
        beside = file.parent / name
        _write_json(folder / name, read_json(beside) if beside.exists() else content)
    return ids


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder; the names in an index are plain names, never paths."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise InputError("no weights here", where=str(folder),
                         mend=f"give a folder with {WEIGHTS} (pickled weights are never read)")
    told = read_json(folder / INDEX).get("weight_map")
    names = told.values() if isinstance(told, dict) else (told,)
    for name in names:
        if (not isinstance(name, str) or Path(name).name != name or "\0" in name
                or not name.endswith(".safetensors")):
            raise DamagedFile(f"names {str(name)[:200]!r}, which is no plain file name of "
                              "safetensors", where=str(folder / INDEX),
                              mend="copy the model again")
    return [folder / name for name in sorted(set(names))]


def _tensors(file: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt", device=str(device)) as content:
            for name in content.keys():  # noqa: SIM118  (not a mapping)
                yield name, content.get_tensor(name)
    except FileNotFoundError:
        raise DamagedFile("is missing", where=str(file), mend="copy the model again") from None
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"is not a readable safetensors file ({error})", where=str(file),
                          mend="copy the model again, or use an earlier checkpoint") from None


def is_needless(name: str, shape: ModelShape) -> bool:
    """Copies that old files carry: rotary tables, and the head of a tied model."""
    return name.endswith("rotary_emb.inv_freq") or (
        name == "lm_head.weight" and shape.tied_embeddings)


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file of a model's folder. Raises InputError, DamagedFile."""
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > _MOST_JSON_BYTES):
            raise InputError("is no plain file, or too large to be read", where=str(path),
                             mend="copy the model again")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no {path.name} here", where=str(path.parent),
                         mend="give the folder of a model, as `curbcut train` writes it") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"is not valid JSON ({error})", where=str(path),
                          mend="copy the model again") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path),
                         mend="give a readable file") from None
    if not isinstance(content, dict):
        raise DamagedFile("does not hold a table", where=str(path), mend="copy the model again")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, text)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"the model cannot be written ({error})", where=str(folder),
                         mend="free disk space or mend the permissions, then run the same "
                         "command again") from error


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
