"""What a GGUF file says before its tensors: the shape, and the tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.errors import DamagedFile, MissingExtra
from curbcut.model.decoder import rotary_rates
from curbcut.model.gguf_tokenizer import vocabulary
from curbcut.spec.nouns import ModelShape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def kit() -> Any:
    """The `gguf` package. Raises MissingExtra without it."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise MissingExtra("gguf", "gguf") from None
    return gguf


def describe(writer: Any, folder: Path, shape: ModelShape, type: str) -> None:
    """Adds what a file of weights of `type` says of its model's shape."""
    writer.add_type("model")
    writer.add_name(folder.resolve().parent.name if folder.name == "model" else folder.name)
    writer.add_file_type(kit().LlamaFileType["ALL_F32" if type == "f32" else
                                           f"MOSTLY_{type.upper()}"])
    writer.add_quantization_version(kit().GGML_QUANT_VERSION)
    writer.add_context_length(shape.context_tokens)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn if not shape.experts or shape.qk_norm
                                   else shape.expert_ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    if shape.rope_factor != 1 and not shape.rope_original_tokens:
        writer.add_rope_scaling_type(kit().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_factor)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_per_token)
        if shape.qk_norm:
            writer.add_expert_feed_forward_length(shape.expert_ffn)


def add_tokenizer(writer: Any, folder: Path, shape: ModelShape) -> None:
    """Adds tokens, merges, special tokens and chat template. Raises as `vocabulary` does."""
    words = vocabulary(folder, shape.vocab)
    try:
        special = kit().SpecialVocab(folder, load_merges=True, n_vocab=shape.vocab)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise DamagedFile(f"the tokenizer's files cannot be read ({error})", where=str(folder),
                          mend="copy the tokenizer again") from None
    for name in ("bos", "eos"):  # said, as llama.cpp adds some by itself where nothing is
        special.add_special_token.setdefault(name, False)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.rule)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    special.add_to_gguf(writer, quiet=True)


def rope_factors(shape: ModelShape) -> npt.NDArray[np.float32] | None:
    """[head_size / 2] what divides each rotary rate under Llama 3.1's stretch; None without."""
    if shape.rope_factor == 1 or not shape.rope_original_tokens:
        return None
    plain = rotary_rates(replace(shape, rope_factor=1.0))
    return (plain / rotary_rates(shape)).numpy()
