"""Seconds of one training step, in parts, from operations, rates and collectives.

One formula for one recipe and for a million (see `numbers`). A matmul takes its FLOPs at the rate
its precision reaches plus moving its operands; attention runs fused or through scores in memory;
the rest of a layer moves bytes; each operation costs the device a gap and the host a launch. A
micro-batch takes that on the slowest stage plus collectives that are not hidden; a step is its
micro-batches, the pipeline's bubble, what data parallelism could not hide, and the optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.physics import collectives, flops, operations, pipeline
from curbcut.physics.activations import activation_bytes, eighth
from curbcut.physics.constants import TrainingConstants
from curbcut.physics.numbers import Flag, Number, is_not, larger, log2, where
from curbcut.physics.rates import Chip

STALL_NODES = 48
"""Nodes from which `send_stall` holds."""
NODE_RANKS = 8.0
"""Accelerators beyond which stragglers count."""
EMBED_BYTES = 16.0
"""Bytes an element of the embedding's output moves: looked up, dropped out, and its gradient."""
OPTIMISER_SHARE = {"adamw": 1.0, "muon": 0.75, "adamw8": 0.6, "adafactor": 0.55}
"""Bytes that an optimiser moves beside AdamW's: Muon has one moment, 8-bit moments are a quarter,
Adafactor's are vectors; gradient, master and weight stay."""

Z_LOSS_TRAFFIC = 8.0
"""Bytes a score that a z-loss moves: all of them scaled once more, in fp32."""
MEAN_TRAFFIC = 12.0
"""Bytes that a running mean (EMA) moves a parameter: master and mean read, mean written, fp32."""


@dataclass(frozen=True)
class Parts:
    """Seconds of an optimiser step by what takes them; they add up to the step."""

    matmul: Number
    attention: Number
    head: Number
    elementwise: Number
    launch: Number
    """Host time that the device waits for."""
    tensor: Number
    """Exposed collectives of tensor parallelism."""
    experts: Number
    context: Number
    bubble: Number
    """Filling and draining the pipeline, and waiting for its slowest stage."""
    stages: Number
    """Messages between stages."""
    data: Number
    """Exposed collectives of data parallelism."""
    optimiser: Number
    offload: Number
    other: Number
    """Data, logging and stragglers."""

    @property
    def total(self) -> Number:
        """The step."""
        return (self.matmul + self.attention + self.head + self.elementwise + self.launch
                + self.tensor + self.experts + self.context + self.bubble + self.stages
                + self.data + self.optimiser + self.offload + self.other)


@dataclass(frozen=True)
class Flow:
    """Collectives of a step by what they serve, nothing hidden, and the host's time for them."""

    tensor: Number
    experts: Number
    context: Number
    stages: Number
    data: Number
    tied: Number
    muon: Number
    hosts: Number


def gradient_bytes(recipe: Number, constants: TrainingConstants) -> Number:
    """Bytes of a gradient, in its sum and on the wire: stacks that train in fp16 keep it in fp16
    (Megatron-LM megatron/training/arguments.py: fp32 sums are forced for bf16 only).
    """
    return constants.gradient_bytes * where(recipe.precision == "fp16", 0.5, 1.0)


def recomputed(recipe: Number) -> Number:
    """Forward matmuls that are done again: all of them under full recompute, every second one
    where a stack of sharded parameters recomputes by operation (torchtitan's "selective"), none
    where only attention's scores are (arXiv:2205.05198).
    """
    half = (recipe.recompute == "selective") & (recipe.shard == "parameters")
    return where(recipe.recompute == "full", 1.0, where(half, 0.5, 0.0))


def micro_batches(recipe: Number) -> Number:
    """Micro-batches of a rank a step; a last one may be smaller."""
    share = recipe.global_batch / (1.0 * recipe.micro_batch * recipe.dp_replicate
                                   * recipe.dp_shard)
    return larger(share, 1.0)


