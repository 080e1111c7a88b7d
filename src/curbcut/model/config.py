"""Between `ModelShape` and Hugging Face's `config.json`: Llama, Mistral, Qwen2, Qwen3 and the
mixtures of experts of Qwen3 and Mistral.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.errors import InputError, UnknownName
from curbcut.spec import codec
from curbcut.spec.nouns import ModelShape

OWN_KIND = "curbcut_moe"
"""Experts in a combination that no architecture of transformers has (softmax over all experts with
shared ones that no gate weighs, and grouped queries): Curbcut alone reads such a folder."""
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                  "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
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
    "mistral": {"max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768},
    "qwen3": {"max_position_embeddings": 32768},
    "qwen3_moe": {"max_position_embeddings": 32768, "norm_topk_prob": False},
    "mixtral": {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
}
_MUST_BE = {"attention_bias": (False,), "mlp_bias": (False,), "hidden_act": ("silu",),
            "use_sliding_window": (False,), "quantization_config": (None,),
            "partial_rotary_factor": (None, 1.0)}
_KIND_MUST_BE: Mapping[str, Mapping[str, Any]] = {
    "qwen2": {"attention_bias": (True, False)},
    "qwen3_moe": {"norm_topk_prob": (True,), "decoder_sparse_step": (1,)},
}
_ROPE = {"rope_factor": "factor", "rope_low": "low_freq_factor", "rope_high": "high_freq_factor",
         "rope_original_tokens": "original_max_position_embeddings"}
_ROPE_TYPES: Mapping[str, tuple[str, ...]] = {"default": (), "linear": ("rope_factor",),
                                              "llama3": tuple(_ROPE)}
"""The fields of a shape that each kind of rotary positions sets."""


def kind_of(shape: ModelShape) -> str:
    """Hugging Face's `model_type` of a shape, or `OWN_KIND` where no architecture fits it."""
    if not shape.experts:
        return "qwen3" if shape.qk_norm else "qwen2" if shape.qkv_bias else "llama"
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
        **_rope_of(shape),
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    } | _more(shape, kind)


def _rope_of(shape: ModelShape) -> dict[str, Any]:
    """What says how positions turn; versions before transformers 5 read `rope_scaling`."""
    kind = ("default" if shape.rope_factor == 1
            else "llama3" if shape.rope_original_tokens else "linear")
    rope = {"rope_type": kind, "rope_theta": shape.rope_theta}
    rope |= {_ROPE[ours]: getattr(shape, ours) for ours in _ROPE_TYPES[kind]}
    return {"rope_parameters": rope} | ({} if kind == "default" else {"rope_scaling": rope})


def _more(shape: ModelShape, kind: str) -> dict[str, Any]:
    """The keys that only some kinds have."""
    if kind == "llama":
        return {"attention_bias": False, "mlp_bias": False}
    if kind == "qwen2":
        return {"use_sliding_window": False}
    if kind == "qwen3":
        return {"attention_bias": False, "use_sliding_window": False}
    if kind == "mixtral":
        return {"num_local_experts": shape.experts, "sliding_window": None,
                "num_experts_per_tok": shape.experts_per_token,
                "intermediate_size": shape.expert_ffn}
    experts = {theirs: getattr(shape, ours) for ours, theirs in _EXPERT_FIELDS.items()}
    if kind == "qwen3_moe":
        return experts | {"attention_bias": False, "norm_topk_prob": True,
                          "decoder_sparse_step": 1,
                          "mlp_only_layers": list(range(shape.dense_layers)),
                          "use_sliding_window": False}
    return experts | {theirs: getattr(shape, ours) for ours, theirs in _OWN_FIELDS.items()}


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
    """The shape that a Hugging Face config describes.

    Raises UnknownName for an architecture other than those above, InputError for a variant that
    changes the arithmetic (other biases, other rotary positions, windows shorter than the context,
    quantisation, weights of experts that are not scaled to 1) and for a value out of range.
    """
    kind = str(config.get("model_type", ""))
    if kind not in _ARCHITECTURES:
        raise UnknownName("model_type", kind, _ARCHITECTURES, where=where)
    defaults: dict[str, Any] = {**_DEFAULTS, **_KIND_DEFAULTS.get(kind, {})}
    for key, accepted in {**_MUST_BE, **_KIND_MUST_BE.get(kind, {})}.items():
        said = config.get(key, defaults.get(key, accepted[0]))
        if said not in accepted:
            raise InputError(f"{key} = {said!r} is not supported", where=where,
                             mend=f"choose a model with {key} = {accepted[0]!r}")
    values = {ours: config.get(theirs, defaults.get(theirs)) for ours, theirs in _FIELDS.items()}
    if values["kv_heads"] is None:
        values["kv_heads"] = values["heads"]
    width, heads = values["width"], values["heads"]
    if values["head_size"] is None and isinstance(width, int) and isinstance(heads, int) and heads:
        values["head_size"] = 128 if kind == "qwen3" else width // heads
    values |= {"qk_norm": kind in ("qwen3", "qwen3_moe"), "qkv_bias": kind == "qwen2"}
    values |= _rope_fields(config, where, defaults["rope_theta"])
    values |= _experts_of(config, kind, where)
    known = {key: value for key, value in values.items() if value is not None}
    shape: ModelShape = codec.build(ModelShape, codec.check(ModelShape, known, where), where)
    if kind in ("mistral", "mixtral"):
        _check_window(config.get("sliding_window", defaults.get("sliding_window")), shape, where)
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or any(one != "full_attention" for one in layers):
        raise InputError("layer_types has layers of another kind than full attention", where=where,
                         mend="choose a model with full attention in all layers")
    return shape


