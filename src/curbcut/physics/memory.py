"""Bytes by kind that a rank holds, in training and in serving.

Training: the states (parameters, gradients, optimiser) that a stage of the pipeline holds, the
activations of its micro-batches in flight, and what comes at the most crowded moment: the loss, or
the backward pass of a layer. Polymorphic (see `numbers`): one recipe or arrays of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from curbcut.physics import activations as kept
from curbcut.physics.activations import activation_bytes, eighth, half, layer_elements
from curbcut.physics.cache import cache_bytes, elements_per_token, full_layers, weight_bytes
from curbcut.physics.memory_constants import MemoryConstants, memory_constants
from curbcut.physics.numbers import Flag, Number, ceiling, is_not, larger, smaller, where
from curbcut.physics.operations import sharing_ranks
from curbcut.spec.nouns import Machine, ModelShape

__all__ = [
    "MEMORY_SPREAD", "activation_bytes", "activations", "available", "cache_bytes",
    "cache_bytes_per_token", "fills_stages", "full_layers", "in_flight", "layer_elements",
    "logits", "mean_states", "serving", "stage", "state_bytes", "training", "weight_bytes",
]

LOGIT_CHUNK_TOKENS = 512
"""A chunked loss makes the scores of so many tokens at once."""
COMPILED_LOGIT_BYTES = 6.0
"""Bytes a score where the loss is compiled: the 16-bit scores, their gradient, and a copy between
(softmax and its fp32 values are fused away)."""
MOMENT_BYTES = 4.0
"""An fp32 moment of the optimiser."""
MEAN_BYTES = 4.0
"""The fp32 running mean of a weight (EMA)."""
MOMENT8_BYTES = 1.0 + 4 / 256
"""An 8-bit moment and its block's fp32 scale (Dettmers et al., arXiv:2110.02861; blocks of 256)."""
GATHERED_LAYERS = 2.0
"""Units of sharded parameters gathered at once: the one at work and the next (FSDP prefetch)."""
RESTING_LAYERS = 2.0
"""Layers' activations on the device while the others rest on the host."""
CPU_PROCESS_BYTES = 380 * 2**20
"""A serving process on a CPU before `physics.serving` knows better."""
GPU_CONTEXT_BYTES = 900 * 2**20
"""CUDA context and library workspaces: an assumption, 0.5 to 1.5 GiB by device and version."""
MEMORY_SPREAD: Mapping[str, float] = MappingProxyType({"cpu": 1.25, "gpu": 1.35})
"""Factor either way of the peak's 90% interval before a run of our own stack was measured."""


@dataclass(frozen=True)
class StateBytes:
    """Bytes a parameter, by what holds them."""

    weight: Number
    gradient: Number
    optimiser: Number

    @property
    def total(self) -> Number:
        """All of them."""
        return self.weight + self.gradient + self.optimiser


def state_bytes(recipe: Number, constants: MemoryConstants | None = None) -> StateBytes:
    """Bytes a parameter under the recipe's precision and sharding, with AdamW's two moments and the
    mean of the weights where one is kept.
    """
    known = constants or memory_constants("torch")
    sharded = _shards_parameters(recipe)
    wide = half(recipe)
    weight = where(sharded, known.sharded_weight_bytes, known.weight_bytes)
    cut = sharded | _cut_beside(recipe, known)
    gradient = where(cut, known.sharded_gradient_bytes, known.gradient_bytes)
    master = where(sharded, known.sharded_master_bytes, known.master_bytes)
    master = where(wide, master, 0)
    master = where(_cut_beside(recipe, known), known.sharded_weight_bytes, master)
    mean = where(recipe.ema_decay > 0, MEAN_BYTES, 0.0)
    return StateBytes(where(wide, weight, 4), where(wide, gradient, 4),
                      master + mean + 2 * MOMENT_BYTES)


def _cut_beside(recipe: Number, known: MemoryConstants) -> Flag:
    """Whether shards of the parameters are kept beside the whole ones (FSDP2's ZeRO-2)."""
    shared = (recipe.shard == "gradients") & (sharing_ranks(recipe) > 1)
    return shared & (known.shards_beside_whole > 0)


def _stays_gathered(recipe: Number, known: MemoryConstants) -> Flag:
    """Whether a stage keeps what is gathered over the step."""
    return (recipe.pp > 1) & (known.gathered_in_pipeline > 0)


