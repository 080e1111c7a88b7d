"""Between `ModelShape` and Hugging Face's `config.json`: Llama, Qwen3, Qwen3-MoE and Mixtral."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.errors import InputError, UnknownName
from curbcut.spec import codec
from curbcut.spec.nouns import ModelShape

OWN_KIND = "curbcut_moe"
"""Experts in a combination that no architecture of transformers has (softmax over all experts with
shared ones that no gate weighs, and grouped queries): Curbcut alone reads such a folder."""
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM",
                  "qwen3_moe": "Qwen3MoeForCausalLM", "mixtral": "MixtralForCausalLM",
                  OWN_KIND: "CurbcutMoeForCausalLM"}
_FIELDS = {
    "layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_size": "head_dim", "ffn": "intermediate_size",
    "vocab": "vocab_size", "context_tokens": "max_position_embeddings",
    "tied_embeddings": "tie_word_embeddings", "norm_eps": "rms_norm_eps",
}
_EXPERT_FIELDS = {"experts": "num_experts", "experts_per_token": "num_experts_per_tok",
                  "expert_ffn": "moe_intermediate_size"}
_OWN_FIELDS = {"shared_experts": "n_shared_experts", "dense_layers": "first_k_dense_replace",
               "qk_norm": "use_qk_norm"}
_DEFAULTS = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
             "rope_theta": 10000.0}
"""What transformers takes for a key that a config leaves out."""
_KIND_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {"max_position_embeddings": 32768, "norm_topk_prob": False},
    "mixtral": {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
}
_MUST_BE = {"attention_bias": (False,), "mlp_bias": (False,), "hidden_act": ("silu",),
            "use_sliding_window": (False,), "rope_scaling": (None,),
            "quantization_config": (None,)}
_KIND_MUST_BE: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {"norm_topk_prob": (True,), "decoder_sparse_step": (1,)},
    "mixtral": {"sliding_window": (None,)},
}


def kind_of(shape: ModelShape) -> str:
    """Hugging Face's `model_type` of a shape, or `OWN_KIND` where no architecture fits it."""
    if not shape.experts:
        return "qwen3" if shape.qk_norm else "llama"
    if shape.shared_experts:
        return OWN_KIND
    if shape.qk_norm:
        return "qwen3_moe"
    return OWN_KIND if shape.dense_layers else "mixtral"


def config(shape: ModelShape) -> dict[str, Any]:
    """The `config.json` of `shape`, readable by transformers 4 and 5, vLLM and llama.cpp (but for
    `OWN_KIND`, which Curbcut alone reads).

    Raises InputError for a shape that the decoder cannot be (see `check_runnable`).
    """
    check_runnable(shape)
    kind = kind_of(shape)
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        **{theirs: getattr(shape, ours) for ours, theirs in _FIELDS.items()},
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    } | _more(shape, kind)


def _more(shape: ModelShape, kind: str) -> dict[str, Any]:
    """The keys that only some kinds have."""
    if kind == "llama":
        return {"mlp_bias": False}
    if kind == "qwen3":
        return {"use_sliding_window": False}
    if kind == "mixtral":
        return {"num_local_experts": shape.experts, "sliding_window": None,
                "num_experts_per_tok": shape.experts_per_token,
                "intermediate_size": shape.expert_ffn}
    experts = {theirs: getattr(shape, ours) for ours, theirs in _EXPERT_FIELDS.items()}
    if kind == "qwen3_moe":
        return experts | {"norm_topk_prob": True, "decoder_sparse_step": 1,
                          "mlp_only_layers": list(range(shape.dense_layers)),
                          "use_sliding_window": False}
    return experts | {theirs: getattr(shape, ours) for ours, theirs in _OWN_FIELDS.items()}


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
    """The shape that a Hugging Face config describes.

    Raises UnknownName for an architecture other than those above, InputError for a variant that
    changes the arithmetic (biases, scaled rotary positions, sliding windows, quantisation, weights
    of experts that are not scaled to 1) and for a value out of range.
    """
    kind = str(config.get("model_type", ""))
    if kind not in _ARCHITECTURES:
        raise UnknownName("model_type", kind, _ARCHITECTURES, where=where)
    defaults: dict[str, Any] = {**_DEFAULTS, **_KIND_DEFAULTS.get(kind, {})}
    for key, accepted in {**_MUST_BE, **_KIND_MUST_BE.get(kind, {})}.items():
        said = config.get(key, defaults.get(key, accepted[0]))
        if said not in accepted and not _is_plain_rope(config, key):
            raise InputError(f"{key} = {said!r} is not supported", where=where,
                             mend=f"choose a model with {key} = {accepted[0]!r}")
    values = {ours: config.get(theirs, defaults.get(theirs)) for ours, theirs in _FIELDS.items()}
    if values["kv_heads"] is None:
        values["kv_heads"] = values["heads"]
    if values["head_size"] is None and values["width"] and values["heads"]:
        values["head_size"] = 128 if kind == "qwen3" else values["width"] // values["heads"]
    values |= {"qk_norm": kind in ("qwen3", "qwen3_moe"),
               "rope_theta": _rope_theta(config, where, defaults["rope_theta"])}
    values |= _experts_of(config, kind, where)
    known = {key: value for key, value in values.items() if value is not None}
    shape: ModelShape = codec.build(ModelShape, codec.check(ModelShape, known, where), where)
    return shape


