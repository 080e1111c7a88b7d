"""The operations of a model under a recipe: matmuls with their dimensions, and collectives.

One set serves training (tokens of a micro-batch), prefill (tokens of the prompts) and decode (one
token a sequence). All of it is polymorphic (see `numbers`): `shape` and `recipe` are nouns, their
`Columns`, or anything with the same attributes, as numbers or arrays.

Layout of the ranks, innermost first: tp, cp, dp_shard, dp_replicate, pp; expert parallelism lies
inside cp x dp. `stride` is how far apart neighbours of a group are in that order: a group whose
ranks x stride does not exceed a node's accelerators never leaves the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curbcut.physics.activations import activation_bytes
from curbcut.physics.numbers import Flag, Number, is_not, larger, where

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]
OUTER_GRADIENT_BYTES = 4
"""DiLoCo (arXiv:2311.08105) averages the difference of fp32 weights."""
LOSS_REDUCTIONS = 3
"""All-reduces of a number a token under a vocabulary cut in pieces: the largest score, the sum of
exponentials, the target's score (Megatron-LM, arXiv:1909.08053, section 3)."""
LOSS_BYTES = 8
"""Or two numbers a token that each rank gathers of all: the log of its sum, the target's score."""


@dataclass(frozen=True)
class Habits:
    """What stacks do each in their own way, as flags. As they stand: Megatron-LM's."""

    regather: Flag = False
    """Sequence parallelism keeps only a share of each gathered input and gathers it once more in
    the backward pass (arXiv:2205.05198, section 4.2.2)."""
    stops_early: Flag = False
    """Full recompute ends with the last tensor that the backward pass needs, so a block's last sum
    is not made again (torch.utils.checkpoint)."""
    gathered_loss: Flag = False
    """A vocabulary cut in pieces gathers two numbers a token in the place of three reductions."""
    norms_apart: Flag = False
    """Tensor-parallel ranks sum each norm's gradient in each micro-batch, not all once a step."""


MEGATRON = Habits()


@dataclass(frozen=True)
class Matmul:
    """A matmul of [rows, inner] by [inner, columns], done `copies` times on one rank."""

    name: str
    rows: Number
    """Tokens that meet the weight at once."""
    inner: Number
    columns: Number
    copies: Number
    """Times in one forward pass over all layers of the shape: divide by the pipeline's stages."""

    @property
    def flops(self) -> Number:
        """FLOPs of all copies, forward; backward has two matmuls of the same size for each."""
        return 2.0 * self.rows * self.inner * self.columns * self.copies

    @property
    def weights(self) -> Number:
        """Elements of the weights on a rank, all copies."""
        return 1.0 * self.inner * self.columns * self.copies


def layer_matmuls(shape: Number, tokens: Number, tp: Number = 1, ep: Number = 1,
                  sequence_parallel: Flag = False) -> tuple[Matmul, ...]:
    """The matmuls of the blocks on one rank of `tp` x `ep`, attention scores apart.

    `tokens` are those of one micro-batch on the rank. Columns of qkv, q_up, kv_up, up and rows of
    out and down are cut by `tp` (Megatron-LM, arXiv:1909.08053); MLA's down-projections and the
    router are done by each of the tp ranks, on its own share of the tokens when
    `sequence_parallel`. Under-full key heads (fewer than tp) are repeated. Tokens spread evenly
    over experts, and each of the ep ranks brings as many tokens. gate and up are one matmul.
    Experts are cut by `tp` too: a stack that spreads whole experts over the tp ranks as well
    (Megatron with expert_tensor_parallel_size 1) has an `ep` smaller by tp here.
    """
    alone = tokens / where(sequence_parallel, tp, 1)
    return _present(*_attention_matmuls(shape, tokens, alone, tp),
                    *_ffn_matmuls(shape, tokens, alone, tp, ep))


def _present(*found: Matmul) -> tuple[Matmul, ...]:
    return tuple(each for each in found if _somewhere(each.copies > 0))


