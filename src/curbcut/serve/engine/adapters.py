"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685), another one for each request of a batch.

A folder in PEFT's format has, for some matrices W of the model, two small ones: the adapted map is
x W' + scale * (x A') B'. W stays as it is, in whatever precision; the second term is added to the
rows of those requests that asked for the adapter. Matrices that lie together in the network
(queries, keys and values; gate and up) have their A's one below the other and their B's in blocks.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor

from curbcut.errors import DamagedFile, InputError
from curbcut.model import headers
from curbcut.model.weights import read_json
from curbcut.serve.engine.network import Touch
from curbcut.spec.nouns import ModelShape

if TYPE_CHECKING:
    from curbcut.serve.engine.runner import TorchRunner

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_RANK = 512
_KEPT_STACKS = 4
_PARTS = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
          "out": ("self_attn.o_proj",), "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
          "down": ("mlp.down_proj",)}
"""Modules of a layer, by the matrix of `network.Layer` that they are part of."""
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d{1,6})\.([a-z_]+\.[a-z_]+)"
                   r"\.lora_([AB])\.weight")
_MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none", None), "use_dora": (False, None),
    "fan_in_fan_out": (False, None), "modules_to_save": (None, []), "lora_bias": (False, None),
    "layer_replication": (None, []), "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []), "trainable_token_indices": (None, [], {}),
    "use_qalora": (False, None)}


@dataclass(frozen=True)
class Low:
    """What an adapter adds to one matrix: x [n, inputs] -> (x a') b', the scale being in b."""

    a: Tensor
    """[rank, inputs]"""
    b: Tensor
    """[outputs, rank]"""


@dataclass(frozen=True)
class Adapter:
    """All that an adapter adds, by layer and matrix."""

    lows: Mapping[tuple[int, str], Low]
    rank: int
    """Of a single module, at most."""

    @property
    def bytes_(self) -> int:
        """Size in memory."""
        return sum(low.a.nbytes + low.b.nbytes for low in self.lows.values())


def load(folder: Path, shape: ModelShape, dtype: torch.dtype = torch.float32,
         device: str | torch.device = "cpu") -> Adapter:
    """Reads adapter_config.json and adapter_model.safetensors (never a pickled one).

    Raises InputError for a kind of adapter that is more than LoRA on the dense matrices of a
    layer, DamagedFile for tensors that are not those of this model or do not belong together.
    """
    if not (folder / CONFIG).exists():
        raise InputError(f"no {CONFIG} here", where=str(folder),
                         mend="give the folder of an adapter, as PEFT's save_pretrained writes it")
    config = read_json(folder / CONFIG)
    _check(config, folder / CONFIG)
    file = folder / WEIGHTS
    if not file.exists():
        raise InputError(f"no {WEIGHTS} here", where=str(folder),
                         mend="save the adapter as safetensors (pickled ones are never read)")
    pairs = _pairs(file, shape)
    lows: dict[tuple[int, str], Low] = {}
    with safe_open(file, framework="pt", device=str(device)) as content:
        for layer in range(shape.layers):
            for matrix, modules in _PARTS.items():
                if any((layer, module) in pairs for module in modules):
                    parts = [(_scaled(content, pairs[layer, module], config, dtype)
                              if (layer, module) in pairs else None) for module in modules]
                    lows[layer, matrix] = _joined(parts, [_sizes(module, shape)[1]
                                                          for module in modules])
    return Adapter(lows, max(rank for _, _, rank in pairs.values()))


def put(runner: TorchRunner, folders: Mapping[str, Path]) -> dict[str, str]:
    """Loads adapters for a runner that has not begun; returns where each came from, for the
    engine (`LocalEngine(adapters=...)`). Raises as `load` does.
    """
    network = runner.network
    loaded = {name: load(folder, network.shape, network.dtype, network.device)
              for name, folder in folders.items()}
    runner.adapters = Adapters(loaded)
    runner.weights_bytes += sum(one.bytes_ for one in loaded.values())
    return {name: str(folder) for name, folder in folders.items()}