def matmul_seconds(each: operations.Matmul, recipe: Number, chip: Chip,
                   constants: TrainingConstants, low: Flag, again: Number) -> Number:
    """All copies of one matmul in one micro-batch: forward, both of backward, and `again` (0 to 1)
    of forward for recompute.

    Three passes read two operands and write one each: 2 (mk + kn + mn) elements read, mn and mk
    written in 16 bits, kn added up in the gradient's bytes.
    """
    m, k, n = 1.0 * each.rows, 1.0 * each.inner, 1.0 * each.columns
    rate, narrow, cast = _low_rate(recipe, chip, constants, low)
    wide, passes = activation_bytes(recipe), 3.0 + again
    work = 2.0 * m * k * n * passes
    streaming = chip.bytes_per_second * constants.bandwidth
    compute, feed = work / rate, work / (
        constants.feed_flops_per_byte * streaming * 2.0 / wide)
    read = narrow * (2.0 * (m * k + k * n + m * n) + again * (m * k + k * n))
    written = wide * (m * n * (1.0 + again) + m * k) + gradient_bytes(recipe, constants) * k * n
    moved = constants.matmul_traffic * (read + written) + cast * (m * k + m * n + k * n)
    return each.copies * (joined(compute, feed, 4.0) + moved / streaming
                          + passes * constants.kernel_seconds)


def _low_rate(recipe: Number, chip: Chip, constants: TrainingConstants,
              low: Flag) -> tuple[Number, Number, Number]:
    """FLOP/s, bytes of an operand's element, and bytes to cast one."""
    precision, wide = recipe.precision, activation_bytes(recipe)
    share = where(precision == "fp8", constants.fp8,
                  where(precision == "mxfp8", constants.mxfp8, constants.nvfp4))
    rate = constants.matmul * where(low, chip.low_flops * share, chip.flops)
    narrow = where(low, where(precision == "nvfp4", 0.55, 1.0), wide)
    return rate, narrow, where(low, constants.cast_bytes, 0.0)


def joined(one: Number, other: Number, power: Number) -> Number:
    """The power mean's sum of two times: both added at power 1, the longer at a large one."""
    most = larger(larger(one, other), 1e-30)
    return most * ((one / most) ** power + (other / most) ** power) ** (1.0 / power)


def attention_seconds(shape: Number, recipe: Number, chip: Chip, constants: TrainingConstants,
                      tokens: Number) -> Number:
    """Attention of all layers in one micro-batch: scores and their sum, projections apart.

    Fused: 3.5 times forward (backward has five matmuls for two, arXiv:2307.08691, section 4.1),
    at a rate that rises with head size and with the keys a query sees. In memory ("math"): the
    whole square, three times, and its bytes.
    """
    heads = shape.heads / recipe.tp
    size = shape.key_size + shape.value_head_size
    length = 1.0 * recipe.sequence_tokens
    seen = flops.context(shape, recipe.sequence_tokens)
    redone = where(recipe.recompute == "full", 1.0, 0.0)
    some = where(recipe.recompute == "none", 0.0, 1.0)
    each = heads * tokens * shape.layers
    generation = where(constants.attention_kernel == 1, constants.attention_early,
                       where(constants.attention_kernel == 2, constants.attention_ported, 1.0))
    rate = (chip.flops * constants.attention * generation
            * shape.key_size / (shape.key_size + constants.attention_head)
            * seen / (seen + constants.attention_ramp))
    fused = 2.0 * seen * size * each * (3.5 + redone) / rate
    streaming = chip.bytes_per_second * constants.bandwidth
    square = length * each * (3.0 + some)
    math = square * (2.0 * size / (chip.flops * constants.matmul * constants.score_rate)
                     + constants.score_bytes / 3.0 * activation_bytes(recipe) / 2.0 / streaming)
    return where(recipe.attention == "fused", fused, math)


def elementwise_seconds(shape: Number, recipe: Number, chip: Chip,
                        constants: TrainingConstants, tokens: Number) -> Number:
    """Norms, residuals, activations, rotary positions and routing of all layers in one
    micro-batch: bytes, forward and twice that backward.
    """
    tp, layers = recipe.tp, 1.0 * shape.layers
    alone = where(recipe.sequence_parallel, 1.0 / tp, 1.0)
    routed = shape.expert_layers
    met = 1.0 * shape.experts_per_token + shape.shared_experts
    inner = ((layers - routed) * shape.ffn + routed * shape.expert_ffn * met) / tp
    heads = layers * (shape.heads + shape.kv_heads) * shape.key_size / tp
    stream = constants.residual_bytes * layers * shape.width * alone
    plain = constants.elementwise * (stream + 2.0 * shape.ffn_matrices * inner + 4.0 * heads)
    fused = constants.fused_elementwise > 0
    moved = plain * where(recipe.compile, where(fused, constants.compiled_elementwise, 1.0),
                          where(fused, 1.0, constants.eager_elementwise))
    moved = moved + (4.0 * constants.moe_bytes * routed * shape.experts_per_token * shape.width
                     * alone)
    sharded = (recipe.recompute == "selective") & (recipe.shard == "parameters")
    passes = 3.0 + where((recipe.recompute == "full") | sharded, 1.0, 0.0)
    return (moved * activation_bytes(recipe) / 2.0 * tokens * passes
            / (chip.bytes_per_second * constants.bandwidth))


