"""The nouns that plan, train, serve and account share. All frozen, all complete.

Each field's docstring (the string after it) is its help text in errors, on the page and in
`curbcut explain`. Units are in the names; strings with units are read in TOML ("4 min").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from curbcut.spec.fields import (
    Amount,
    Bytes,
    Count,
    Fraction,
    Kgco2e,
    Kwh,
    Positive,
    Rate,
    Seconds,
)

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer, as its dimensions."""

    preset: str = ""
    """Name of a known shape in the facts; the fields below may alter it."""
    layers: Positive
    """Number of transformer blocks."""
    width: Positive
    """Size of the residual stream (hidden size)."""
    heads: Positive
    """Query heads a layer."""
    kv_heads: Positive
    """Key and value heads a layer (GQA when fewer than `heads`)."""
    head_size: Positive
    """Dimensions a head."""
    ffn: Positive
    """Inner width of the feed-forward."""
    vocab: Positive
    """Rows of the embedding."""
    context_tokens: Positive = 4096
    """Longest sequence that the model is meant for."""
    attention: Literal["full", "sliding", "mla"] = "full"
    """Attention kind."""
    window_tokens: Count = 0
    """Window of sliding attention; 0 for none."""
    full_every: Count = 0
    """Under sliding attention, each so-many-th layer attends in full; 0 for none."""
    query_rank: Count = 0
    """MLA: width that queries are compressed to; 0 for not compressed."""
    kv_rank: Count = 0
    """MLA: width that keys and values are compressed to, and kept at in the cache."""
    rope_size: Count = 0
    """MLA: dimensions of each query, and of the one shared key, that carry the position."""
    value_size: Count = 0
    """MLA: dimensions of each value head; `head_size` is then that of keys without position."""
    feed_forward: Literal["gated", "plain"] = "gated"
    """Three matrices (SwiGLU) or two (GELU, as in GPT)."""
    experts: Count = 0
    """Routed experts a layer; 0 for a dense feed-forward."""
    experts_per_token: Count = 0
    """Experts each token is sent to (top-k)."""
    shared_experts: Count = 0
    """Experts that see each token."""
    expert_ffn: Count = 0
    """Inner width of one expert; `ffn` is then the width of dense layers."""
    dense_layers: Count = 0
    """Layers with a dense feed-forward where the others have experts."""
    tied_embeddings: bool = True
    """Whether the head shares the embedding's weights."""
    qk_norm: bool = False
    """RMSNorm on each query and key head (Qwen3)."""
    qkv_bias: bool = False
    """Whether queries, keys and values have a bias (Qwen2)."""
    rope_theta: Rate = 10000.0
    """Base of the rotary positions."""
    rope_factor: Rate = 1.0
    """Rotary positions are stretched by this; 1 for not stretched."""
    rope_low: Rate = 1.0
    """Llama 3.1: waves that turn at most this often in `rope_original_tokens` are stretched."""
    rope_high: Rate = 4.0
    """Llama 3.1: waves that turn at least this often there are not; between, in part."""
    rope_original_tokens: Count = 0
    """Llama 3.1: the context before it was stretched; 0: all waves are stretched alike."""
    norm_eps: Rate = 1e-6
    """Epsilon of RMSNorm."""

    @property
    def ffn_matrices(self) -> int:
        """Matrices of one feed-forward: gate, up and down, or up and down."""
        return 3 if self.feed_forward == "gated" else 2

    @property
    def expert_layers(self) -> int:
        """Layers whose feed-forward is routed experts; 0 when dense."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def key_size(self) -> int:
        """Dimensions in which a query head meets a key (MLA: with those of the position)."""
        return self.head_size + (self.rope_size if self.attention == "mla" else 0)

    @property
    def value_head_size(self) -> int:
        """Dimensions of a value head: `head_size`, or MLA's own."""
        return self.value_size if self.attention == "mla" else self.head_size

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention, norms inside it included.

        MLA after DeepSeek-V2 (arXiv:2405.04434, section 2.1 and equations 37 to 47): queries and
        keys with values are compressed, normed and expanded; one key of `rope_size` is shared.
        """
        if self.attention == "mla":
            return self._mla_parameters()
        projections = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        biases = self.head_size * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        return projections + biases + (2 * self.head_size if self.qk_norm else 0)

    def _mla_parameters(self) -> int:
        queries = self.heads * self.key_size
        if self.query_rank:
            into = self.query_rank * (self.width + 1 + queries)
        else:
            into = self.width * queries
        keys = self.width * (self.kv_rank + self.rope_size) + self.kv_rank
        keys += self.kv_rank * self.heads * (self.head_size + self.value_size)
        return into + keys + self.heads * self.value_size * self.width

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert."""
        return self.ffn_matrices * self.width * self.expert_ffn

    @property
    def routed_parameters(self) -> int:
        """Parameters of all routed experts in all layers: what expert parallelism cuts."""
        return self.expert_layers * self.experts * self.expert_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of embedding and head together (once when tied)."""
        return self.vocab * self.width * (1 if self.tied_embeddings else 2)

    def _parameters(self, experts: int) -> int:
        routed = experts * self.expert_parameters + self.width * self.experts
        dense = self.ffn_matrices * self.width * self.ffn
        feed_forward = self.expert_layers * routed + (self.layers - self.expert_layers) * dense
        layers = self.layers * (self.attention_parameters + 2 * self.width) + feed_forward
        return self.embedding_parameters + layers + self.width

    @property
    def parameters(self) -> int:
        """All trainable parameters, of biases only those of `qkv_bias`; a tied head counts once."""
        return self._parameters(self.experts + self.shared_experts)

    @property
    def active_parameters(self) -> int:
        """Parameters that a token meets (equal to `parameters` when dense)."""
        return self._parameters(self.experts_per_token + self.shared_experts)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The computers that a run has: one kind of accelerator, so many a node, so many nodes."""

    name: str
    """`here`, or an accelerator of the facts, as in "8xH100-SXM-80GB"."""
    accelerator: str
    """Name of the accelerator (for `here` without a GPU: the CPU)."""
    kind: Literal["cpu", "gpu", "tpu", "other"]
    """What computes."""
    accelerators_per_node: Positive = 1
    """Accelerators (for a CPU machine: sockets taken as one) in a node."""
    nodes: Positive = 1
    """Nodes."""
    memory_bytes: Bytes
    """Memory an accelerator can use (for a CPU: what the process may use)."""
    memory_bytes_per_second: Mapping[str, float]
    """Memory bandwidth an accelerator: "peak" by the vendor, "measured" by the probe."""
    peak_flops: Mapping[str, float]
    """Dense matmul FLOP/s an accelerator by precision, as the vendor states it."""
    measured_flops: Mapping[str, float] = field(default_factory=dict)
    """Achieved matmul FLOP/s by precision, from the probe; empty where nothing was probed."""
    link_bytes_per_second: Count = 0
    """Bandwidth an accelerator inside the node, one way; 0 where not known."""
    network_bytes_per_second: Count = 0
    """Bandwidth a node to other nodes, one way; 0 where not known."""
    domain_accelerators: Count = 0
    """Accelerators that the fast link joins, where that is more than a node (72 in an NVL72 rack,
    a TPU slice); 0 for the node."""
    host_memory_bytes: Bytes = 0
    """Host memory a node; 0 where not known."""
    disk_bytes: Bytes = 0
    """Free disk a node; 0 where not known."""
    cores: Count = 0
    """CPU cores a node that a process may use; 0 where not known."""
    watts: Mapping[str, float] = field(default_factory=dict)
    """Power an accelerator: "max" (TDP), "low", "typical", "high" under training, "idle"."""
    source: str = ""
    """Where these figures come from."""

    @property
    def accelerators(self) -> int:
        """Accelerators in all nodes."""
        return self.nodes * self.accelerators_per_node


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run is executed. Every field has a value: a recipe is complete."""

    stack: str = "torch"
    """Software that runs it."""
    stack_version: str = ""
    """Its version; empty when priced where it is not installed."""
    dp_replicate: Positive = 1
    """Data-parallel replicas."""
    dp_shard: Positive = 1
    """Ranks that share the optimiser's state, and what `shard` says."""
    shard: Literal["optimiser", "gradients", "parameters"] = "parameters"
    """What `dp_shard` ranks share: the optimiser's state (ZeRO-1), gradients too (ZeRO-2), or
    parameters too (ZeRO-3, FSDP)."""
    tp: Positive = 1
    """Tensor-parallel degree."""
    sequence_parallel: bool = False
    """Whether tensor-parallel ranks also share norms and residuals along the sequence."""
    pp: Positive = 1
    """Pipeline stages."""
    pipeline: Literal["gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipev"] = "1f1b"
    """Order of micro-batches over the stages."""
    virtual_stages: Positive = 1
    """Pieces of the model that each pipeline rank holds (interleaved)."""
    cp: Positive = 1
    """Context-parallel degree."""
    context: Literal["ring", "ulysses"] = "ring"
    """How context-parallel ranks meet each other's keys: passed around, or heads exchanged."""
    ep: Positive = 1
    """Expert-parallel degree, within the data- and context-parallel ranks."""
    sequence_tokens: Positive
    """Tokens a sequence."""
    micro_batch: Positive
    """Sequences a rank computes at once."""
    global_batch: Positive
    """Sequences an optimiser step, over all ranks."""
    precision: Precision
    """Precision of matmuls; below fp32, master weights and the loss stay fp32."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations computed again in the backward pass."""
    offload: Literal["none", "optimiser", "parameters", "activations"] = "none"
    """What rests in host memory."""
    attention: Literal["math", "fused"] = "fused"
    """Attention kernel: scores in memory, or the library's fused kernel."""
    chunked_loss: bool = True
    """Whether the scores of the vocabulary are made a chunk at a time, never all at once."""
    optimiser: Literal["adamw", "muon", "adamw8", "adafactor"] = "adamw"
    """AdamW for everything, Muon for the matrices in the blocks and AdamW for the rest, AdamW with
    8-bit moments, or Adafactor."""
    outer_steps: Positive = 1
    """Steps that replicas take apart before they meet (DiLoCo); 1 for meeting at each step."""
    learning_rate: Rate
    """Peak learning rate."""
    mup_base_width: Count = 0
    """Width of the model that the learning rate was tuned on; muP carries it over to this one. 0:
    the rate is meant for this width."""
    beta1: Fraction = 0.9
    """AdamW's first momentum."""
    beta2: Fraction = 0.95
    """AdamW's second momentum."""
    weight_decay: Fraction = 0.1
    """Decoupled weight decay, on matrices only."""
    clip_norm: Fraction = 1.0
    """Gradient norm above which gradients are scaled down; 0 for no clipping."""
    z_loss: Fraction = 0.0
    """Weight of the squared log of the softmax's sum, which keeps scores small; 0 for none."""
    balance_loss: Fraction = 0.001
    """Weight of the loss that spreads tokens over experts; only with experts."""
    ema_decay: Fraction = 0.0
    """Decay of the running mean of the weights that is evaluated and exported; 0 for none."""
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    """Learning rate over steps: warm-up-stable-decay, cosine, or constant after warm-up."""
    warmup_fraction: Fraction = 0.02
    """Share of steps over which the rate rises from 0."""
    decay_fraction: Fraction = 0.4
    """Share of steps over which WSD falls linearly to 0."""
    compile: bool = False
    """torch.compile each block: pays back only on long runs."""
    power_limit: Rate = 1.0
    """Share of its rated power that each accelerator may draw; 1 for no cap."""
    on_spike: Literal["record", "skip", "stop"] = "skip"
    """What a step does whose gradient is not finite or whose loss spikes: see `spike_factor`."""
    spike_factor: Rate = 2.0
    """A loss above this times the recent median is a spike."""
    checkpoint_every_steps: Positive = 500
    """Steps between checkpoints (one is always made at the end)."""
    checkpoint_interval: Literal["steps", "young"] = "steps"
    """Whether checkpoints come every so many steps, or by Young's formula from the measured time of
    a save and the rate of interruptions (never later than `checkpoint_every_steps`)."""
    checkpoint_async: bool = False
    """Whether training goes on while a checkpoint is written."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints kept."""
    evaluate_every_steps: Positive = 500
    """Steps between evaluations on held-out text."""

    @property
    def ranks(self) -> int:
        """Processes: one an accelerator."""
        return self.dp_replicate * self.dp_shard * self.tp * self.pp * self.cp

    @property
    def accumulation(self) -> int:
        """Micro-batches that one rank adds up for one optimiser step."""
        data_ranks = self.dp_replicate * self.dp_shard
        return max(1, self.global_batch // (self.micro_batch * data_ranks))

    @property
    def step_tokens(self) -> int:
        """Tokens an optimiser step, over all ranks."""
        return self.global_batch * self.sequence_tokens


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What is asked of training: how many tokens of which text."""

    tokens: Positive
    """Tokens to train on, repeats counted."""
    text: str = "python-stdlib"
    """A folder of text, JSONL or Parquet files; "python-stdlib" is Python's own library."""
    text_field: str = "text"
    """Field that holds the text in JSONL and Parquet."""
    text_bytes: Bytes = 0
    """Bytes of different text at hand, where it is not prepared yet; 0 where nobody said."""
    token_worth: Rate = 1.0
    """What a token of this text teaches, in tokens of the law's text: above 1 for cleaned text."""
    development: Fraction = 0.0
    """All runs of the project over this one (experiments, failed runs); 0 takes the ledger's own
    ratio, else the literature's."""
    suffixes: tuple[str, ...] = (".py", ".txt", ".md", ".rst", ".jsonl", ".parquet")
    """Files taken from the folder."""
    validation_fraction: Fraction = 0.05
    """Share of documents held out, chosen by hash of their text."""
    max_document_bytes: Positive = 8_000_000
    """Longer documents are cut into pieces of this size."""


@dataclass(frozen=True, kw_only=True)
class ServeJob:
    """What is asked of serving: traffic and its latency objective."""

    requests_per_second: Rate = 1.0
    """Mean request rate."""
    prompt_tokens: Positive = 256
    """Mean prompt length."""
    output_tokens: Positive = 128
    """Mean answer length."""
    max_batch: Positive = 8
    """Requests decoded together."""
    max_tokens: Positive = 512
    """Longest prompt plus answer that is accepted."""
    ttft_seconds: Seconds = 1.0
    """Objective: time to first token."""
    tpot_seconds: Seconds = 0.1
    """Objective: time per output token."""
    replicas: Positive = 1
    """Servers that share the requests."""
    tensor_parallel: Positive = 1
    """Accelerators over which one server cuts each matrix."""
    attention_parallel: Positive = 1
    """Groups of accelerators in one server that each have requests of their own, and share
    experts (attention data parallelism)."""
    expert_parallel: Positive = 1
    """Accelerators of one server over which experts are spread; the rest cut each expert."""
    weight_precision: Literal["same", "int8", "int8-dynamic", "int4", "fp8", "nvfp4"] = "same"
    """What weights are stored in: "same" as they are computed in, or quantised. "int8-dynamic"
    multiplies in 8 bits too, the others widen weights as they are read."""
    cache_precision: Literal["same", "int8", "fp8"] = "same"
    """What keys and values are stored in."""
    prefix_hit_rate: Fraction = 0.0
    """Share of prompt tokens whose keys and values are kept from earlier prompts; below 1."""
    chunk_tokens: Count = 0
    """New tokens that one pass takes at most (chunked prefill); 0 for whole prompts."""
    drafted_tokens: Count = 0
    """Tokens drafted a step and checked by the model (speculation, multi-token prediction)."""
    acceptance: Fraction = 0.7
    """Chance that a drafted token is accepted, given those before it; matters when drafting."""
    drafter_parameters: Count = 0
    """Parameters of the small model that drafts; 0 where drafts come from the text itself."""
    prefill_replicas: Count = 0
    """Servers that only read prompts (disaggregated prefill); 0 when each server does both."""
    months: Fraction = 0.0
    """Months that the model is served, for the cost of its life; 0 where nobody said."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it runs and who pays."""

    zone: str = "world"
    """Grid zone of the facts: a country ("FRA"), state, province or cloud region."""
    pue: Rate = 1.0
    """Power usage effectiveness of the building; 1.0 for a desk."""
    year: Count = 0
    """Year of the grid's mean intensity; 0 for the newest that is known."""
    hours: str = ""
    """Hours of the day that it runs in, like "22-6"; empty for around the clock."""
    market_gco2e_per_kwh: Fraction | None = None
    """Grams a kWh of the electricity contract (market-based); none where there is no contract."""
    tenure: Literal["rent", "own", "academic"] = "own"
    """Rented by the hour, owned (energy and depreciation), or granted (marginal energy only)."""
    contract: Literal["on-demand", "reserved-1y", "reserved-3y", "spot"] = "on-demand"
    """How it is rented: by the hour, bound for years, or to be taken away at any time."""
    currency: str = "USD"
    """Currency for people; accounts are kept in US dollars."""
    usd_per_kwh: Rate = 0.20
    """Price of electricity."""
    usd_per_accelerator_hour: Fraction = 0.0
    """Rent an accelerator; 0 takes the price book's median for the accelerator."""
    staff_fte: Fraction = 0.0
    """People who work on it, in full-time equivalents; 0 where nobody said."""
    staff_usd_per_year: Fraction = 0.0
    """What one full-time equivalent costs a year, overheads included; 0 takes the facts'."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be spent. Plans respect these and runs stop at them."""

    money: Amount | None = None
    """Money, all lines together."""
    kwh: Kwh | None = None
    """Energy at the facility."""
    kgco2e: Kgco2e | None = None
    """Operational and embodied carbon."""
    seconds: Seconds | None = None
    """Wall-clock time of training."""
    loss: Rate | None = None
    """Held-out bits per byte: training ends when it is reached."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One frozen whole: priced, executed and accounted."""

    name: str
    """Name of the run and of its folder."""
    seed: Count = 0
    """Seed of weights, data order and sampling."""
    model: ModelShape
    machine: Machine
    recipe: Recipe
    train: TrainJob
    serve: ServeJob = field(default_factory=ServeJob)
    place: Place = field(default_factory=Place)
    limits: Limits = field(default_factory=Limits)

    @property
    def steps(self) -> int:
        """Optimiser steps of training: tokens over tokens a step, rounded up."""
        return -(-self.train.tokens // self.recipe.step_tokens)