def _somewhere(flags: Flag) -> bool:
    return flags if isinstance(flags, bool) else bool(flags.any())


def _attention_matmuls(shape: Number, tokens: Number, alone: Number,
                       tp: Number) -> tuple[Matmul, ...]:
    mla, heads = shape.attention == "mla", shape.heads / tp
    grouped = shape.layers * where(mla, 0, 1)
    latent = shape.layers * where(mla, 1, 0)
    compressed = latent * where(shape.query_rank > 0, 1, 0)
    queries = heads * shape.key_size
    key_heads = larger(shape.kv_heads / tp, 1)
    return (
        Matmul("qkv", tokens, shape.width, shape.head_size * (heads + 2 * key_heads), grouped),
        Matmul("q_down", alone, shape.width, shape.query_rank, compressed),
        Matmul("q_up", tokens, where(shape.query_rank > 0, shape.query_rank, shape.width), queries,
               latent),
        Matmul("kv_down", alone, shape.width, shape.kv_rank + shape.rope_size, latent),
        Matmul("kv_up", tokens, shape.kv_rank, heads * (shape.head_size + shape.value_size),
               latent),
        Matmul("out", tokens, heads * shape.value_head_size, shape.width, shape.layers),
    )


def _ffn_matmuls(shape: Number, tokens: Number, alone: Number, tp: Number,
                 ep: Number) -> tuple[Matmul, ...]:
    into = shape.ffn_matrices - 1
    width, routed = shape.width, shape.expert_layers
    expert, shared = shape.expert_ffn / tp, shape.shared_experts * shape.expert_ffn / tp
    local = shape.experts / ep
    each = tokens * shape.experts_per_token / larger(local, 1 / ep)
    dense, ffn = shape.layers - routed, shape.ffn / tp
    sharing = routed * where(shape.shared_experts > 0, 1, 0)
    return (
        Matmul("up", tokens, width, into * ffn, dense),
        Matmul("down", tokens, ffn, width, dense),
        Matmul("router", alone, width, shape.experts, routed),
        Matmul("expert_up", each, width, into * expert, routed * local),
        Matmul("expert_down", each, expert, width, routed * local),
        Matmul("shared_up", tokens, width, into * shared, sharing),
        Matmul("shared_down", tokens, shared, width, sharing),
    )


def head_matmul(shape: Number, tokens: Number, tp: Number = 1) -> Matmul:
    """Hidden states to scores of the vocabulary, cut by rows of the vocabulary over `tp`."""
    return Matmul("head", tokens, shape.width, shape.vocab / tp, 1)


@dataclass(frozen=True)
class Collective:
    """One kind of message of a step, as one rank takes part in it."""

    kind: Kind
    name: str
    bytes_: Number
    """Payload of one message: the tensor that is reduced, the whole that is gathered or scattered,
    all that a rank hands to an all-to-all, or what is sent."""
    ranks: Number
    """Ranks in the group."""
    stride: Number
    """Ranks from one neighbour of the group to the next."""
    times: Number
    """Messages in one optimiser step."""

    @property
    def step_bytes(self) -> Number:
        """Payload of all messages of a step."""
        return self.bytes_ * self.times


@dataclass(frozen=True)
class ElementBytes:
    """Bytes of an element on the wire."""

    weight: Number
    gradient: Number
    activation: Number


def element_bytes(recipe: Number) -> ElementBytes:
    """What the precision says: 4 for fp32 and tf32, else 2 (fp8 is cast inside a rank)."""
    each = activation_bytes(recipe)
    return ElementBytes(each, each, each)


def collectives(shape: Number, recipe: Number, elements: ElementBytes | None = None,
                habits: Habits = MEGATRON) -> tuple[Collective, ...]:
    """Every collective of one optimiser step on one rank of the busiest pipeline stage.

    A stack that sums gradients in fp32 or gathers fp8 weights says so in `elements`. A world of one
    has none.
    """
    elements = elements or element_bytes(recipe)
    found = (*_data(shape, recipe, elements), *_replicas(shape, recipe, elements),
             *_tensor(shape, recipe, elements, habits),
             *_pipeline(shape, recipe, elements), *_context(shape, recipe, elements),
             *_experts(shape, recipe, elements), *_turned(shape, recipe, elements))
    return tuple(each for each in found if _somewhere((each.times > 0) & (each.ranks > 1)))


