"""What many users meet: time to first token, time per further token, and throughput of a server
that batches continuously, from the passes of `serving_passes`.

A closed loop: `concurrency` requests are in flight, and each answer that ends is followed by a new
request. Little's law (requests = rate x time each spends) ties rate and latency together. All is
polymorphic (see `numbers`).
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.physics.numbers import Flag, Number, larger, smaller, where
from curbcut.physics.serving_passes import (
    accepted_tokens,
    decode_seconds,
    prefill_seconds,
    sequence_bytes,
    weight_bytes,
)

ROUNDS = 6
"""Rounds in which rate and batch are brought into agreement."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What is asked of one server. All fields are numbers or columns."""

    concurrency: Number
    """Requests in flight: being read, decoded, or waiting."""
    prompt_tokens: Number
    output_tokens: Number
    prefix_hit_rate: Number = 0.0
    """Share of prompt tokens whose keys and values are kept from earlier prompts."""
    alike: Flag = False
    """Whether all answers are equally long."""
    drafted: Number = 0
    """Tokens drafted a step (speculation, multi-token prediction)."""
    acceptance: Number = 0.0
    """Chance that a drafted token is accepted, given those before it."""
    drafter: Number = 0.0
    """Parameters of the model that drafts over those of the model; 0 where none does."""

    @property
    def cached_tokens(self) -> Number:
        """Prompt tokens that need no reading."""
        return self.prefix_hit_rate * self.prompt_tokens

    @property
    def context_tokens(self) -> Number:
        """Mean context of an answer in the making."""
        return self.prompt_tokens + self.output_tokens / 2


@dataclass(frozen=True)
class Latency:
    """What a request meets on average, and what the server gives."""

    ttft_seconds: Number
    tpot_seconds: Number
    batch: Number
    """Answers decoded together, on one attention rank."""
    tokens_per_second: Number
    """Output tokens of the whole server."""


def batch_that_fits(shape: Number, engine: Number, chip: Number, constants: Number,
                    tokens: Number) -> Number:
    """Sequences of so many tokens whose cache fits beside the weights, over all attention ranks;
    at least 1 each.
    """
    room = (chip.memory_bytes * constants.memory_share - weight_bytes(shape, engine))
    return larger(room / sequence_bytes(shape, engine, tokens), 1) * engine.dp


def together(shape: Number, engine: Number, chip: Number, constants: Number,
             traffic: Number) -> Latency:
    """Prefill and decode on the same ranks (continuous batching).

    A token takes a decode step and its share of the prompts that are read meanwhile: one prompt
    for each answer that ends. The first token waits for `waves` of prompt reading (its own, and
    those that came with it), for the step under way, and, as a share `burst` of all requests that
    came at once when the server was empty, for half of the others. Requests beyond those whose
    cache fits wait for a place.

    Where prompts are read before any answer goes on and answers are alike, requests that came
    together stay together: they end at once, and the next are read at once. Then each waits for
    half of the others before its first token, and after it for the other half.
    """
    whole = traffic.prompt_tokens + traffic.output_tokens
    rows = smaller(traffic.concurrency,
                   batch_that_fits(shape, engine, chip, constants, whole))
    batch = larger(rows / engine.dp, 1)
    step = _token_seconds(shape, engine, chip, constants, traffic, batch)
    alone, packed = _prompt_seconds(shape, engine, chip, constants, traffic, batch)
    waves = engine.prefill_first & traffic.alike
    others = larger(batch - 1, 0) * where(waves, 0.5, constants.interference)
    tpot = step + others * packed / traffic.output_tokens
    decoding = traffic.output_tokens * tpot
    waiting = larger(traffic.concurrency / rows - 1, 0) * decoding
    polled = constants.steps + (engine.poll_steps - 1) / 2
    ahead = where(waves, 1.0, constants.burst) * (batch - 1) / 2 * packed
    ttft = (constants.first_seconds + constants.waves * alone + polled * step + ahead + waiting)
    return Latency(ttft, tpot, batch,
                   traffic.concurrency * traffic.output_tokens / (ttft + decoding))