def parts(shape: Number, recipe: Number, chip: Chip, constants: TrainingConstants) -> Parts:
    """Seconds of one optimiser step by what takes them, on the rank that sets the pace."""
    stages, count, layers = 1.0 * recipe.pp, micro_batches(recipe), 1.0 * shape.layers
    tokens = operations.local_tokens(recipe)
    streaming = chip.bytes_per_second * constants.bandwidth
    again = recomputed(recipe)
    matmul = _matmuls(shape, recipe, chip, constants, tokens, again)
    attention = attention_seconds(shape, recipe, chip, constants, tokens)
    head = matmul_seconds(operations.head_matmul(shape, tokens, recipe.tp), recipe, chip,
                          constants, False, 0.0)
    scores = constants.logit_bytes + where(recipe.z_loss > 0, Z_LOSS_TRAFFIC, 0.0)
    head = head + tokens * shape.vocab / recipe.tp * scores / streaming
    ends = head + EMBED_BYTES * tokens * shape.width / recipe.tp / streaming
    started = layers * constants.operations + shape.expert_layers * constants.expert_operations
    bytes_ = elementwise_seconds(shape, recipe, chip, constants, tokens)
    elementwise = bytes_ + started * constants.kernel_seconds
    moved = flow(shape, recipe, chip, constants)
    tensor = (moved.tensor * constants.tp_exposed
              * where(constants.tp_overlap > 0, constants.tp_overlapped, 1.0) / count)
    experts = (moved.experts * constants.ep_exposed
               * where(constants.ep_overlap > 0, constants.ep_overlapped, 1.0) / count)
    context = moved.context * constants.cp_exposed / count
    busy = (matmul + attention + elementwise) / stages + tensor + experts + context
    each_expert = (shape.expert_layers * shape.experts / recipe.ep * constants.local_operations
                   * where((recipe.precision == "mxfp8") | (recipe.precision == "nvfp4"),
                           constants.cast_operations, 1.0))
    host = ((started + each_expert) / stages * constants.launch_seconds * (3.0 + again) / 3.0
            * where(recipe.compile, constants.compiled_launches, 1.0) + moved.hosts / count)
    stage = joined(busy, host, constants.host_overlap)
    layer = stage * stages / layers
    slowest = pipeline.slowest(recipe, layers, layer, ends, constants.balanced_pipeline)
    idle = constants.bubble * pipeline.idle(recipe, layers, layer, ends, slowest)
    sent = pipeline.sends(recipe, count) * (
        constants.send_host + where(chip.nodes >= STALL_NODES, constants.send_stall, 0.0))
    sent = (sent + moved.stages * constants.send_exposed) * (count + stages - 1) / count
    running = slowest * count + idle + sent
    data = _exposed(recipe, constants, moved.data, slowest, count) + moved.tied
    scale = log2(larger(chip.nodes * chip.per_node / NODE_RANKS, 1.0))
    each = count / stages
    return Parts(
        matmul=matmul * each, attention=attention * each, head=head * each,
        elementwise=(elementwise + ends - head) * each, launch=(stage - busy) * count,
        tensor=tensor * count, experts=experts * count, context=context * count, stages=sent,
        bubble=where(recipe.pp > 1, idle + (slowest - stage - ends / stages) * count, 0.0),
        data=data,
        optimiser=_optimiser(shape, recipe, chip, constants) + moved.muon,
        offload=_offload(shape, recipe, constants, count),
        other=constants.step_seconds + constants.straggler * scale * running)


def _matmuls(shape: Number, recipe: Number, chip: Chip, constants: TrainingConstants,
             tokens: Number, again: Number) -> Number:
    low, total = eighth(recipe), 0.0
    for each in operations.layer_matmuls(shape, tokens, recipe.tp, recipe.ep,
                                         recipe.sequence_parallel):
        cut = False if each.name == "router" else low
        found = matmul_seconds(each, recipe, chip, constants, cut, again)
        uneven = constants.imbalance if each.name.startswith("expert") else 1.0
        total = total + found * uneven
    return total


