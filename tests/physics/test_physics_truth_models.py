"""Parameters and FLOPs against the model code of transformers: nothing is downloaded."""

from __future__ import annotations

import pytest

from curbcut.facts import presets
from curbcut.physics import flops
from curbcut.spec import ModelShape, codec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402


def preset(name: str) -> ModelShape:
    return codec.build(ModelShape, presets.shape(name))


def common(shape: ModelShape) -> dict:
    return {
        "num_hidden_layers": shape.layers, "hidden_size": shape.width,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size, "intermediate_size": shape.ffn, "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context_tokens,
        "tie_word_embeddings": shape.tied_embeddings, "attn_implementation": "eager",
        "experts_implementation": "eager",
    }


def mixture(shape: ModelShape) -> dict:
    return {"num_experts": shape.experts, "num_local_experts": shape.experts,
            "n_routed_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token,
            "moe_intermediate_size": shape.expert_ffn}


def deepseek(shape: ModelShape) -> dict:
    return common(shape) | mixture(shape) | {
        "head_dim": shape.rope_size, "q_lora_rank": shape.query_rank or None,
        "kv_lora_rank": shape.kv_rank,
        "qk_rope_head_dim": shape.rope_size, "qk_nope_head_dim": shape.head_size,
        "v_head_dim": shape.value_size, "n_shared_experts": shape.shared_experts,
        "first_k_dense_replace": shape.dense_layers, "n_group": 1, "topk_group": 1}


def gpt2(shape: ModelShape) -> dict:
    return {"n_layer": shape.layers, "n_embd": shape.width, "n_head": shape.heads,
            "n_inner": shape.ffn, "vocab_size": shape.vocab, "n_positions": shape.context_tokens,
            "attn_implementation": "eager"}


def sliding(shape: ModelShape) -> dict:
    kinds = ["full_attention" if (i + 1) % shape.full_every == 0 else "sliding_attention"
             for i in range(shape.layers)]
    return {"sliding_window": shape.window_tokens, "layer_types": kinds}


CONFIGS = {
    "Llama": lambda s: common(s), "Qwen3": lambda s: common(s), "Nemotron": lambda s: common(s),
    "Olmo2": lambda s: common(s), "Qwen2": lambda s: common(s),
    "Qwen3Moe": lambda s: common(s) | mixture(s),
    "Mixtral": lambda s: common(s) | mixture(s) | {"intermediate_size": s.expert_ffn},
    "GptOss": lambda s: common(s) | mixture(s) | sliding(s) | {"intermediate_size": s.expert_ffn},
    "DeepseekV3": deepseek, "DeepseekV2": deepseek, "GPT2": gpt2,
    "Gemma3Text": lambda s: common(s) | sliding(s),
}


def build(kind: str, shape: ModelShape, device: str):
    config = getattr(transformers, f"{kind}Config")(**CONFIGS[kind](shape))
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind.removesuffix('Text')}ForCausalLM"
    with torch.device(device):
        return getattr(transformers, name)(config)


def unsaid(kind: str, s: ModelShape) -> int:
    """Parameters that a shape cannot say: biases, attention sinks, learned positions, norms."""
    heads, keys = s.heads * s.head_size, s.kv_heads * s.head_size
    if kind == "GPT2":  # biases of four matrices and three norms, and positions
        layer = (3 + 1) * s.width + s.ffn + s.width + 2 * s.width
        return s.layers * layer + s.width + s.context_tokens * s.width
    if kind == "GptOss":  # biases of attention, router and experts; a sink a head
        biases = heads + 2 * keys + s.width + s.experts + s.experts * (2 * s.expert_ffn + s.width)
        return s.layers * (biases + s.heads)
    if kind == "Nemotron":  # biases of its norms
        return (2 * s.layers + 1) * s.width
    if kind == "Gemma3Text":  # norms behind attention and feed-forward
        return 2 * s.layers * s.width
    if kind == "Olmo2":  # norms over all heads together, where a shape says one head
        return s.layers * (heads + keys - 2 * s.head_size)
    return 0