def apart(shape: Number, prefill: Number, decode: Number, prefill_workers: Number,
          decode_workers: Number, chip: Number, constants: Number, traffic: Number) -> Latency:
    """Prefill and decode on workers of their own (disaggregated).

    The rate is what the prefill workers read at most, or what the loop asks: where reading is the
    limit, requests queue there, and decoding has a smaller batch. Keys and values cross the
    network between the two.
    """
    whole = traffic.prompt_tokens + traffic.output_tokens
    ranks = decode_workers * decode.dp
    places = decode_workers * batch_that_fits(shape, decode, chip, constants, whole)
    waiting_place = larger(traffic.concurrency / places, 1)
    share = larger(traffic.concurrency / prefill_workers / prefill.dp, 1)
    alone, packed = _prompt_seconds(shape, prefill, chip, constants, traffic, share)
    rate = prefill_workers * prefill.dp / packed
    bare = (constants.handover_seconds + constants.apart_waves * alone
            + _crossing(shape, prefill, chip, traffic))
    rows = smaller(traffic.concurrency, places)
    for _ in range(ROUNDS):
        batch = larger(rows / ranks, 1)
        tpot = _token_seconds(shape, decode, chip, constants, traffic, batch)
        asked = traffic.concurrency / (bare + traffic.output_tokens * tpot)
        going = (asked ** -4 + rate ** -4) ** -0.25
        rows = (rows * smaller(going * traffic.output_tokens * tpot, places)) ** 0.5
    decoding = traffic.output_tokens * tpot
    queue = larger(traffic.concurrency / going - decoding * waiting_place - bare, 0)
    burst = constants.apart_burst * (share - 1) / 2 * packed
    ttft = bare + constants.queue_share * queue + burst + (waiting_place - 1) * decoding
    return Latency(ttft, tpot, batch,
                   traffic.concurrency * traffic.output_tokens / (ttft + decoding))


def prefill_workers(shape: Number, prefill: Number, decode: Number, decode_workers: Number,
                    chip: Number, constants: Number, traffic: Number) -> Number:
    """Prefill workers (a fraction) that read as fast as the decoders answer when all requests in
    flight are being decoded.
    """
    batch = larger(traffic.concurrency / (decode_workers * decode.dp), 1)
    tpot = _token_seconds(shape, decode, chip, constants, traffic, batch)
    _, packed = _prompt_seconds(shape, prefill, chip, constants, traffic,
                                larger(traffic.concurrency / prefill.dp, 1))
    asked = traffic.concurrency / (traffic.output_tokens * tpot)
    return asked * packed / prefill.dp


def _crossing(shape: Number, engine: Number, chip: Number, traffic: Number) -> Number:
    """Seconds in which a prompt's keys and values cross the network, each rank sending its own."""
    return sequence_bytes(shape, engine, traffic.prompt_tokens) / chip.network_bytes_per_second


def _token_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                   traffic: Number, batch: Number) -> Number:
    step = decode_seconds(shape, engine, chip, constants, batch, traffic.context_tokens,
                          traffic.drafted, traffic.drafter)
    return step / accepted_tokens(traffic.drafted, traffic.acceptance)


def _prompt_seconds(shape: Number, engine: Number, chip: Number, constants: Number,
                    traffic: Number, batch: Number) -> tuple[Number, Number]:
    """Seconds to read one prompt alone; and a prompt's share where as many as one pass takes, or
    as there are, are read together (and each stage of a pipeline reads others).
    """
    alone = prefill_seconds(shape, engine, chip, constants, traffic.prompt_tokens, 1,
                            traffic.cached_tokens)
    new = larger(traffic.prompt_tokens - traffic.cached_tokens, 1)
    packed = larger(smaller(engine.chunk_tokens / new, batch), 1)
    several = prefill_seconds(shape, engine, chip, constants, traffic.prompt_tokens, packed,
                              traffic.cached_tokens)
    reads = 1 + where(traffic.drafted > 0, traffic.drafter, 0.0)  # the small model reads it too
    return alone * reads, several * reads / packed / engine.pp


def within(latency: Latency, ttft_seconds: Number, tpot_seconds: Number) -> Number:
    """Whether both objectives are met."""
    return where((latency.ttft_seconds <= ttft_seconds) & (latency.tpot_seconds <= tpot_seconds),
                 True, False)
