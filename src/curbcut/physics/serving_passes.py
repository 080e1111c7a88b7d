"""Seconds of one pass of a served model: a prefill of prompts, or a decode step of a batch.

Polymorphic (see `numbers`): `shape`, `engine`, `chip` and `constants` are nouns or their columns.
The matmuls are those of training (`operations.layer_matmuls`). Each takes the root of the squares
of its two bounds, weights over bandwidth and FLOPs over the achieved rate: close to the larger of
them, and both where they meet. To these come attention (keys read, or scores computed), elementwise
work, collectives, and the start of each kernel: from a graph in decoding, by the host in prefill.
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.physics import cache
from curbcut.physics.numbers import Flag, Number, ceiling, is_not, larger, log2, smaller, where
from curbcut.physics.operations import Matmul, head_matmul, layer_matmuls

ROUTED = ("expert_up", "expert_down")
ATTENTION_KERNELS = 7.0
"""Kernels of a layer's attention: norm, projection, rotation, cache write, scores, output, add."""
LATENT_KERNELS = 7.0
"""Further kernels under MLA: two down-projections, two norms, two absorbed products, a copy."""
DENSE_KERNELS = 4.0
"""Kernels of a dense feed-forward: norm, up, activation, down."""
EXPERT_KERNELS = 12.0
"""Kernels of routed experts: norm, router, top-k, sort, gather, cast, up, activation, cast, down,
scatter, shared experts."""
WIRE_BYTES = 2.0
"""Bytes an element of activations between accelerators."""
DISPATCH_BYTES = 1.0
"""Bytes an element that tokens are sent to experts in (fp8); the way back is in `WIRE_BYTES`."""
HEAD_BYTES = 2.0
"""Bytes a weight of the head: quantised checkpoints keep it (gpt-oss, Kimi-K2.5: their
quantization_config)."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How one replica of a model is cut and quantised. All fields are numbers or columns."""

    tp: Number = 1
    """Tensor-parallel ranks of attention, dense feed-forward and head."""
    dp: Number = 1
    """Attention-parallel ranks that each have requests of their own."""
    moe_tp: Number = 1
    """Tensor-parallel ranks of an expert."""
    ep: Number = 1
    """Ranks over which experts are spread; moe_tp x ep = tp x dp."""
    pp: Number = 1
    """Pipeline stages."""
    dense_bytes: Number = 2.0
    """Bytes a weight of attention, dense and shared feed-forward."""
    expert_bytes: Number = 2.0
    """Bytes a weight of routed experts."""
    cache_bytes: Number = 2.0
    """Bytes an element of the cache."""
    head_bytes: Number = HEAD_BYTES
    """Bytes a weight of embedding and head."""
    weights: str = "same"
    """How weights are stored (`ServeJob.weight_precision`): says which constants hold on a CPU."""
    compiled: Flag = False
    """Whether prefill is compiled, so that the host starts fewer kernels: vLLM's default (its
    design/torch_compile), an option of TensorRT-LLM's."""
    prefill_first: Flag = False
    """Whether no answer gains a token while a prompt waits to be read (SGLang's default: its
    server arguments, enable_mixed_chunk)."""
    poll_steps: Number = 1
    """Steps between two looks at the requests that have come."""
    chunk_tokens: Number = 8192
    """New tokens that one pass takes at most (chunked prefill)."""

    @property
    def ranks(self) -> Number:
        """Accelerators of one replica."""
        return self.tp * self.dp * self.pp


@dataclass(frozen=True, kw_only=True)
class ChipRates:
    """One accelerator and its links, as stated. All fields are numbers or columns."""

    dense_flops: Number
    """FLOP/s of matmuls in the dense weights' precision."""
    expert_flops: Number
    """FLOP/s of matmuls in the experts' precision."""
    attention_flops: Number
    """FLOP/s of attention."""
    bytes_per_second: Number
    memory_bytes: Number
    link_bytes_per_second: Number
    """One way, inside the domain."""
    network_bytes_per_second: Number
    """One way and accelerator, beyond the domain."""
    domain: Number = 8
    """Accelerators that the fast link joins."""


