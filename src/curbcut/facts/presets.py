"""Model shapes by name: the dimensions of known decoders, as their configurations state them."""

from __future__ import annotations

import re
from typing import Any

from curbcut.errors import UnknownName
from curbcut.facts import table
from curbcut.facts.table import Row

_WHOLE = ("layers", "width", "heads", "kv_heads", "head_size", "ffn", "vocab", "context_tokens",
          "window_tokens")
_FLAG = ("tied_embeddings", "qk_norm")
_REAL = ("rope_theta", "norm_eps")
_ATTENTION = ("full", "sliding", "mla")
_OPTIONAL = ("full_every", "query_rank", "kv_rank", "rope_size", "value_size", "experts",
             "experts_per_token", "shared_experts", "expert_ffn", "dense_layers")
"""Counts that only some kinds of model have: an empty cell is the noun's own default, 0."""
_STRETCHED = ("rope_factor", "rope_low", "rope_high", "rope_original_tokens")
_FEED_FORWARD = ("gated", "plain")
_VARIANTS = re.compile(r"(-(instruct|it|chat|base|hf|thinking|fp8|nvfp4|bf16|v\d+\.\d+|\d{4}"
                       r"|17b-\d+e))+$")
"""What a name may add to say how a model was tuned or stored, but not what it is."""


def _rows() -> dict[str, Row]:
    return {row.text("name").casefold(): row for row in table.rows("presets", ("name",))}


def names() -> list[str]:
    """The names of all presets, in the order of the file."""
    return [row.text("name") for row in _rows().values()]


def row(name: str) -> Row:
    """The preset's row: dimensions, published parameter count, source and date.

    Raises UnknownName with the nearest names; capitals and an owner ("Qwen/") do not matter.
    """
    wanted = name.strip().casefold().rpartition("/")[2]
    found = _rows().get(wanted)
    if found is None:
        raise UnknownName("preset", name, names())
    return found


def shape(name: str) -> dict[str, Any]:
    """The preset `name` as a dict with the field names of `spec.ModelShape`."""
    found = row(name)
    dimensions: dict[str, Any] = {"preset": found.text("name")}
    dimensions |= {column: found.whole(column) for column in _WHOLE}
    dimensions |= {column: found.flag(column) for column in _FLAG}
    dimensions |= {column: found.number(column) for column in _REAL}
    dimensions |= {column: found.whole(column) for column in _OPTIONAL
                   if found.maybe_text(column)}
    dimensions |= {column: found.number(column) for column in _STRETCHED
                   if found.maybe_text(column)}
    if found.maybe_text("qkv_bias"):
        dimensions["qkv_bias"] = found.flag("qkv_bias")
    dimensions["attention"] = found.choice("attention", _ATTENTION)
    if found.maybe_text("feed_forward"):
        dimensions["feed_forward"] = found.choice("feed_forward", _FEED_FORWARD)
    return dimensions


def find(name: str) -> str | None:
    """The preset that a published name means, or None: "meta-llama/Llama-3.1-8B-Instruct" is
    Llama-3.1-8B, "nvidia/DeepSeek-R1-NVFP4" is DeepSeek-R1. Tuning and storage change no shape.
    """
    known = _rows()
    wanted = name.strip().casefold().rpartition("/")[2]
    for candidate in (wanted, _VARIANTS.sub("", wanted)):
        if candidate in known:
            return known[candidate].text("name")
    return None


def published_parameters(name: str) -> int | None:
    """The parameter count that the model's makers state; None where none was found."""
    count = row(name).maybe_number("published_parameters")
    return None if count is None else int(count)