@pytest.mark.parametrize(("kind", "name"), [
    ("Llama", "Llama-3-8B"), ("Llama", "Llama-3.1-405B"), ("Llama", "Llama-3.2-1B"),
    ("Qwen3", "Qwen3-0.6B"), ("Qwen3", "Qwen3-32B"), ("Qwen3Moe", "Qwen3-30B-A3B"),
    ("Qwen3Moe", "Qwen3-235B-A22B"), ("Mixtral", "Mixtral-8x7B"), ("Mixtral", "Mixtral-8x22B"),
    ("DeepseekV3", "DeepSeek-V3"), ("DeepseekV3", "Kimi-K2"), ("DeepseekV2", "DeepSeek-V2"),
    ("DeepseekV2", "DeepSeek-V2-Lite"), ("GptOss", "gpt-oss-20b"), ("GptOss", "gpt-oss-120b"),
    ("Gemma3Text", "Gemma-3-27B"), ("Gemma3Text", "Gemma-3-1B"), ("GPT2", "gpt-1.3b"),
    ("Nemotron", "Nemotron-4-15B"), ("Olmo2", "OLMo-2-7B"), ("Qwen2", "Qwen2.5-7B"),
    ("Qwen2", "Qwen2.5-1.5B"),
])
def test_parameters_of_presets_are_those_of_the_real_model(kind, name):
    shape = preset(name)
    real = sum(p.numel() for p in build(kind, shape, "meta").parameters())
    assert real == shape.parameters + unsaid(kind, shape)


SMALL = {"layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "head_size": 16, "ffn": 96,
         "vocab": 101, "context_tokens": 64, "tied_embeddings": False}
MOE = {"experts": 6, "experts_per_token": 2, "expert_ffn": 24}
MLA = {"attention": "mla", "kv_heads": 4, "query_rank": 24, "kv_rank": 12, "rope_size": 8,
       "value_size": 20}
CASES = {
    "Llama": {}, "Qwen3": {"qk_norm": True, "tied_embeddings": True},
    "Mixtral": MOE | {"ffn": 24}, "Qwen3Moe": MOE | {"qk_norm": True},
    "Nemotron": {"feed_forward": "plain"}, "Olmo2": {"kv_heads": 4, "qk_norm": True},
    "DeepseekV3": MLA | MOE | {"shared_experts": 1, "dense_layers": 1},
    "DeepseekV2": MLA | MOE | {"query_rank": 0, "shared_experts": 2, "dense_layers": 1},
    "GPT2": {"kv_heads": 4, "feed_forward": "plain", "tied_embeddings": True},
    "GptOss": MOE | {"ffn": 24, "attention": "sliding", "window_tokens": 8, "full_every": 2},
    "Gemma3Text": {"attention": "sliding", "window_tokens": 8, "full_every": 3, "qk_norm": True,
                   "tied_embeddings": True},
}


@pytest.mark.parametrize("kind", CASES)
def test_forward_flops_are_what_the_counter_sees(kind):
    """Eager attention: both scores' matmuls are seen, and are whole squares. Experts are counted
    with the tokens that they get; their sum over experts is what the router sends, top-k each.
    """
    torch.manual_seed(0)
    shape = ModelShape(**(SMALL | CASES[kind]))
    model = build(kind, shape, "cpu")
    tokens = torch.randint(0, shape.vocab, (2, 32))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    expected = flops.forward_flops(shape, 32, "square").total * tokens.numel()
    rotary = _rotary_flops(counter)
    assert counter.get_total_flops() - rotary == expected


def _rotary_flops(counter) -> int:
    """transformers makes the rotary angles by a matmul of inner size 1, which is no matmul."""
    counts = counter.get_flop_counts()
    return sum(sum(found.values()) for module, found in counts.items()
               if module.endswith("rotary_emb"))


@pytest.mark.parametrize("kind", ["Llama", "Mixtral", "DeepseekV3", "GptOss"])
def test_backward_is_twice_forward(kind):
    torch.manual_seed(0)
    shape = ModelShape(**(SMALL | CASES[kind]))
    model = build(kind, shape, "cpu")
    tokens = torch.randint(0, shape.vocab, (2, 32))
    with FlopCounterMode(display=False) as counter:
        model(tokens).logits.sum().backward()
    expected = 3 * flops.forward_flops(shape, 32, "square").total * tokens.numel()
    assert counter.get_total_flops() - _rotary_flops(counter) == expected