@dataclass(frozen=True)
class _Stack:
    """One matrix's Lows of some adapters as a single one, and whose each of its ranks is."""

    low: Low
    owners: tuple[int, ...]
    """The adapters' places, so many times as they have ranks here."""


class Adapters:
    """Loaded adapters by name. One thread owns it.

    The adapters of a step are stacked, so that however many there are, each matrix costs two
    products and a mask; stacks of the last few combinations are kept.
    """

    def __init__(self, by_name: Mapping[str, Adapter]) -> None:
        self.by_name = by_name
        self._stacks: OrderedDict[tuple[str, ...], dict[tuple[int, str], _Stack]] = OrderedDict()

    def touch(self, rows: Sequence[tuple[str, int]], device: torch.device) -> Touch | None:
        """What a step's adapters do to its rows; `rows` are names ("" for none) with so many rows
        each, in the order of the step. None where no row has an adapter.
        """
        names = tuple(sorted({name for name, _ in rows if name}))
        if not names:
            return None
        stacks = self._stacked(names)
        whose = torch.tensor([names.index(name) if name else -1 for name, count in rows
                              for _ in range(count)], device=device)
        whole = len(names) == 1 and all(name for name, _ in rows)
        masks: dict[tuple[int, ...], Tensor] = {}

        def touch(layer: int, matrix: str, read: Tensor, made: Tensor) -> None:
            stack = stacks.get((layer, matrix))
            if stack is None:
                return
            inner = read @ stack.low.a.T
            if not whole:
                mask = masks.get(stack.owners)
                if mask is None:
                    owners = torch.tensor(stack.owners, device=device)
                    mask = masks[stack.owners] = (whose[:, None] == owners).to(inner.dtype)
                inner.mul_(mask)
            made.addmm_(inner, stack.low.b.T)
        return touch

    def _stacked(self, names: tuple[str, ...]) -> dict[tuple[int, str], _Stack]:
        found = self._stacks.get(names)
        if found is None:
            found = self._stacks[names] = {}
            chosen = [self.by_name[name].lows for name in names]
            for key in dict.fromkeys(key for lows in chosen for key in lows):
                there = [(at, lows[key]) for at, lows in enumerate(chosen) if key in lows]
                low = there[0][1] if len(there) == 1 else Low(
                    torch.cat([one.a for _, one in there]),
                    torch.cat([one.b for _, one in there], 1))
                owners = tuple(at for at, one in there for _ in range(len(one.a)))
                found[key] = _Stack(low, owners)
            if len(self._stacks) > _KEPT_STACKS:
                self._stacks.popitem(last=False)
        self._stacks.move_to_end(names)
        return found


def _check(config: Mapping[str, Any], file: Path) -> None:
    for key, accepted in _MUST_BE.items():
        said = config.get(key, accepted[-1])
        if said not in accepted:
            raise InputError(f"{key} = {said!r} is not supported", where=str(file),
                             mend=f"train the adapter with {key} = {accepted[0]!r}")
    patterns: dict[str, Any] = {}
    for name in ("rank_pattern", "alpha_pattern"):
        given = config.get(name) or {}
        if not isinstance(given, Mapping) or not all(re.fullmatch(r"[\w.]+", key) for key in given):
            raise InputError(f"{name} = {str(given)[:200]} does not name modules", where=str(file),
                             mend="name each module there, without expressions")
        patterns |= {f"{name} of {key}": value for key, value in given.items()}
    for key, value in {"r": config.get("r"), "lora_alpha": config.get("lora_alpha"),
                       **patterns}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or (
                not 0 < value < 10**6):
            raise InputError(f"{key} = {value!r} is not a number above 0", where=str(file),
                             mend="copy the adapter again")