def _experts_of(config: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """The fields of experts; none for a dense model."""
    if kind in ("llama", "qwen3"):
        return {}
    found = {ours: config.get(theirs) for ours, theirs in _EXPERT_FIELDS.items()}
    if found["experts"] is None:  # transformers 5 writes either name
        found["experts"] = config.get("num_local_experts")
    if kind == OWN_KIND:
        return found | {ours: config.get(theirs) for ours, theirs in _OWN_FIELDS.items()}
    if kind == "mixtral":
        return found | {"expert_ffn": config.get("intermediate_size")}
    dense = config.get("mlp_only_layers") or []
    if dense != list(range(len(dense))):
        raise InputError(f"mlp_only_layers = {dense} are not the first layers", where=where,
                         mend="choose a model whose dense layers come first")
    return found | {"dense_layers": len(dense)}


def _is_plain_rope(config: Mapping[str, Any], key: str) -> bool:
    scaling = config.get("rope_scaling")
    return (key == "rope_scaling" and isinstance(scaling, Mapping)
            and scaling.get("rope_type", scaling.get("type")) == "default")


def _rope_theta(config: Mapping[str, Any], where: str, default: float) -> float:
    """The base of the rotary positions: transformers 5 nests it, transformers 4 does not."""
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
        raise InputError(f"rope_parameters = {rope!r} is not supported", where=where,
                         mend='choose a model with rope_type "default"')
    theta = rope.get("rope_theta", config.get("rope_theta", default))
    if not isinstance(theta, int | float) or isinstance(theta, bool):
        raise InputError(f"rope_theta = {theta!r} is not a number", where=where, mend="mend it")
    return float(theta)


def check_runnable(shape: ModelShape) -> None:
    """Raises InputError that names the first field which `Decoder` cannot be built with."""
    for wrong, what in ((shape.attention != "full", f"{shape.attention} attention"),
                        (shape.full_every, "full_every, which belongs to sliding attention"),
                        (shape.query_rank or shape.kv_rank or shape.rope_size or shape.value_size,
                         "latent attention's sizes (query_rank, kv_rank, rope_size, value_size)"),
                        (shape.feed_forward != "gated", "a plain feed-forward of two matrices"),
                        (not shape.experts and (shape.shared_experts or shape.dense_layers),
                         "shared_experts or dense_layers, which belong to experts"),
                        (shape.experts and not shape.expert_ffn, "experts without expert_ffn"),
                        (shape.experts and not 1 <= shape.experts_per_token <= shape.experts,
                         f"experts_per_token = {shape.experts_per_token} of {shape.experts}"),
                        (shape.experts and shape.dense_layers >= shape.layers,
                         "experts in no layer (dense_layers)"),
                        (shape.heads % shape.kv_heads, "heads that kv_heads does not divide"),
                        (shape.head_size % 2, "an odd head size")):
        if wrong:
            raise InputError(f"this decoder cannot be built with {what}", where="model",
                             mend="choose a shape with full attention and gated feed-forwards")