def sequence_bytes(shape: Number, engine: Number, tokens: Number) -> Number:
    """Bytes of one sequence's keys and values on one rank."""
    return cache.cache_bytes(shape, tokens, engine.cache_bytes, tp=engine.tp) / engine.pp


def attended(shape: Number, tokens: Number) -> Number:
    """Tokens of a context that a new one looks at, averaged over layers."""
    windowed = cache.windowed(shape)
    short = smaller(tokens, larger(shape.window_tokens, 1))
    full = cache.full_layers(shape) / shape.layers
    return where(windowed, full * tokens + (1 - full) * short, tokens)


def experts_touched(shape: Number, tokens: Number) -> Number:
    """Share of experts that so many tokens meet, each its top-k at random: 1 - (1 - k/E)^B."""
    missed = 1 - shape.experts_per_token / larger(shape.experts, 1)
    return 1 - larger(missed, 0) ** tokens


def pass_seconds(shape: Number, engine: Number, chip: Number, constants: Number, *,
                 tokens: Number, keys: Number, sequences: Number, eager: Flag) -> Number:
    """Seconds of a pass of `tokens` new tokens on each attention rank, each behind `keys` tokens
    on average, where caches of `sequences` are read. `eager`: prefill, without a graph.

    MLA multiplies the compressed cache in decoding (absorbed) and expanded keys in prefill.
    """
    device = _device_seconds(shape, engine, chip, constants, tokens, keys, sequences, eager)
    kernels = kernel_count(shape)
    graph = device + kernels * constants.kernel_seconds
    launched = (kernels * constants.launch_seconds
                * where(engine.compiled, constants.compiled_launches, 1.0))
    prefill = (graph ** 2 + launched ** 2) ** 0.5
    rows = where(eager, 0.0, sequences * constants.row_seconds)
    return where(eager, prefill, graph) + rows + constants.step_seconds


def _device_seconds(shape: Number, engine: Number, chip: Number, constants: Number, tokens: Number,
                    keys: Number, sequences: Number, eager: Flag) -> Number:
    return (_matmul_seconds(shape, engine, chip, constants, tokens, sequences)
            + _attention_seconds(shape, engine, chip, constants, tokens, keys, sequences, eager)
            + _elementwise_seconds(shape, engine, chip, constants, tokens)
            + _collective_seconds(shape, engine, chip, constants, tokens))


def kernel_count(shape: Number) -> Number:
    """Kernels of one forward pass."""
    latent = where(shape.attention == "mla", LATENT_KERNELS, 0.0)
    dense = shape.layers - shape.expert_layers
    return (shape.layers * (ATTENTION_KERNELS + latent) + dense * DENSE_KERNELS
            + shape.expert_layers * EXPERT_KERNELS)


def matmul_rate(peak: Number, chip: Number, constants: Number) -> Number:
    """FLOP/s of a large matmul: what of the peak is reached, bounded by the bandwidth that feeds
    it. Low precisions multiply faster than operands and scales arrive.
    """
    return 1 / (1 / peak + 1 / (chip.bytes_per_second * constants.feed_flops_per_byte))


def _bound(weight_seconds: Number, flop_seconds: Number) -> Number:
    return (weight_seconds ** 2 + flop_seconds ** 2) ** 0.5


def _one(matmul: Matmul, chip: Number, constants: Number, wide: Number, rate: Number,
         touched: Number) -> Number:
    """The faster of two ways: weights widened as they are met, or beforehand. They are one where
    weights are as wide as what is computed in.
    """
    read = matmul.weights * touched / (chip.bytes_per_second * constants.bandwidth_share)
    met = _bound(read * wide, matmul.flops / (rate * constants.direct_ratio))
    before = read * constants.widened_bytes + _bound(read * wide, matmul.flops / rate)
    return smaller(met, before)