def flow(shape: Number, recipe: Number, chip: Chip, constants: TrainingConstants) -> Flow:
    """All collectives of a step; gradients that are summed once a step go in buckets."""
    found = dict.fromkeys(("tensor", "experts", "context", "stages", "data", "tied", "muon"), 0.0)
    hosts: Number = 0.0
    elements = operations.ElementBytes(
        activation_bytes(recipe), gradient_bytes(recipe, constants), activation_bytes(recipe))
    apart = (recipe.shard == "gradients") & (constants.blocks_apart > 0)
    whole = (((recipe.shard != "parameters") & is_not(apart))
             | (operations.sharing_ranks(recipe) == 1))
    staged = where((recipe.pp > 1) & (chip.nodes > 1), constants.pipeline_host, 0.0)
    for each in operations.collectives(shape, recipe, elements, habits(constants)):
        kind = _serves(each.name)
        times = each.times
        if kind == "data":
            buckets = larger(each.step_bytes / constants.bucket_bytes, 1.0)
            fewer = where(times > buckets, buckets, times)
            times = where(whole, fewer, times)
            each = operations.Collective(each.kind, each.name,
                                         each.step_bytes / larger(times, 1e-9), each.ranks,
                                         each.stride, times)
        elif kind in ("tensor", "experts", "context"):
            hosts = hosts + times * where(
                each.ranks > 1,
                constants.collective_host + (constants.rank_host + staged) * each.ranks, 0.0)
        seconds = collectives.seconds(each, chip, constants, shape.experts_per_token)
        found[kind] = found[kind] + times * seconds
    return Flow(**found, hosts=hosts)


def habits(constants: TrainingConstants) -> operations.Habits:
    """What the stack behind these constants does in its own way."""
    return operations.Habits(constants.regather > 0, constants.stops_early > 0,
                             constants.gathered_loss > 0, constants.norms_apart > 0)


def _serves(name: str) -> str:
    """What a collective of this name serves."""
    if name == "stages":
        return "stages"
    if name in ("tied embedding", "muon matrices"):
        return name.partition(" ")[0]
    for start, kind in (("tp ", "tensor"), ("ring", "context"), ("ulysses", "context"),
                        ("expert ", "experts")):
        if name.startswith(start):
            return kind
    return "data"


def _exposed(recipe: Number, constants: TrainingConstants, data: Number, slowest: Number,
             count: Number) -> Number:
    """Data-parallel collectives that compute does not hide. Parameters that are gathered hide
    behind the whole step, gradients behind the last backward pass. DiLoCo hides nothing.
    """
    window = constants.data_window * where(recipe.shard == "parameters", slowest * count,
                                           slowest * 2.0 / 3.0)
    share = constants.data_exposed
    hidden = larger(0.0, data - window)
    return share * data + (1.0 - share) * hidden


def _held(shape: Number, recipe: Number) -> Number:
    """Parameters on a rank before data parallelism."""
    dense = shape.parameters - shape.routed_parameters
    return (dense + shape.routed_parameters / recipe.ep) / (1.0 * recipe.tp * recipe.pp)


def _optimiser(shape: Number, recipe: Number, chip: Chip,
               constants: TrainingConstants) -> Number:
    share: Number = 1.0
    for name, moved in OPTIMISER_SHARE.items():
        share = where(recipe.optimiser == name, moved, share)
    held, muon = _held(shape, recipe), recipe.optimiser == "muon"
    owned = share * constants.optimiser_bytes + where(recipe.ema_decay > 0, MEAN_TRAFFIC, 0.0)
    moved = held * (owned / (1.0 * operations.sharing_ranks(recipe)) + constants.gradient_touch)
    turning = where(muon, flops.orthogonalisation_flops(shape), 0.0) / (
        1.0 * recipe.tp * recipe.pp)
    return (moved / (chip.bytes_per_second * constants.bandwidth)
            + turning / (chip.flops * constants.matmul))


def _offload(shape: Number, recipe: Number, constants: TrainingConstants,
             count: Number) -> Number:
    """Bytes to and from host memory, nothing hidden. Optimiser: gradients down, weights up
    (ZeRO-Offload, arXiv:2101.06840); parameters: weights up twice a micro-batch besides;
    activations: a layer's input and its inner ones down and up.
    """
    held = _held(shape, recipe) / (1.0 * operations.sharing_ranks(recipe))
    optimiser = held * (gradient_bytes(recipe, constants) + 2.0)
    tokens = operations.local_tokens(recipe) * count / (1.0 * recipe.tp * recipe.pp)
    kept = where(recipe.recompute == "full", 2.0, 34.0) * tokens * shape.layers * shape.width
    moved = where(recipe.offload == "optimiser", optimiser,
                  where(recipe.offload == "parameters", optimiser + 4.0 * held * count,
                        where(recipe.offload == "activations", 2.0 * kept, 0.0)))
    return moved / constants.host_link
