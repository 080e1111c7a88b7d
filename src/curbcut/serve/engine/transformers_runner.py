"""Every family that `transformers` can load, behind the same `Runner`: slow, general, an oracle.

Each request keeps a cache of its own, and its pieces run alone: an answer cannot depend on its
company. Only safetensors are read, from the folder alone; no code that lies there is run.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curbcut.errors import DamagedFile, InputError, MissingExtra
from curbcut.model import headers
from curbcut.model.parts import CONFIG
from curbcut.model.weights import read_json, weight_files
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import PAGE_TOKENS

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_CONTEXT_TOKENS = 2048
"""Where a config says nothing of its context."""


@dataclass
class _Kept:
    """What a request has in memory."""

    cache: Any
    length: int = 0


class TransformersRunner:
    """A `Runner` on a model of transformers in evaluation mode.

    Pages are only counted: they bound the positions of all requests together.
    """

    shares_pages = False

    def __init__(self, model: Any, cache_tokens: int, *, context_tokens: int | None = None,
                 page_tokens: int = PAGE_TOKENS) -> None:
        config = model.config.get_text_config(decoder=True)
        self.model, self.page_tokens = model.eval().requires_grad_(False), page_tokens
        self.vocab = int(config.vocab_size)
        longest = context_of(config.to_dict())
        self.context_tokens = min(context_tokens or longest, longest)
        self.pages = -(-cache_tokens // page_tokens)
        self.weights_bytes = sum(one.nbytes for one in model.parameters())
        self.cache_bytes = self.pages * page_tokens * _position_bytes(config, model.dtype)
        takes = inspect.signature(model.forward).parameters
        self._keeps = "past_key_values" in takes
        self._picks = "logits_to_keep" in takes
        self._kept: dict[Request, _Kept] = {}

    @torch.inference_mode()
    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner.run`."""
        found = [self._run(piece) for piece in pieces]
        return torch.cat(found) if found else torch.empty(0, self.vocab)

    @torch.inference_mode()
    def embed(self, prompt: Sequence[int]) -> Tensor:
        """See `Runner.embed`."""
        rows = torch.tensor([list(prompt)], device=self.model.device)
        hidden = self.model.base_model(rows, use_cache=False).last_hidden_state[0]
        return F.normalize(hidden.float().mean(0), dim=0)

    def forget(self, request: Request) -> None:
        """Drops the request's cache."""
        self._kept.pop(request, None)

    def _run(self, piece: Piece) -> Tensor:
        """Logits [wanted, vocab] of one piece; its keys and values are kept."""
        request, tokens = piece.request, piece.tokens
        more: dict[str, Any] = {"use_cache": False}
        kept = self._kept_to(request, piece.start) if self._keeps else None
        if kept is not None:
            more = {"use_cache": True, "past_key_values": kept.cache}
        tokens = request.tokens[kept.length if kept is not None else 0: piece.start] + tokens
        if self._picks:
            more["logits_to_keep"] = max(piece.wanted, 1)
        rows = torch.tensor([tokens], device=self.model.device)
        logits: Tensor = self.model(rows, **more).logits[0, :, :self.vocab]
        if kept is not None:
            kept.length = piece.start + piece.count
        return logits[len(logits) - piece.wanted:].float()

    def _kept_to(self, request: Request, start: int) -> _Kept:
        """The request's cache with the first `start` positions, or fewer where it cannot be cut
        back: then it starts over. What lies beyond was drafted and rejected, or preempted.
        """
        kept = self._kept.get(request)
        if kept is None or (kept.length > start and not _cut(kept.cache, start)):
            from transformers import DynamicCache

            kept = self._kept[request] = _Kept(DynamicCache(config=self.model.config))
        kept.length = min(kept.length, start)
        return kept


def _cut(cache: Any, length: int) -> bool:
    """Cuts a cache back to its first positions; False where a layer keeps no single ones."""
    from transformers.cache_utils import DynamicLayer

    if not length or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return False
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
    return True


def load(folder: Path, cache_tokens: int, *, dtype: torch.dtype | None = None,
         device: str | torch.device = "cpu", context_tokens: int | None = None
         ) -> TransformersRunner:
    """The model of a folder in `dtype` (None: as it is stored).

    Raises MissingExtra without transformers, InputError for what it cannot load (code of the
    folder's own, quantised weights, no safetensors), DamagedFile for weights that are unsound or
    not all there.
    """
    # What transformers looks for and does without is no news of the model.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise MissingExtra("transformers", "transformers") from None
    quiet: Any = disable_progress_bar  # without annotations there
    quiet()
    config = read_json(folder / CONFIG)
    if config.get("quantization_config") is not None:
        raise InputError("quantised weights of this family cannot be served here",
                         where=str(folder), mend="use the model as it was before, or vLLM")
    if (folder / "adapter_config.json").exists():
        raise InputError("is an adapter, which names a model elsewhere", where=str(folder),
                         mend="give the folder of a whole model")
    _check_kernels(config, folder)
    for file in weight_files(folder):
        headers.read(file)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype or "auto", local_files_only=True, trust_remote_code=False,
            use_safetensors=True, attn_implementation=_attention(config), output_loading_info=True)
        model, said = loaded
    except Exception as error:  # by model, the library raises whatever comes
        raise InputError(f"transformers cannot load this model ({_first_line(error)})",
                         where=str(folder), mend="choose a model of transformers' own with "
                         "safetensors, whose code is not in its folder") from None
    lacking = sorted(map(str, said["missing_keys"])) + sorted(map(str, said["mismatched_keys"]))
    if lacking:
        raise DamagedFile(f"tensor {lacking[0]} is missing or of another shape (one of "
                          f"{len(lacking)})", where=str(folder),
                          mend="copy all files of the model again")
    return TransformersRunner(model.to(device), cache_tokens, context_tokens=context_tokens)


def context_of(config: dict[str, Any]) -> int:
    """Longest sequence that a config of any family is meant for."""
    nested = config.get("text_config")
    both = [config, nested if isinstance(nested, dict) else {}]
    told = [one.get(name) for one in both for name in _CONTEXT_NAMES]
    return next((one for one in told if isinstance(one, int) and one > 0), _CONTEXT_TOKENS)


def _check_kernels(config: Any, folder: Path) -> None:
    """A config may name kernels, anywhere in it, that the library would fetch and run."""
    parts = config.values() if isinstance(config, dict) else config
    for key, value in config.items() if isinstance(config, dict) else ():
        if key.endswith("_implementation") and value not in (None, "eager", "sdpa"):
            raise InputError(f"{key} = {str(value)[:80]!r} would run code from elsewhere",
                             where=str(folder / CONFIG), mend="take this line out")
    for part in parts:
        if isinstance(part, dict | list):
            _check_kernels(part, folder)


def _attention(config: dict[str, Any]) -> str:
    """How attention is computed: the library's own fused kernel where the family has it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        kind = AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model(config["model_type"]))]
        return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
    except (KeyError, ValueError, TypeError, ImportError):
        return "eager"


def _position_bytes(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one position in all layers; 0 where a family has other sizes."""
    heads = getattr(config, "num_key_value_heads", None) or getattr(
        config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads if heads else 0)
    layers = getattr(config, "num_hidden_layers", 0)
    return 2 * int(layers) * int(heads or 0) * int(size) * dtype.itemsize


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