def _matmul_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                    tokens: Number, sequences: Number) -> Number:
    total: Number = 0.0
    dense_rate = matmul_rate(chip.dense_flops * constants.matmul_share, chip, constants)
    for each in layer_matmuls(shape, tokens, engine.tp):
        if each.name not in ROUTED:
            total = total + _one(each, chip, constants, engine.dense_bytes, dense_rate, 1.0)
    met = tokens * engine.dp
    expert_rate = matmul_rate(chip.expert_flops * constants.expert_share, chip, constants)
    touched = experts_touched(shape, met)
    for each in layer_matmuls(shape, met / engine.ep, engine.moe_tp, engine.ep):
        if each.name in ROUTED:
            total = total + _one(each, chip, constants, engine.expert_bytes, expert_rate, touched)
    head = head_matmul(shape, sequences, engine.tp)
    peak = where(engine.head_bytes < HEAD_BYTES, chip.dense_flops, chip.attention_flops)
    return total / engine.pp + _one(head, chip, constants, engine.head_bytes,
                                    peak * constants.matmul_share, 1.0)


def _attention_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                       tokens: Number, keys: Number, sequences: Number, eager: Flag) -> Number:
    reach = attended(shape, keys)
    read = sequences * sequence_bytes(shape, engine, keys)
    absorbed = 2 * shape.kv_rank + shape.rope_size
    expanded = shape.key_size + shape.value_head_size
    latent = (shape.attention == "mla") & is_not(eager)
    size = where(latent, absorbed, expanded)
    flops = 2.0 * tokens * reach * size * shape.heads / engine.tp * shape.layers / engine.pp
    rate = chip.attention_flops * where(eager, constants.attention_share,
                                        constants.decode_attention_share)
    return _bound(read / (chip.bytes_per_second * constants.cache_share), flops / rate)


def elements(shape: Number, engine: Number, tokens: Number) -> Number:
    """Elements that elementwise work of a pass reads or writes on one rank."""
    heads = shape.heads * shape.key_size / engine.tp
    dense = (shape.layers - shape.expert_layers) * shape.ffn / engine.tp
    shared = shape.shared_experts / engine.tp
    spread = shape.experts_per_token * engine.dp / (engine.ep * engine.moe_tp)
    routed = shape.expert_layers * shape.expert_ffn * (shared + spread)
    gathered = shape.expert_layers * shape.width * spread
    found = shape.layers * (6.0 * shape.width + 3.0 * heads) + 3.0 * (dense + routed) + gathered
    return tokens * found / engine.pp


def _elementwise_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                         tokens: Number) -> Number:
    return elements(shape, engine, tokens) * constants.elementwise_bytes / (
        chip.bytes_per_second * constants.bandwidth_share)


def _collective_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                        tokens: Number) -> Number:
    """Two all-reduces a layer under tensor parallelism; with attention on its own ranks, tokens
    are sent to their experts and back instead. A world of one has none.
    """
    layers, ranks = shape.layers / engine.pp, engine.tp * engine.dp
    routed = where(engine.dp > 1, shape.expert_layers / engine.pp, 0)
    payload = tokens * shape.width * WIRE_BYTES
    reduced = (2 * layers - routed) * all_reduce_seconds(payload, engine.tp, chip, constants)
    sent = tokens * smaller(shape.experts_per_token, ranks - 1) * shape.width
    bandwidth, latency = _link(ranks, chip, constants)
    exchange = 2 * constants.exchange_seconds * latency + sent * (
        DISPATCH_BYTES + WIRE_BYTES) / (bandwidth * constants.exchange_share)
    return reduced + routed * where(ranks > 1, exchange, 0)


