"""A model folder as one GGUF file: what llama.cpp, and with it phones and edge boxes, read.

Tensors go one by one from safetensors into the file, so that memory holds one of them at a time.
Names are those of the `gguf` package's own table; types are those that it can make in NumPy: f32,
f16, bf16, and 32 weights a block with a scale (q8_0, q5_0, q5_1, q4_0, q4_1). The K-types (q4_K_M
and others) are made by llama.cpp's `llama-quantize` from a file of f16 or bf16.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from curbcut.errors import DamagedFile, InputError, UnknownName
from curbcut.files import put_whole
from curbcut.model.config import OWN_KIND, kind_of, shape_of
from curbcut.model.decoder import Decoder
from curbcut.model.gguf_keys import add_tokenizer, describe, kit, rope_factors
from curbcut.model.names import places
from curbcut.model.weights import is_needless, read_json, weight_files
from curbcut.spec.nouns import ModelShape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types that can be written, most bits first."""
_ARCHITECTURES = {"llama": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
                  "qwen3_moe": "qwen3moe"}
"""llama.cpp's name of each kind of shape."""
_EXPERT = re.compile(r"(?P<layer>.*)\.(?P<block>mlp|block_sparse_moe)\.experts\.(?P<expert>\d+)"
                     r"\.(?P<matrix>\w+)\.weight")
_BLOCK = 32
"""Weights that share a scale in each of the quantised types."""