def _shards_parameters(recipe: Number) -> Flag:
    """Whether ranks share parameters too (FSDP, over context-parallel ranks as well)."""
    return (recipe.shard == "parameters") & (sharing_ranks(recipe) > 1)


def block_parameters(shape: Number) -> Number:
    """Parameters of the matrices in the blocks: those that Muon moves."""
    return shape.parameters - shape.embedding_parameters - (2 * shape.layers + 1) * shape.width


def moment_bytes(shape: Number, recipe: Number) -> Number:
    """Bytes a parameter of the optimiser's moments, as a mean over the model.

    Muon keeps one moment of the blocks' matrices; Adafactor rows and columns (arXiv:1804.04235).
    """
    blocks = block_parameters(shape) / shape.parameters
    adam = 2 * MOMENT_BYTES
    found = where(recipe.optimiser == "muon", adam - MOMENT_BYTES * blocks, adam)
    found = where(recipe.optimiser == "adamw8", 2 * MOMENT8_BYTES, found)
    return where(recipe.optimiser == "adafactor", 2 * MOMENT_BYTES / shape.width, found)


def in_flight(recipe: Number) -> tuple[Number, Number]:
    """Micro-batches whose activations the first and the last stage hold, each of a whole stage.

    GPipe: all m. 1F1B: min(p, m) and 1. Interleaved: p (1 + (p-1)/(p v)) (arXiv:2205.05198,
    section 4.2.3). Zero-bubble H1: as 1F1B on the first, p on the last (arXiv:2401.10241).
    DualPipeV: p + 1/2 on each (DeepSeek, github.com/deepseek-ai/DualPipe).
    """
    p, m, v = recipe.pp, recipe.accumulation, recipe.virtual_stages
    first = where(recipe.pipeline == "interleaved", p * (1 + (p - 1) / (p * v)), p)
    first = where(recipe.pipeline == "dualpipev", p + 0.5, first)
    last = where(recipe.pipeline == "interleaved", 1 + (p - 1) / v, 1)
    last = where((recipe.pipeline == "dualpipev") | (recipe.pipeline == "zero-bubble"), p, last)
    all_at_once = recipe.pipeline == "gpipe"
    alone = p == 1
    first = where(alone, 1, where(all_at_once, m, smaller(first, m)))
    last = where(alone, 1, where(all_at_once, m, smaller(last, m)))
    return 1.0 * first, 1.0 * last