def all_reduce_seconds(payload: Number, ranks: Number, chip: Number, constants: Number) -> Number:
    """Seconds of an all-reduce of `payload` bytes: a latency that grows with the logarithm of the
    ranks, and 2 (n - 1) / n of the payload over the link. None for one rank.
    """
    bandwidth, latency = _link(ranks, chip, constants)
    hops = log2(larger(ranks, 1))
    return (constants.reduce_seconds * hops * latency
            + 2 * (ranks - 1) / ranks * payload / (bandwidth * constants.link_share))


def _link(ranks: Number, chip: Number, constants: Number) -> tuple[Number, Number]:
    """Bytes a second a rank, and how many times the latency of the fast link, of such a group."""
    far = ranks > chip.domain
    return (where(far, chip.network_bytes_per_second, chip.link_bytes_per_second),
            where(far, constants.network_latency, 1.0))


def prefill_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                    prompt_tokens: Number, prompts: Number = 1, cached: Number = 0) -> Number:
    """Seconds to read `prompts` prompts at once on each attention rank, `cached` tokens of each
    already kept, in passes of no more than `engine.chunk_tokens`.
    """
    cached = smaller(cached, larger(prompt_tokens - 1, 0))
    new = larger(prompt_tokens - cached, 1)
    tokens = new * prompts
    passes = larger(ceiling(tokens / engine.chunk_tokens), 1)
    keys = cached + new / 2
    one = pass_seconds(shape, engine, chip, constants, tokens=tokens / passes, keys=keys,
                       sequences=prompts / passes, eager=True)
    return passes * one * engine.pp


def decode_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                   batch: Number, context_tokens: Number, drafted: Number = 0,
                   drafter: Number = 0.0) -> Number:
    """Seconds of a step for `batch` answers on each attention rank, behind such a context, each
    with `drafted` further tokens to check, that a model of `drafter` times the parameters guessed
    (0: nobody's work). Under a pipeline, each stage works on its share of them at a time.
    """
    share = larger(batch / engine.pp, 1)
    one = pass_seconds(shape, engine, chip, constants, tokens=share * (1 + drafted),
                       keys=context_tokens, sequences=share, eager=False)
    guess = _draft_seconds(shape, engine, chip, constants, share, context_tokens, drafter)
    return (one + drafted * guess) * engine.pp


def _draft_seconds(shape: Number, engine: Number, chip: Number, constants: Number, batch: Number,
                   context_tokens: Number, drafter: Number) -> Number:
    """Seconds in which a small model guesses one token for each answer: the large one's, by its
    share of the parameters, and by the cube root of that (its share of the layers, where depth
    grows as width) of the kernels.
    """
    device = _device_seconds(shape, engine, chip, constants, batch, context_tokens, batch, False)
    kernels = kernel_count(shape) * drafter ** (1 / 3)
    return drafter * device + kernels * constants.kernel_seconds


def accepted_tokens(drafted: Number, acceptance: Number) -> Number:
    """Tokens a step yields on average with so many drafted, each accepted with this chance given
    those before it: (1 - a^(d+1)) / (1 - a) (Leviathan et al., arXiv:2211.17192, equation 1).
    """
    sure = acceptance >= 1
    below = where(sure, 0.0, acceptance)
    return where(sure, drafted + 1.0, (1 - below ** (drafted + 1)) / (1 - below))


def weight_bytes(shape: Number, engine: Number) -> Number:
    """Bytes of weights on one rank: experts cut by moe_tp x ep, the rest by tp."""
    head = shape.vocab * shape.width * engine.head_bytes
    ends = shape.embedding_parameters / (shape.vocab * shape.width) * head / engine.tp
    dense = shape.parameters - shape.embedding_parameters - shape.routed_parameters
    routed = shape.routed_parameters * engine.expert_bytes / (engine.moe_tp * engine.ep)
    return ends + (dense * engine.dense_bytes / engine.tp + routed) / engine.pp
