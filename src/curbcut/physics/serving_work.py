"""What one rank does in a pass of a served model: FLOPs, bytes moved, bytes sent.

The same matmuls as `serving_passes`, counted instead of timed: what a power model needs beside the
seconds of a pass. Polymorphic (see `numbers`).
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.physics.numbers import Flag, Number, ceiling, is_not, larger, smaller, where
from curbcut.physics.operations import head_matmul, layer_matmuls
from curbcut.physics.serving_passes import (
    DISPATCH_BYTES,
    ROUTED,
    WIRE_BYTES,
    attended,
    elements,
    experts_touched,
    sequence_bytes,
)


@dataclass(frozen=True)
class Work:
    """Of one rank. All are numbers or columns."""

    peak_seconds: Number
    """FLOPs, each over the peak rate of its precision: seconds of multiplying at the peak."""
    bytes_: Number
    """Moved from and to memory."""
    sent: Number
    """Bytes to other ranks."""

    def plus(self, other: Work, times: Number = 1.0) -> Work:
        """Both, the other one so many times."""
        return Work(self.peak_seconds + times * other.peak_seconds,
                    self.bytes_ + times * other.bytes_, self.sent + times * other.sent)


def pass_work(shape: Number, engine: Number, chip: Number, elementwise_bytes: Number, *,
              tokens: Number, keys: Number, sequences: Number, eager: Flag) -> Work:
    """Work of a pass of `tokens` new tokens on each attention rank; arguments as those of
    `serving_passes.pass_seconds`.
    """
    dense, experts, weights = _matmuls(shape, engine, tokens)
    head = head_matmul(shape, sequences, engine.tp)
    absorbed = 2 * shape.kv_rank + shape.rope_size
    latent = (shape.attention == "mla") & is_not(eager)
    size = where(latent, absorbed, shape.key_size + shape.value_head_size)
    scores = (2.0 * tokens * attended(shape, keys) * size * shape.heads / engine.tp
              * shape.layers / engine.pp)
    multiplying = (dense / chip.dense_flops + experts / chip.expert_flops
                   + (scores + head.flops) / chip.attention_flops)
    moved = (weights + head.weights * engine.head_bytes
             + sequences * sequence_bytes(shape, engine, keys)
             + elements(shape, engine, tokens) * elementwise_bytes)
    return Work(multiplying, moved, _sent(shape, engine, tokens))


def step_work(shape: Number, engine: Number, chip: Number, elementwise_bytes: Number, *,
              batch: Number, prompt_tokens: Number, output_tokens: Number,
              cached_tokens: Number = 0.0, drafted: Number = 0.0,
              yielded: Number = 1.0) -> Work:
    """Work of one decode step of `batch` answers on each attention rank, in the middle of their
    making, with its share of the prompts that are read meanwhile: one for each answer that ends.

    `yielded` tokens come of a step for each answer, of 1 + `drafted` that are checked.
    """
    decoding = pass_work(shape, engine, chip, elementwise_bytes, tokens=batch * (1 + drafted),
                         keys=prompt_tokens + output_tokens / 2, sequences=batch, eager=False)
    new = larger(prompt_tokens - cached_tokens, 1)
    ending = batch * yielded / output_tokens
    together = larger(smaller(engine.chunk_tokens / new, ending), 1)
    passes = larger(ceiling(new * together / engine.chunk_tokens), 1)
    reading = pass_work(shape, engine, chip, elementwise_bytes, tokens=new * together / passes,
                        keys=cached_tokens + new / 2, sequences=together / passes, eager=True)
    return decoding.plus(reading, ending * passes / together)


def _matmuls(shape: Number, engine: Number, tokens: Number) -> tuple[Number, Number, Number]:
    """FLOPs of dense matmuls and of experts', and bytes of the weights that both read."""
    dense: Number = 0.0
    experts: Number = 0.0
    weights: Number = 0.0
    for each in layer_matmuls(shape, tokens, engine.tp):
        if each.name not in ROUTED:
            dense = dense + each.flops
            weights = weights + each.weights * engine.dense_bytes
    met = tokens * engine.dp
    touched = experts_touched(shape, met)
    for each in layer_matmuls(shape, met / engine.ep, engine.moe_tp, engine.ep):
        if each.name in ROUTED:
            experts = experts + each.flops
            weights = weights + each.weights * engine.expert_bytes * touched
    return dense / engine.pp, experts / engine.pp, weights / engine.pp


def _sent(shape: Number, engine: Number, tokens: Number) -> Number:
    """Bytes that a rank sends: rings of all-reduces, and tokens to their experts and back."""
    layers, ranks = shape.layers / engine.pp, engine.tp * engine.dp
    routed = where(engine.dp > 1, shape.expert_layers / engine.pp, 0)
    ring = 2 * (engine.tp - 1) / engine.tp * tokens * shape.width * WIRE_BYTES
    copies = smaller(shape.experts_per_token, larger(ranks - 1, 0))
    return ((2 * layers - routed) * ring
            + routed * tokens * copies * shape.width * (DISPATCH_BYTES + WIRE_BYTES))