def _check_window(window: Any, shape: ModelShape, where: str) -> None:
    """A window that no sequence outgrows changes nothing; any other one does."""
    if window is not None and (not isinstance(window, int) or window < shape.context_tokens):
        raise InputError(f"sliding_window = {window!r} is not supported", where=where,
                         mend="choose a model with sliding_window = null, or one as long as its "
                         "max_position_embeddings")


def _experts_of(config: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """The fields of experts; none for a dense model."""
    if kind in ("llama", "mistral", "qwen2", "qwen3"):
        return {}
    found = {ours: config.get(theirs) for ours, theirs in _EXPERT_FIELDS.items()}
    if found["experts"] is None:  # transformers 5 writes either name
        found["experts"] = config.get("num_local_experts")
    if kind == OWN_KIND:
        return found | {ours: config.get(theirs) for ours, theirs in _OWN_FIELDS.items()}
    if kind == "mixtral":
        return found | {"expert_ffn": config.get("intermediate_size")}
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or dense != list(range(len(dense))):
        raise InputError(f"mlp_only_layers = {dense} are not the first layers", where=where,
                         mend="choose a model whose dense layers come first")
    return found | {"dense_layers": len(dense)}


def _rope_fields(config: Mapping[str, Any], where: str, default: float) -> dict[str, Any]:
    """The fields of rotary positions. transformers 5 nests all of them, 4 only what stretches."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(key) or {}
    if not isinstance(rope, Mapping):
        raise InputError(f"{key} = {rope!r} is not a table", where=where, mend="mend it")
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in _ROPE_TYPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{key} = {dict(rope)!r} is not supported", where=where,
                         mend=f"choose a model with rope_type {', '.join(_ROPE_TYPES)}")
    missing = [_ROPE[ours] for ours in _ROPE_TYPES[kind] if rope.get(_ROPE[ours]) is None]
    if missing:
        raise InputError(f"{key} has no {missing[0]}", where=where, mend="mend it")
    theta = rope.get("rope_theta", config.get("rope_theta", default))
    if not isinstance(theta, int | float) or isinstance(theta, bool):
        raise InputError(f"rope_theta = {theta!r} is not a number", where=where, mend="mend it")
    return {"rope_theta": theta} | {ours: rope[_ROPE[ours]] for ours in _ROPE_TYPES[kind]}


def check_runnable(shape: ModelShape) -> None:
    """Raises InputError that names the first field which `Decoder` cannot be built with."""
    for wrong, what in ((shape.attention != "full", f"{shape.attention} attention"),
                        (shape.full_every, "full_every, which belongs to sliding attention"),
                        (shape.query_rank or shape.kv_rank or shape.rope_size or shape.value_size,
                         "latent attention's sizes (query_rank, kv_rank, rope_size, value_size)"),
                        (shape.feed_forward != "gated", "a plain feed-forward of two matrices"),
                        (shape.qkv_bias and (shape.qk_norm or shape.experts),
                         "qkv_bias together with qk_norm or experts"),
                        (shape.rope_original_tokens and shape.rope_high <= shape.rope_low,
                         "rope_high not above rope_low"),
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
