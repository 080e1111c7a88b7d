"""Bytes that autograd keeps for the backward pass, operation by operation. Polymorphic.

Korthikanti et al. (arXiv:2205.05198, equations 1 to 6) made the account for GPT; here each stack's
habits are constants (`memory_constants`) and other feed-forwards, attentions and experts have
their own terms. Elements are those a token and layer, on one rank.
"""

from __future__ import annotations

from curbcut.physics.flops import ATTENTION_BLOCK
from curbcut.physics.memory_constants import MemoryConstants
from curbcut.physics.numbers import Flag, Number, is_not, larger, smaller, where

COMPILED_GATED_COPIES = 2.0
"""A compiled block keeps gate and up, and makes silu and product again: pointwise operations are
recomputed where that saves memory (PyTorch's min-cut partitioner)."""
LSE_BYTES = 4.0
"""The fp32 log-sum-exp of a head's scores that fused attention keeps (arXiv:2307.08691)."""
ALWAYS, IF_SHARDED = 1, 2
"""Values of `selective_operations`."""
MASK_BYTES = 1.0
"""A dropout mask's element."""


def half(recipe: Number) -> Flag:
    """Whether activations have 16 bits (matmuls below 16 bits keep the rest at 16)."""
    return is_not((recipe.precision == "fp32") | (recipe.precision == "tf32"))


def eighth(recipe: Number) -> Flag:
    """Whether matmuls read fewer than 16 bits."""
    return ((recipe.precision == "fp8") | (recipe.precision == "mxfp8")
            | (recipe.precision == "nvfp4"))


def activation_bytes(recipe: Number) -> Number:
    """Bytes of one element of an activation."""
    return where(half(recipe), 2, 4)


def attention_elements(shape: Number, tp: Number = 1) -> Number:
    """Query, key, value and output of one layer's attention; and what MLA compressed.

    MLA's vectors before and after their norms are on each of the tp ranks (arXiv:2405.04434).
    """
    latent = shape.attention == "mla"
    keys = larger(shape.kv_heads / tp, 1) * shape.head_size
    grouped = 2.0 * shape.heads / tp * shape.head_size + 2 * keys
    compressed = 2 * shape.query_rank + 2 * shape.kv_rank + shape.rope_size
    mla = 2.0 * shape.heads / tp * (shape.key_size + shape.value_head_size) + compressed
    queried = shape.heads * shape.head_size / tp + keys
    return where(latent, mla, grouped) + where(shape.qk_norm, queried, 0)


def projected_elements(shape: Number, tp: Number = 1) -> Number:
    """Query, key and value of one layer, once."""
    keys = larger(shape.kv_heads / tp, 1) * (shape.key_size + shape.value_head_size)
    return shape.heads / tp * shape.key_size + keys


def expert_share(shape: Number) -> Number:
    """Share of the layers whose feed-forward is experts."""
    return shape.expert_layers / shape.layers


def feed_forward_elements(shape: Number, gated_copies: Number, tp: Number = 1,
                          share: Number = None, routed_copies: Number = 1.0) -> Number:
    """The feed-forward of one layer, a mean of which `share` are experts (default: the model's).

    Gated: `gated_copies` of the inner width; plain: input and output of GELU. Experts: the same
    for each that a token is sent to, and `routed_copies` of the token: the one that is sent
    (Megatron-Core's dispatcher, arXiv:2504.14960) and perhaps the one that comes back.
    """
    copies = where(shape.feed_forward == "gated", gated_copies, 2.0)
    dense = copies * shape.ffn / tp
    met = shape.experts_per_token + shape.shared_experts
    sent = routed_copies * shape.experts_per_token * shape.width
    routed = copies * shape.expert_ffn * met / tp + sent
    share = expert_share(shape) if share is None else share
    return share * routed + (1 - share) * dense


def _norm_bytes(shape: Number, recipe: Number, constants: MemoryConstants) -> Number:
    """Input and output of two norms: shared along the sequence under sequence parallelism, where
    the outputs may be kept as gathered. Compiled blocks make the outputs again.
    """
    each = 2 * shape.width * activation_bytes(recipe)
    shared = where(recipe.sequence_parallel, recipe.tp, 1)
    inputs = where(eighth(recipe), constants.fp8_input_bytes / 2, 1)
    outputs = inputs * where(constants.gathered_kept > 0, each, each / shared)
    remade = recipe.compile & (recipe.recompute == "none")
    return each / shared + where(remade, 0, outputs)


def _held_score_bytes(shape: Number, recipe: Number, constants: MemoryConstants) -> Number:
    """Scores of one layer's attention that are held in memory: 5 a s bytes with dropout's mask and
    output (Korthikanti et al.), 2 a s without. None under fused attention.
    """
    dropped = constants.dropout * where(shape.feed_forward == "plain", 1, 0)
    each = activation_bytes(recipe) * (1 + dropped) + MASK_BYTES * dropped
    keys = held_scores(recipe, constants.score_block_tokens)
    return where(recipe.attention == "math", each * shape.heads / recipe.tp * keys, 0)