@dataclass(frozen=True)
class Piece:
    """One tensor of the file."""

    name: str
    """Its name in GGUF."""
    sources: tuple[str, ...]
    """Names on disk; several are stacked (experts)."""
    shape: tuple[int, ...]
    """Its shape, rows first."""
    kind: str
    """Its type, of `TYPES`."""
    heads: int = 0
    """Heads whose rotary halves are interleaved (queries and keys of llama); 0 for none."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    path: Path
    bytes: int
    """Size of the file."""
    types: Mapping[str, int]
    """Tensors by type."""
    widened: tuple[str, ...]
    """Tensors whose rows are no multiple of 32 weights and were therefore kept as f16."""


def write(folder: Path | str, path: Path | str, type: str = "bf16") -> Written:
    """Writes the model in `folder` (Hugging Face's format) to `path` with weights of `type`.

    Norms, biases and routers stay f32; where `type` has fewer than 8 bits, embedding and head are
    q8_0, as llama.cpp keeps them wider too. The file is written aside and renamed.
    Raises UnknownName for a type, InputError for a model or tokenizer that llama.cpp would read in
    another way, DamagedFile for a folder that contradicts itself, MissingExtra without `gguf`.
    """
    if type not in TYPES:
        raise UnknownName("type", type, TYPES, where="export")
    kit()
    folder, path = Path(folder), Path(path)
    where = str(folder / "config.json")
    shape = shape_of(read_json(folder / "config.json"), where=where)
    architecture = _architecture(shape, where)
    with _stored(folder) as stored:
        pieces = _pieces(stored, shape, architecture, type, folder)
        try:
            put_whole(path, lambda aside: _put(aside, folder, shape, architecture, type, pieces,
                                               stored))
        except OSError as error:
            raise InputError(f"the file cannot be written ({error})", where=str(path),
                             mend="free disk space or choose another place with --out") from error
    kinds = [piece.kind for piece in pieces]
    return Written(path, path.stat().st_size, {kind: kinds.count(kind) for kind in TYPES
                                               if kind in kinds},
                   tuple(piece.name for piece in pieces if piece.kind == "f16" and type[0] == "q"))


def _architecture(shape: ModelShape, where: str) -> str:
    """llama.cpp's name of the architecture. Raises InputError where it has none for it."""
    kind = kind_of(shape)
    if kind == OWN_KIND or shape.dense_layers:
        raise InputError("llama.cpp has no architecture for this combination of experts",
                         where=where, mend="serve it with `curbcut serve`, or train a shape "
                         "without shared experts and first dense layers")
    return _ARCHITECTURES[kind]


class _Stored:
    """Tensors of a folder by name, read when asked for."""

    def __init__(self, files: list[Any]) -> None:
        self._of = {name: file for file in files for name in file.keys()}  # noqa: SIM118

    def names(self) -> list[str]:
        return list(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of[name].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._of[name].get_tensor(name)
        return tensor.to(torch.float32)


@contextlib.contextmanager
def _stored(folder: Path) -> Iterator[_Stored]:
    with contextlib.ExitStack() as opened:
        try:
            yield _Stored([opened.enter_context(safe_open(file, framework="pt"))
                           for file in weight_files(folder)])
        except (SafetensorError, FileNotFoundError) as error:
            raise DamagedFile(f"weights cannot be read ({error})", where=str(folder),
                              mend="copy the model again") from None


def _pieces(stored: _Stored, shape: ModelShape, architecture: str, type: str,
            folder: Path) -> list[Piece]:
    """The tensors of the file, in the order of the decoder's; those on disk are just the model's.

    Raises DamagedFile for a tensor that is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in Decoder(shape).state_dict().items()}
    left = {name for name in stored.names() if not is_needless(name, shape)}
    table = kit().get_tensor_name_map(_architecture_number(architecture), shape.layers)
    found: dict[str, Piece] = {}
    for name, (whole, place) in places(wanted, shape).items():
        size = wanted[whole] if place is None else wanted[whole][1:]
        if name not in left:
            raise DamagedFile(f"tensor {name} is missing", where=str(folder),
                              mend="copy all files of the model again")
        if stored.shape(name) != size:
            raise DamagedFile(f"{name} has shape {list(stored.shape(name))}, but config.json says "
                              f"{list(size)}", where=str(folder),
                              mend="use the config.json that belongs to these weights")
        left.discard(name)
        final = _final_name(name, table)
        if final in found:
            found[final] = replace(found[final], sources=(*found[final].sources, name))
            continue
        heads = 0
        if architecture == "llama" and ".q_proj." in name:
            heads = shape.heads
        elif architecture == "llama" and ".k_proj." in name:
            heads = shape.kv_heads
        found[final] = Piece(final, (name,), wanted[whole], _kind(final, wanted[whole], type),
                             heads)
    if left:
        raise DamagedFile(f"unexpected tensor {min(left)}", where=str(folder),
                          mend="use the config.json that belongs to these weights")
    return list(found.values())


def _final_name(name: str, table: Any) -> str:
    """The name in GGUF of a tensor on disk; experts of a matrix share one."""
    expert = _EXPERT.fullmatch(name)
    if expert is None:
        given: str | None = table.get_name(name, try_suffixes=(".weight", ".bias"))
    elif expert["block"] == "mlp":
        given = table.get_name(f"{expert['layer']}.mlp.experts.{expert['matrix']}.weight",
                               try_suffixes=(".weight",))
    else:
        number = expert["layer"].rpartition(".")[2]
        given = table.get_name(f"layers.{number}.feed_forward.experts.{expert['matrix']}.weight",
                               try_suffixes=(".weight",))
    assert given is not None, name  # each architecture above has all of its decoder's tensors
    return given


def _kind(name: str, shape: tuple[int, ...], type: str) -> str:
    """The type of a tensor in a file of `type`."""
    if len(shape) == 1 or "ffn_gate_inp" in name:
        return "f32"
    if type[0] != "q":
        return type
    if shape[-1] % _BLOCK:
        return "f16"
    return "q8_0" if name in ("token_embd.weight", "output.weight") else type


def _put(path: Path, folder: Path, shape: ModelShape, architecture: str, type: str,
         pieces: list[Piece], stored: _Stored) -> None:
    """Writes the file: what it is, then what is in it, then the tensors."""
    import numpy as np

    writer = kit().GGUFWriter(None, architecture)
    try:
        describe(writer, folder, shape, type)
        add_tokenizer(writer, folder, shape)
        factors = rope_factors(shape)
        if factors is not None:
            pieces = [Piece("rope_freqs.weight", (), factors.shape, "f32"), *pieces]
        for piece in pieces:
            kind = kit().GGMLQuantizationType[piece.kind.upper()]
            block, size = kit().GGML_QUANT_SIZES[kind]
            # beside a type of floats, the shape is read in weights and not in bytes
            writer.add_tensor_info(piece.name, piece.shape, np.dtype(np.float32),
                                   math.prod(piece.shape) // block * size, raw_dtype=kind)
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for piece in pieces:
            writer.write_tensor_data(_data(piece, stored) if piece.sources else factors)
    finally:
        writer.close()


def _data(piece: Piece, stored: _Stored) -> npt.NDArray[Any]:
    """The bytes of a tensor: read, interleaved where rotary positions want it, packed."""
    import numpy as np

    read = [stored.read(name) for name in piece.sources]
    if piece.heads:
        read = [interleaved(one, piece.heads) for one in read]
    parts = [packed(one.numpy(), piece.kind) for one in read]
    whole = np.stack(parts) if len(piece.shape) == 3 else parts[0]
    if piece.kind == "f16" and not np.isfinite(whole).all():
        raise InputError(f"{piece.sources[0]} has values that f16 cannot hold", where="export",
                         mend="choose --type bf16 or f32")
    return whole


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """`weight` [heads x size, ...] with each head's two halves interleaved.

    Hugging Face's llama turns dimension i with i + size/2; llama.cpp's turns neighbours, as the
    first release of Llama did (`LlamaModel.permute` of llama.cpp's converter).
    """
    return (weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
            .swapaxes(1, 2).reshape(weight.shape).contiguous())


def packed(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[Any]:
    """`values` as `kind` stores them: floats, or bytes of blocks along the last dimension."""
    import numpy as np

    if kind == "f16":
        with np.errstate(over="ignore"):  # what overflows is refused by name
            return values.astype(np.float16)
    quantised: npt.NDArray[Any] = kit().quants.quantize(
        values, kit().GGMLQuantizationType[kind.upper()])
    return quantised


def _architecture_number(name: str) -> Any:
    return next(number for number, known in kit().MODEL_ARCH_NAMES.items() if known == name)