def stage_layers(shape: Number, recipe: Number,
                 constants: MemoryConstants) -> tuple[Number, Number]:
    """Layers of the first and of the last stage.

    Even, the remainder on the first ones; or with the head weighed as the layers whose matmuls it
    equals (`balanced_head`), which then leaves the last stage with fewer.
    """
    p, unit = recipe.pp, _balanced_unit(shape, recipe, constants)
    first = ceiling(shape.layers / p)
    last = larger(shape.layers - (p - 1) * first, 0)
    balanced = (constants.balanced_head > 0) & (p > 1)
    first = where(balanced, smaller(unit // 1 + 1, shape.layers), first)
    left = larger(shape.layers - ((p - 1) * unit // 1 + 1), 0)
    return 1.0 * first, 1.0 * where(balanced, left, last)


def _balanced_unit(shape: Number, recipe: Number, constants: MemoryConstants) -> Number:
    """Layers a stage where the head counts as the layers whose matmuls it equals."""
    layer = block_parameters(shape) / shape.layers
    head = constants.balanced_head * shape.vocab * shape.width / layer
    return (shape.layers + head) / recipe.pp


def fills_stages(shape: Number, recipe: Number, constants: MemoryConstants | None = None) -> Flag:
    """Whether each stage of the pipeline (each piece, when interleaved) has something to compute.

    A stack that weighs the head may run out of layers early: the head and the blocks behind it
    then have a stage each, and stages beyond them have none, so that the run ends in an error.
    """
    known = constants or memory_constants(_stack(recipe))
    unit = larger(_balanced_unit(shape, recipe, known), 1)
    reached = shape.layers // unit + known.tail_blocks
    even = recipe.pp * recipe.virtual_stages <= shape.layers
    weighed = (known.balanced_head > 0) & (recipe.pp > 1)
    return where(weighed, reached >= recipe.pp - 1, even)


def _expert_layers(shape: Number, layers: Number, last: bool) -> Number:
    """Layers with experts among the `layers` of a stage: dense ones come first in the model."""
    beyond = larger(layers - where(shape.experts > 0, shape.dense_layers, layers), 0)
    return smaller(layers, shape.expert_layers) if last else beyond


def activations(shape: Number, recipe: Number, constants: MemoryConstants | None = None) -> Number:
    """Bytes of activations that the first stage keeps for the backward pass, all micro-batches in
    flight together; nothing of what is recomputed.
    """
    known = constants or memory_constants("torch")
    layers, _ = stage_layers(shape, recipe, known)
    share = _expert_layers(shape, layers, last=False) / larger(layers, 1)
    each, _ = kept.layer_bytes(shape, recipe, known, share)
    return _activations(recipe, each, layers * in_flight(recipe)[0])


def _activations(recipe: Number, layer_bytes: Number, layers: Number,
                 apart: bool = True) -> Number:
    """Bytes of so many layers' activations on the device, which has memory `apart` from the host.
    """
    resting = (recipe.offload == "activations") & apart
    layers = where(resting, smaller(layers, RESTING_LAYERS), layers)
    return _tokens(recipe) * layer_bytes * layers


def _tokens(recipe: Number) -> Number:
    """Tokens of one micro-batch on one rank."""
    return recipe.micro_batch * recipe.sequence_tokens / recipe.cp


def logits(shape: Number, recipe: Number, constants: MemoryConstants | None = None) -> Number:
    """Bytes of the scores of a micro-batch, or of a chunk and the head's fp32 gradient."""
    known = constants or memory_constants("torch")
    tokens = _tokens(recipe)
    chunk = smaller(LOGIT_CHUNK_TOKENS, tokens)
    each = known.chunk_logit_bytes + where(half(recipe), 0, 2)
    chunked = chunk * shape.vocab * each + 4.0 * shape.vocab * shape.width
    whole = tokens * shape.vocab * where(
        recipe.compile, smaller(known.logit_bytes, COMPILED_LOGIT_BYTES), known.logit_bytes)
    return where(recipe.chunked_loss, chunked, whole) / recipe.tp


@dataclass(frozen=True)
class _Held:
    """Parameters of a stage on one tensor-parallel rank."""

    dense: Number
    routed: Number


def _held(shape: Number, recipe: Number, layers: Number, routed: Number, first: Flag,
          last: Flag) -> _Held:
    """Blocks of `layers` layers, `routed` of them with experts; the embedding on the first stage,
    last norm and head on the last. A tied head stands on both where they are two.
    """
    table = shape.vocab * shape.width
    ffn = shape.ffn_matrices * shape.width * shape.ffn
    shared = shape.width * (shape.experts + shape.ffn_matrices * shape.expert_ffn
                            * shape.shared_experts)
    rest = (shape.attention_parameters + 2 * shape.width) * layers
    rest = rest + ffn * (layers - routed) + shared * routed
    own_head = is_not(shape.tied_embeddings) | (recipe.pp > 1)
    ends = table * (where(first, 1.0, 0.0) + where(last, 1.0, 0.0) * where(own_head, 1, 0))
    both = where(first & last, shape.embedding_parameters, ends)
    each = shape.experts * shape.expert_parameters
    both = both + where(last, shape.width, 0)
    return _Held((rest + both) / recipe.tp, each * routed / (recipe.tp * recipe.ep))


def _states(shape: Number, recipe: Number, known: MemoryConstants,
            held: _Held, resting: Flag, apart: bool = True) -> dict[str, Number]:
    """Bytes of parameters, gradients and optimiser of a stage on one rank; `resting` where its
    parameters are on the host, whose memory is `apart` from the device's.
    """
    each = state_bytes(recipe, known)
    optimiser = each.optimiser - 2 * MOMENT_BYTES + moment_bytes(shape, recipe)
    shards = sharing_ranks(recipe)
    experts = larger(shards * where(shape.experts > 0, recipe.tp, 1) / recipe.ep / recipe.tp, 1)
    by_parameters = where(_shards_parameters(recipe), 1, 0)
    staying = _stays_gathered(recipe, known)  # its gradients are summed whole, scattered once
    by_gradients = where((recipe.shard == "optimiser") | (shards == 1) | staying, 0, 1)

    def shared(bytes_: Number, cut: Number) -> Number:
        dense = held.dense / where(cut > 0, shards, 1)
        return bytes_ * (dense + held.routed / where(cut > 0, experts, 1))

    # matmuls that keep their input in fp8 keep an fp8 copy of the weight too
    narrow = where(eighth(recipe) & is_not(_shards_parameters(recipe)),
                   2 - known.fp8_input_bytes, 0)
    bucket = where((recipe.dp_replicate * recipe.dp_shard > 1), known.bucket_bytes, 0)
    on_host = ((recipe.offload == "optimiser") | (recipe.offload == "parameters")) & apart
    resident = where(resting, 0, 1)
    return {
        "parameters": resident * (shared(each.weight, by_parameters)
                                  + narrow * (held.dense + held.routed)),
        "gradients": shared(each.gradient, by_gradients) + bucket * (held.dense + held.routed),
        "optimiser": where(on_host, 0, 1) * shared(optimiser, 1),
    }


def _dense_layer(shape: Number) -> Number:
    """Parameters of a mean layer without its routed experts."""
    return (shape.parameters - shape.embedding_parameters
            - shape.routed_parameters) / shape.layers


def _widest(shape: Number, recipe: Number, last: Flag) -> Number:
    """Parameters of the largest unit that is gathered: a layer with its experts, or the table."""
    routed = shape.routed_parameters / shape.layers / (recipe.tp * recipe.ep)
    table = shape.vocab * shape.width / recipe.tp
    return larger(_dense_layer(shape) / recipe.tp + routed, where(last, table, 0))


def _gathered_bytes(shape: Number, recipe: Number, known: MemoryConstants, held: _Held,
                    last: Flag) -> Number:
    """Bytes of parameters that are whole on the device at once, of those that rest elsewhere."""
    units = where(_stays_gathered(recipe, known), held.dense + held.routed,
                  GATHERED_LAYERS * _widest(shape, recipe, last))
    return units * where(half(recipe), 2, 4)


def _resting(shape: Number, recipe: Number, known: MemoryConstants, held: _Held,
             last: Flag) -> Flag:
    """Whether a stage's parameters rest on the host. One that holds no more than what would be
    gathered of it, with the allocator's slack, keeps them: leaving would free nothing.
    """
    fetched = _gathered_bytes(shape, recipe, known, held, last) * (1 + known.slack)
    frees = fetched < state_bytes(recipe, known).weight * (held.dense + held.routed)
    return (recipe.offload == "parameters") & (_shards_parameters(recipe) | frees)


def _moments(shape: Number, recipe: Number, known: MemoryConstants, held: _Held,
             working_bytes: Number, last: Flag, resting: Flag) -> tuple[Number, Number, Number]:
    """Bytes beside states and kept activations: the scores at the loss; other buffers then; and
    all of the buffers at the backward pass of a layer.
    """
    tokens, element = _tokens(recipe), activation_bytes(recipe)
    ends = known.end_copies * tokens * shape.width * element
    table = shape.vocab * shape.width / recipe.tp
    layer = _dense_layer(shape) / recipe.tp
    widest = _widest(shape, recipe, last)
    gathered = where(_shards_parameters(recipe) | resting,
                     _gathered_bytes(shape, recipe, known, held, last), 0)
    cut = _shards_parameters(recipe) | _cut_beside(recipe, known)
    # Where gradients wait whole for the step's end, a layer's new ones are added to them.
    each = where(_stays_gathered(recipe, known), element, known.sharded_layer_gradient_bytes)
    layer_gradients = where(cut, each * widest,
                            known.layer_gradient_bytes * (layer + where(last, table, 0)))
    scores = where(last, logits(shape, recipe, known), 0)
    working = tokens * working_bytes
    return scores, ends + gathered, ends + gathered + layer_gradients + working


def stage(shape: Number, recipe: Number, kind: str, last: bool,
          constants: MemoryConstants | None = None) -> dict[str, Number]:
    """Bytes by kind that a rank of the first (or the `last`) pipeline stage holds at its most
    crowded moment; keys as `training`. Without a pipeline both are the one stage.
    """
    known = constants or memory_constants(_stack(recipe), kind)
    apart = kind != "cpu"  # a CPU's memory is the host's: nothing leaves it
    layers = stage_layers(shape, recipe, known)[1 if last else 0]
    flight = in_flight(recipe)[1 if last else 0]
    alone, folded = recipe.pp == 1, recipe.pipeline == "dualpipev"
    has_first, has_last = alone | folded | (not last), alone | folded | last
    routed = _expert_layers(shape, layers, last)
    held = _held(shape, recipe, layers, routed, has_first, has_last)
    resting = _resting(shape, recipe, known, held, has_last) & apart
    parts = _states(shape, recipe, known, held, resting, apart)
    each, working = kept.layer_bytes(shape, recipe, known, routed / larger(layers, 1))
    parts["activations"] = _activations(recipe, each, layers * flight, apart)
    scores, beside, backward = _moments(shape, recipe, known, held, working, has_last,
                                        resting)
    at_loss = scores + beside >= backward
    parts["logits"] = where(at_loss, scores, 0.0)
    parts["buffers"] = where(at_loss, beside, backward)
    loose = parts["activations"] + parts["logits"] + parts["buffers"]
    loose = loose + known.loose_gradients * parts["gradients"]
    wasted = known.fragmentation / (1 - known.fragmentation)
    parts["overhead"] = known.context_bytes + known.slack * loose + wasted * sum(parts.values())
    parts["peak"] = sum(parts.values())
    return parts


def _stack(recipe: Number) -> str:
    return recipe.stack if isinstance(recipe.stack, str) else ""


def training(shape: Number, recipe: Number, kind: str,
             constants: MemoryConstants | None = None) -> Mapping[str, Number]:
    """Bytes by kind of the rank that holds most: parameters, gradients, optimiser, activations,
    logits, buffers (gathered parameters, a layer's gradients, what is recomputed), overhead (the
    context and the allocator's slack), and peak, which is their sum.

    The fullest stage is the first (most micro-batches in flight) or the last (the head's scores).
    """
    first = stage(shape, recipe, kind, False, constants)
    if isinstance(recipe.pp, int) and recipe.pp == 1:
        return first
    last = stage(shape, recipe, kind, True, constants)
    fuller = first["peak"] >= last["peak"]
    return {name: where(fuller, first[name], last[name]) for name in first}


def mean_states(shape: Number, recipe: Number,
                constants: MemoryConstants | None = None) -> Number:
    """Bytes of parameters, gradients and optimiser of a rank, as a mean over the stages."""
    known = constants or memory_constants(_stack(recipe))
    whole = shape.layers / recipe.pp
    dense = (shape.parameters - shape.routed_parameters) / (recipe.tp * recipe.pp)
    held = _Held(dense, shape.routed_parameters * whole / shape.layers / (recipe.tp * recipe.ep))
    return sum(_states(shape, recipe, known, held,
                       recipe.offload == "parameters").values())


def available(machine: Machine) -> float:
    """Bytes an accelerator may be planned to hold: nine tenths of what it has."""
    return 0.9 * machine.memory_bytes


def cache_bytes_per_token(shape: Number, element_bytes: Number = 2) -> Number:
    """Bytes of keys and values a token of context, all layers, no window taken: `cache_bytes`
    knows windows.
    """
    return shape.layers * elements_per_token(shape) * element_bytes


def serving(shape: ModelShape, batch: int, tokens: int, kind: str, element_bytes: float = 2, *,
            weights: str = "", cache_element_bytes: float | None = None, block_tokens: int = 1,
            tp: int = 1, ep: int = 1) -> Mapping[str, float]:
    """Bytes a rank to serve `batch` sequences of up to `tokens` tokens: parameters, cache,
    overhead, peak.

    Weights and cache have `element_bytes` an element, unless `weights` names a quantisation
    (see `cache.ELEMENT_BYTES`) or `cache_element_bytes` says so.
    """
    held = float(element_bytes * shape.parameters / tp)
    if weights:
        held = float(weight_bytes(shape, weights, tp=tp, ep=ep))
    wide = element_bytes if cache_element_bytes is None else cache_element_bytes
    parts = {
        "parameters": held,
        "cache": float(batch * cache_bytes(shape, tokens, wide, block_tokens=block_tokens, tp=tp)),
        "overhead": float(CPU_PROCESS_BYTES if kind == "cpu" else GPU_CONTEXT_BYTES),
    }
    parts["peak"] = sum(parts.values())
    return parts
