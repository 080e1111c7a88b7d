"""Named constants of the memory model: what a stack keeps, and in how many bytes.

Read from the facts (`physics_memory.csv`), one row a value and stack. A value that was read in a
stack's own code or paper (`rows` 0) is a convention and always holds for that stack; a fitted one
is left aside where that stack is to be taken as never seen.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from curbcut.facts import physics

FILE = "physics_memory"


@dataclass(frozen=True)
class MemoryConstants:
    """What a stack keeps. Bytes a parameter are those at 16 bits: in fp32 weights, gradients and
    each moment take 4, and there is no master.
    """

    weight_bytes: float
    """The weights that matmuls read."""
    gradient_bytes: float
    """Gradients that stay over a step's micro-batches."""
    master_bytes: float
    """fp32 masters (0 where the weights themselves are)."""
    sharded_weight_bytes: float
    """The first of these three where `shard` is "parameters"."""
    sharded_gradient_bytes: float
    """Gradients where `shard` is "parameters"."""
    sharded_master_bytes: float
    """Masters where `shard` is "parameters"."""
    bucket_bytes: float
    """Buckets of replicated gradients, beside the gradients."""
    layer_gradient_bytes: float
    """Gradients of one layer's dense weights (and of the head's) on their way to the sum."""
    sharded_layer_gradient_bytes: float
    """The same where `shard` is "parameters": with the input of the reduce-scatter."""
    shards_beside_whole: float
    """1 where `shard` = "gradients" keeps fp32 shards of the parameters beside the whole ones that
    are gathered for a step; 0 where only the optimiser's states are cut."""
    gathered_in_pipeline: float
    """1 where a pipeline's stage keeps its sharded parameters gathered over the step."""
    gated_copies: float
    """Elements kept for each inner element of a gated feed-forward: 3 fused, 4 operation by
    operation (gate, up, silu of gate, product)."""
    routed_copies: float
    """Copies of a token that are kept for each expert that it is sent to: what is sent; and what
    comes back, where its weight is multiplied there."""
    router_bytes: float
    """Bytes that the router keeps an expert and token: fp32 scores, probabilities."""
    route_bytes: float
    """Bytes an expert that a token is sent to, beside its copies: places, indices and weights."""
    projection_copies: float
    """Further copies of query, key and value that are kept: made contiguous, or not yet rotated."""
    output_copies: float
    """Further copies of fused attention's output that are kept: put in the residual's order."""
    score_block_tokens: float
    """Queries that meet the keys up to their own end together, where scores are held in memory; 0
    for all keys."""
    gathered_kept: float
    """1 where the inputs that sequence-parallel ranks gather are kept for the backward pass; 0
    where they are gathered again."""
    dropout: float
    """1 where models of the GPT kind with scores in memory keep dropout masks."""
    selective_operations: float
    """0 where selective recompute drops the scores of attention only; 1 where it keeps every second
    matmul's output instead; 2 where it does so under parameter sharding."""
    logit_bytes: float
    """Bytes a score of the vocabulary at the most crowded moment of the loss."""
    chunk_logit_bytes: float
    """The same for a chunked loss."""
    end_copies: float
    """Copies of the hidden states beside the layers: embedding, last norm, their gradients."""
    fp8_input_bytes: float
    """Bytes of a matmul's kept input where matmuls are in fp8."""
    balanced_head: float
    """1 where the head counts as so many layers when the pipeline's stages are cut."""
    tail_blocks: float
    """Blocks without layers behind the head that may have a stage of their own."""
    slack: float
    """What the allocator holds beyond what comes and goes, as a share of that."""
    fragmentation: float
    """Share of what the allocator reserves that holds nothing."""
    loose_gradients: float
    """1 where gradients come and go too."""
    context_bytes: float
    """The device's context and libraries, or the process."""
    log_spread: float
    """Standard deviation of log(measured / predicted) of a device's peak, reserved memory and
    context included."""
    allocated_log_spread: float
    """The same of the peak that the allocator hands out."""
    part_log_spread: float
    """The same of one kind alone, as states or activations, and of their ratios."""

    @property
    def spread90(self) -> float:
        """Factor either way of a 90% interval."""
        import math

        return math.exp(1.645 * self.log_spread)


@functools.lru_cache(maxsize=256)
def memory_constants(stack: str = "", kind: str = "gpu", version: str = "",
                     without: str = "") -> MemoryConstants:
    """Constants for a stack on a kind of machine ("cpu", "gpu", ...).

    The most specific row of each name holds: stack before version before kind. `without` names a
    stack whose measured rows must not speak.
    """
    places = {"stack": stack, "version": version, "accelerator": kind if kind == "cpu" else ""}
    found: dict[str, tuple[int, float]] = {}
    for row in physics.constants(FILE):
        rank = _rank(row, places, without)
        if rank >= 0 and rank >= found.get(row.name, (-1, 0.0))[0]:
            found[row.name] = (rank, row.value)
    names = [field.name for field in dataclasses.fields(MemoryConstants)]
    return MemoryConstants(**{name: found[name][1] for name in names})


def _rank(row: physics.PhysicsConstant, places: dict[str, str], without: str) -> int:
    """How well a row fits: -1 for not at all."""
    if row.without and row.without != without:
        return -1
    if row.rows and without and row.stack == without:
        return -1
    rank = 1 if row.without else 0
    for weight, (name, wanted) in zip((8, 4, 2), places.items(), strict=True):
        said = getattr(row, name)
        if said and said != wanted:
            return -1
        rank += weight if said else 0
    return rank