def local_tokens(recipe: Number) -> Number:
    """Tokens of one micro-batch on one rank of the context."""
    return recipe.micro_batch * recipe.sequence_tokens / recipe.cp


def _flag(condition: Flag) -> Number:
    return where(condition, 1, 0)


def _never(value: Number, least: float) -> bool:
    """Whether a plain number says that nothing of a kind happens: an array may always."""
    return isinstance(value, (int, float)) and value <= least


def sharing_ranks(recipe: Number) -> Number:
    """Ranks that share states: the context's too, for they hold the same (FSDP, Megatron)."""
    return recipe.dp_shard * recipe.cp


def uncut_layer_parameters(shape: Number) -> Number:
    """Parameters a layer that tensor parallelism leaves whole on each rank, averaged over layers:
    norms, the router, and what MLA compresses with.
    """
    mla = _flag(shape.attention == "mla")
    inside = where(shape.qk_norm, 2 * shape.head_size, 0) * (1 - mla)
    down = shape.width * (shape.query_rank + shape.kv_rank + shape.rope_size)
    inside = inside + mla * (shape.query_rank + shape.kv_rank + down)
    router = shape.width * shape.experts * shape.expert_layers / shape.layers
    return 2 * shape.width + inside + router


def _held(shape: Number, recipe: Number) -> tuple[tuple[str, Number, Number, Number], ...]:
    """(name, parameters, messages, ranks fewer) of what a rank holds before data parallelism:
    the dense rest of each layer, the experts of each layer, and embedding with head.
    """
    layers, tp, pp = shape.layers / recipe.pp, recipe.tp, recipe.pp
    inside = shape.parameters - shape.embedding_parameters - shape.width - shape.routed_parameters
    whole = uncut_layer_parameters(shape)
    layer = (inside / shape.layers - whole) / tp + whole
    apart = (pp > 1) & (recipe.pipeline != "dualpipev")  # which has both ends on one rank
    matrices = where(apart, shape.vocab * shape.width, shape.embedding_parameters)
    found = (("layer", layer, layers, 1), ("ends", matrices / tp + shape.width, 1, 1))
    if _never(shape.expert_layers, 0):
        return found
    experts = shape.routed_parameters / larger(shape.expert_layers, 1) / (tp * recipe.ep)
    return (*found, ("experts", experts, shape.expert_layers / pp, recipe.ep))