def _pairs(file: Path, shape: ModelShape) -> dict[tuple[int, str], tuple[str, str, int]]:
    """By layer and module the names of its A and B, and their rank, all checked."""
    told = headers.read(file)
    found: dict[tuple[int, str], dict[str, tuple[str, tuple[int, ...]]]] = {}
    for name, tensor in told.items():
        match = _NAME.fullmatch(name)
        layer, module = (int(match[1]), match[2]) if match else (-1, "")
        if match is None or tensor.dtype not in headers.FLOATS or not (
                0 <= layer < shape.layers and module in _modules(layer, shape)):
            raise DamagedFile(f"tensor {name[:200]} belongs to no matrix that can be adapted here",
                              where=str(file), mend="use the adapter with the model that it was "
                              "trained for, on its attention and dense feed-forwards only")
        found.setdefault((layer, module), {})[match[3]] = name, tuple(tensor.shape)
    pairs: dict[tuple[int, str], tuple[str, str, int]] = {}
    for (layer, module), both in found.items():
        inputs, outputs = _sizes(module, shape)
        if both.keys() != {"A", "B"}:
            raise DamagedFile(f"layer {layer}'s {module} has only one of lora_A and lora_B",
                              where=str(file), mend="copy the adapter again")
        (a, a_size), (b, b_size) = both["A"], both["B"]
        rank = a_size[0] if a_size else 0
        if not 0 < rank <= MOST_RANK or a_size != (rank, inputs) or b_size != (outputs, rank):
            raise DamagedFile(f"{a} is {list(a_size)} and its lora_B {list(b_size)}; this model "
                              f"needs [rank, {inputs}] and [{outputs}, rank], with a rank of at "
                              f"most {MOST_RANK}", where=str(file),
                              mend="use the adapter with the model that it was trained for")
        pairs[layer, module] = a, b, rank
    if not pairs:
        raise DamagedFile("has no tensors", where=str(file), mend="copy the adapter again")
    return pairs


def _modules(layer: int, shape: ModelShape) -> set[str]:
    """Modules of a layer that can be adapted: not experts."""
    dense = not shape.experts or layer < shape.dense_layers
    matrices = _PARTS if dense else ("qkv", "out")
    return {module for matrix in matrices for module in _PARTS[matrix]}


def _sizes(module: str, shape: ModelShape) -> tuple[int, int]:
    """Inputs and outputs of a module."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    return {"q_proj": (shape.width, queries), "k_proj": (shape.width, keys),
            "v_proj": (shape.width, keys), "o_proj": (queries, shape.width),
            "gate_proj": (shape.width, shape.ffn), "up_proj": (shape.width, shape.ffn),
            "down_proj": (shape.ffn, shape.width)}[module.partition(".")[2]]


def _scaled(content: Any, pair: tuple[str, str, int], config: Mapping[str, Any],
            dtype: torch.dtype) -> Low:
    """A and scaled B of one module: alpha / rank, or alpha / sqrt(rank) (rsLoRA,
    arXiv:2312.03732).
    """
    a, b, rank = pair
    full = a.partition("base_model.model.")[2].partition(".lora_A")[0]
    alpha = next((value for key, value in (config.get("alpha_pattern") or {}).items()
                  if full == key or full.endswith(f".{key}")), config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Low(content.get_tensor(a).to(dtype),
               (content.get_tensor(b).float() * scale).to(dtype))


def _joined(parts: Sequence[Low | None], outputs: Sequence[int]) -> Low:
    """The Lows of matrices that lie together (None: not adapted) as one."""
    there = [part for part in parts if part is not None]
    a = torch.cat([part.a for part in there])
    b = a.new_zeros(sum(outputs), len(a))
    row = column = 0
    for part, count in zip(parts, outputs, strict=True):
        if part is not None:
            rank = len(part.a)
            b[row: row + count, column: column + rank] = part.b
            column += rank
        row += count
    return Low(a.contiguous(), b)