def _score_bytes(shape: Number, recipe: Number, constants: MemoryConstants) -> Number:
    """Held scores unless they are recomputed, or fused attention's log-sum-exps."""
    heads = shape.heads / recipe.tp
    copies = constants.output_copies * heads * shape.value_head_size * activation_bytes(recipe)
    fused = where(recipe.attention == "fused", LSE_BYTES * heads + copies, 0)
    again = is_not(recipe.recompute == "none")
    return where(again, 0, _held_score_bytes(shape, recipe, constants)) + fused


def held_scores(recipe: Number, block_tokens: Number) -> Number:
    """Scores a query and head where they are held: of all keys, or of those up to the end of the
    query's block.
    """
    keys = recipe.sequence_tokens / recipe.cp
    return where(block_tokens > 0, smaller(keys, (keys + block_tokens) / 2), keys)


def _dropout_bytes(shape: Number, recipe: Number, constants: MemoryConstants) -> Number:
    """Masks of the two dropouts on the residual stream (GPT of before fused attention)."""
    masks = (recipe.attention == "math") & (shape.feed_forward == "plain")
    shared = where(recipe.sequence_parallel, recipe.tp, 1)
    return where(masks, constants.dropout * 2 * MASK_BYTES * shape.width / shared, 0)


def whole_layer_bytes(shape: Number, recipe: Number, constants: MemoryConstants,
                      share: Number = None) -> Number:
    """Bytes a token that one layer keeps where nothing but scores is recomputed."""
    element = activation_bytes(recipe)
    copies = where(recipe.compile & (recipe.recompute == "none"),
                   smaller(constants.gated_copies, COMPILED_GATED_COPIES), constants.gated_copies)
    inner = (attention_elements(shape, recipe.tp)
             + constants.projection_copies * projected_elements(shape, recipe.tp)
             + feed_forward_elements(shape, copies, recipe.tp, share, constants.routed_copies))
    routing = (constants.router_bytes * shape.experts
               + constants.route_bytes * shape.experts_per_token)
    experts = routing * (expert_share(shape) if share is None else share)
    return (_norm_bytes(shape, recipe, constants) + element * inner + experts
            + _score_bytes(shape, recipe, constants) + _dropout_bytes(shape, recipe, constants))


def _operation_bytes(shape: Number, recipe: Number, constants: MemoryConstants,
                     share: Number = None) -> Number:
    """Bytes a token and layer under selective recompute by operation: the layer's input, every
    second matmul's output (query, value, gate, down), attention's output and the scattered sums
    (PyTorch's selective activation checkpointing, as torchtitan sets it).
    """
    shared = where(recipe.sequence_parallel, recipe.tp, 1)
    attention = attention_elements(shape, recipe.tp)
    keys = larger(shape.kv_heads / recipe.tp, 1) * shape.head_size
    inner = feed_forward_elements(shape, 1.0, recipe.tp, share)
    scattered = where(recipe.tp > 1, 2 * shape.width / shared, 0)
    elements = shape.width / shared + attention - keys + inner + shape.width + scattered
    lse = LSE_BYTES * shape.heads / recipe.tp
    return activation_bytes(recipe) * elements + lse


def by_operation(recipe: Number, constants: MemoryConstants) -> Flag:
    """Whether selective recompute goes by operation, PyTorch's way, or drops scores alone."""
    sharded = (recipe.shard == "parameters") & (recipe.dp_shard * recipe.cp > 1)
    habit = constants.selective_operations
    return (recipe.recompute == "selective") & ((habit == ALWAYS) | (habit == IF_SHARDED) & sharded)


def layer_bytes(shape: Number, recipe: Number, constants: MemoryConstants,
                share: Number = None) -> tuple[Number, Number]:
    """Bytes a token of one layer: those kept until its backward pass under the recipe's recompute,
    and those that come when it is recomputed.

    Full recompute keeps the layer's input.
    """
    whole = whole_layer_bytes(shape, recipe, constants, share)
    if isinstance(recipe.recompute, str) and recipe.recompute == "none":
        return whole, 0.0
    shared = where(recipe.sequence_parallel, recipe.tp, 1)
    chosen = where(by_operation(recipe, constants),
                   smaller(whole, _operation_bytes(shape, recipe, constants, share)), whole)
    full = shape.width * activation_bytes(recipe) / shared
    kept = where(recipe.recompute == "full", full, chosen)
    scores = where(recipe.recompute == "none", 0, _held_score_bytes(shape, recipe, constants))
    return kept, whole - kept + scores


def layer_elements(shape: Number, recipe: Number) -> Number:
    """Elements a token that one layer of our own stack keeps for the backward pass, nothing
    recomputed but scores, all ranks together.

    Two norms keep input and output (4h); attention keeps rotated query, key, value and its output,
    and, where scores are held in memory, the probabilities of its heads; SwiGLU keeps gate, up,
    silu(gate) and their product (4f). Norms of query and key keep their inputs too.
    """
    kept = 4 * shape.width + attention_elements(shape) + feed_forward_elements(shape, 4.0)
    held = (recipe.attention == "math") & (recipe.recompute == "none")
    return kept + where(held, 1.0 * shape.heads * held_scores(recipe, ATTENTION_BLOCK), 0)