def _data(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """ZeRO (arXiv:1910.02054) over the ranks that share states: stage 1 and 2 scatter gradients
    (once a step, each micro-batch) and gather the new weights once; stage 3 gathers each layer
    forward and backward of each micro-batch, embedding and head once, and scatters each time. A
    pipeline's stage stays gathered, and its gradients whole, over the step.
    """
    shared, count = sharing_ranks(recipe), recipe.accumulation
    if _never(shared, 1):
        return []
    found = []
    again = (recipe.shard == "parameters") & (recipe.pp == 1)
    once = (recipe.shard == "optimiser") | (recipe.pp > 1)
    for name, held, messages, fewer in _held(shape, recipe):
        ranks = shared if _never(fewer, 1) else larger(shared / fewer, 1)
        stride = recipe.tp * fewer
        passes = 1 if name == "ends" else 2
        gathers = messages * where(again, passes * count, 1)
        scatters = messages * where(once, 1, count)
        found.append(Collective("all_gather", f"{name} weights", held * elements.weight,
                                ranks, stride, gathers))
        found.append(Collective("reduce_scatter", f"{name} gradients", held * elements.gradient,
                                ranks, stride, scatters))
    return found


def _replicas(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """All-reduce over ranks that hold the same, once a step: of what sharing has left on a rank.
    DiLoCo's replicas meet once in `outer_steps`, with the difference of their weights.
    """
    if _never(recipe.dp_replicate, 1) and _never(recipe.ep, 1):
        return []
    found = []
    shared, apart = sharing_ranks(recipe), recipe.outer_steps > 1
    outer = recipe.tp * shared
    near = where(apart, 1, recipe.dp_replicate)
    for name, held, messages, fewer in _held(shape, recipe):
        mine, group, apace = held / shared, near, outer
        if not _never(fewer, 1):  # experts spread over ranks that share states, then replicas
            left = larger(fewer / shared, 1)
            mine = held / larger(shared / fewer, 1)
            group, apace = larger(near / left, 1), outer * left
        found.append(Collective("all_reduce", f"{name} gradients", mine * elements.gradient, group,
                                apace, messages))
        if not _never(recipe.outer_steps, 1):
            found.append(Collective("all_reduce", f"{name} outer", mine * OUTER_GRADIENT_BYTES,
                                    where(apart, recipe.dp_replicate, 1), outer,
                                    messages / recipe.outer_steps))
    return found


def _tensor(shape: Number, recipe: Number, elements: ElementBytes,
            habits: Habits) -> list[Collective]:
    """Tensor parallelism (Megatron-LM, arXiv:1909.08053): two all-reduces a layer forward and two
    backward; with sequence parallelism (arXiv:2205.05198) each is a gather and a scatter. Full
    recompute does the forward ones again. Embedding and head add one each.
    """
    if _never(recipe.tp, 1):
        return []
    tokens, count, tp = local_tokens(recipe), recipe.accumulation, recipe.tp
    payload = tokens * shape.width * elements.activation
    layers = shape.layers / recipe.pp * count
    redone = layers * _flag(recipe.recompute == "full")
    ends = layers * 4 + count * where(recipe.pp > 1, 1, 2)
    sums = ends + redone * where(habits.stops_early, 1, 2)
    along = _flag(recipe.sequence_parallel)
    again = 2 * layers * along * _flag(habits.regather)
    norms = 2 * shape.layers / recipe.pp + 1
    each = where(habits.norms_apart, norms * count, 1)
    reductions = LOSS_REDUCTIONS * count * where(habits.gathered_loss, 0, 1)
    return [
        Collective("all_reduce", "tp activations", payload, tp, 1, sums * (1 - along)),
        Collective("all_gather", "tp activations", payload, tp, 1,
                   (ends + 2 * redone) * along + again),
        Collective("reduce_scatter", "tp activations", payload, tp, 1, sums * along),
        Collective("all_reduce", "tp norms", shape.width * elements.gradient
                   * where(habits.norms_apart, 1, norms), tp, 1, each * along),
        Collective("all_reduce", "tp loss", tokens * 4, tp, 1, reductions),
        Collective("all_gather", "tp loss", tokens * LOSS_BYTES * tp, tp, 1,
                   count * _flag(habits.gathered_loss)),
    ]


def _pipeline(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """Each micro-batch sends activations forward and their gradients back over each boundary of
    the rank's virtual stages (Narayanan et al. 2021, arXiv:2104.04473); DualPipeV holds two. A
    tied embedding's gradients (a share of them, where they are scattered) are added up over the
    first and last stage, unless one rank has both.
    """
    if _never(recipe.pp, 1):
        return []
    many = _flag(recipe.pp > 1)
    pieces = where(recipe.pipeline == "dualpipev", 2,
                   where(recipe.pipeline == "interleaved", recipe.virtual_stages, 1))
    stride = recipe.tp * recipe.cp * recipe.dp_shard * recipe.dp_replicate
    share = where(recipe.sequence_parallel, recipe.tp, 1)
    payload = local_tokens(recipe) * shape.width * elements.activation / share
    tied = shape.vocab * shape.width / recipe.tp * elements.gradient
    tied = tied / where(recipe.shard != "optimiser", sharing_ranks(recipe), 1)
    meet = many * _flag(shape.tied_embeddings) * _flag(recipe.pipeline != "dualpipev")
    return [
        Collective("send", "stages", payload, 2, stride, 2 * recipe.accumulation * pieces * many),
        Collective("all_reduce", "tied embedding", tied, 2, stride * larger(recipe.pp - 1, 1),
                   meet),
    ]


def _context(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """Ring attention (arXiv:2310.01889): keys and values pass cp - 1 neighbours forward, and with
    their gradients backward. Ulysses (arXiv:2309.14509): four all-to-alls forward and four back
    change tokens for heads, here as query, key and value together and the output.
    """
    if _never(recipe.cp, 1):
        return []
    tokens, cp = local_tokens(recipe), recipe.cp
    mla, ring = shape.attention == "mla", recipe.context == "ring"
    heads = shape.heads / recipe.tp
    key_heads = where(mla, heads, larger(shape.kv_heads / recipe.tp, 1))
    spread = where(mla, heads, larger(shape.kv_heads / recipe.tp, cp))
    both = shape.key_size + shape.value_head_size
    layers = shape.layers / recipe.pp * recipe.accumulation
    again = _flag(recipe.recompute != "none")
    queries = heads * shape.key_size
    element = elements.activation
    return [
        Collective("send", "ring keys and values", tokens * key_heads * both * element, cp,
                   recipe.tp, layers * (cp - 1) * (3 + again) * _flag(ring)),
        Collective("all_to_all", "ulysses qkv", tokens * (queries + spread * both) * element, cp,
                   recipe.tp, layers * (2 + again) * (1 - _flag(ring))),
        Collective("all_to_all", "ulysses out", tokens * heads * shape.value_head_size * element,
                   cp, recipe.tp, layers * (2 + again) * (1 - _flag(ring))),
    ]


def _experts(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """Tokens go to their experts and come back, forward and backward (GShard, arXiv:2006.16668):
    each token is sent once for each of its experts, evenly. With sequence parallelism each of the
    tp ranks sends its own share of the tokens. How many come is said before, in 8 bytes an expert,
    which are left out.
    """
    if _never(recipe.ep, 1) or _never(shape.expert_layers, 0):
        return []
    share = where(recipe.sequence_parallel, recipe.tp, 1)
    sent = local_tokens(recipe) * shape.experts_per_token / share
    payload = sent * shape.width * elements.activation
    layers = shape.expert_layers / recipe.pp * recipe.accumulation
    passes = 2 + _flag(recipe.recompute == "full")
    return [Collective("all_to_all", name, payload, recipe.ep, recipe.tp, layers * passes)
            for name in ("expert dispatch", "expert combine")]


def _turned(shape: Number, recipe: Number, elements: ElementBytes) -> list[Collective]:
    """Muon turns whole matrices: where ranks hold parts of them, each is dealt to one rank, turned
    and dealt back (Liu et al. 2025, arXiv:2502.16982, section 2.3); where two methods cut them,
    every rank gathers and turns all. Stacks of experts are shared by the expert: they stay.
    """
    if isinstance(recipe.optimiser, str) and recipe.optimiser != "muon":
        return []
    cut, tp = where(recipe.shard != "optimiser", sharing_ranks(recipe), 1), recipe.tp
    inside = shape.parameters - shape.embedding_parameters - shape.routed_parameters
    inside = inside - (2 * shape.layers + 1) * shape.width
    count = shape.layers * (4 + shape.ffn_matrices) / recipe.pp
    matrix = inside / recipe.pp / count * elements.activation
    muon, twice = recipe.optimiser == "muon", (cut > 1) & (tp > 1)
    ranks = 1.0 * cut * tp
    stride = where(cut > 1, where(tp > 1, 1, tp), 1)
    return [
        Collective("all_to_all", "muon matrices", matrix, ranks, stride,
                   2 * count / ranks * _flag(muon & is_not(twice))),
        Collective("all_gather", "muon matrices", matrix, ranks, stride,
                   count * _flag(muon & twice)),
    ]
