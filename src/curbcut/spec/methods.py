"""The methods that this version knows: which bottleneck each relieves, and by how much where
somebody measured it.

A method says nothing of whether it is done: `plan` declares what it prices, `train` and `serve`
declare what they run, by the names used here. What nobody declares is unfinished and shown so.
Gains stand in the facts (`facts/levers.csv`), each with its conditions; two gains of one resource
never multiply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curbcut.facts import levers

Bottleneck = Literal["compute", "memory", "network", "storage", "energy", "carbon", "money"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to spend less of something."""

    name: str
    """By which `plan`, `train` and `serve` declare it."""
    bottleneck: Bottleneck
    """What it relieves first."""
    what: str
    """One line of what it does."""
    field: str = ""
    """Dotted field of the run that chooses it; empty where it is always or never on."""

    @property
    def gain(self) -> str:
        """Published or measured figures, with their conditions; empty where there is none."""
        return "; ".join(row.quote for row in levers.evidence(self.name))

    @property
    def source(self) -> str:
        """Who published or measured the gain."""
        return "; ".join(dict.fromkeys(row.source for row in levers.evidence(self.name)))


_TRAINING = (
    Method(
        name="bf16-master-weights", bottleneck="compute", field="recipe.precision",
        what="bf16 matmuls, fp32 master weights and loss"),
    Method(
        name="fp8", bottleneck="compute", field="recipe.precision",
        what="8-bit floating-point matmuls in training"),
    Method(
        name="mxfp8", bottleneck="compute", field="recipe.precision",
        what="8-bit matmuls with a scale a block of 32 (Blackwell)"),
    Method(
        name="nvfp4", bottleneck="compute", field="recipe.precision",
        what="4-bit matmuls with a scale a block of 16 (Blackwell)"),
    Method(name="tf32", bottleneck="compute", field="recipe.precision",
           what="fp32 weights, matmuls rounded to 19 bits"),
    Method(name="fp16", bottleneck="compute", field="recipe.precision",
           what="fp16 matmuls, fp32 master weights and a scaled loss"),
    Method(
        name="compile", bottleneck="compute", field="recipe.compile",
        what="torch.compile of each block"),
    Method(
        name="math-attention", bottleneck="compute", field="recipe.attention",
        what="attention scores in memory, which CPUs prefer at short sequences"),
    Method(
        name="fused-attention", bottleneck="memory", field="recipe.attention",
        what="attention without the scores in memory (flash kernels)"),
    Method(
        name="fused-optimiser", bottleneck="compute", field="recipe.optimiser",
        what="one kernel for the whole AdamW step"),
    Method(
        name="muon", bottleneck="compute", field="recipe.optimiser",
        what="momentum orthogonalised for the matrices of the blocks, AdamW for the rest"),
    Method(
        name="adamw8", bottleneck="memory", field="recipe.optimiser",
        what="AdamW with 8-bit moments"),
    Method(name="adafactor", bottleneck="memory", field="recipe.optimiser",
           what="second moment as a row and a column (arXiv 1804.04235)"),
    Method(
        name="chunked-loss", bottleneck="memory",
        what="fp32 loss by chunks of tokens, so that no full logits exist"),
    Method(
        name="gradient-accumulation", bottleneck="memory", field="recipe.micro_batch",
        what="one optimiser step over several micro-batches"),
    Method(
        name="recompute", bottleneck="memory", field="recipe.recompute",
        what="each layer's activations computed again in the backward pass"),
    Method(
        name="selective-recompute", bottleneck="memory", field="recipe.recompute",
        what="only attention's scores computed again"),
    Method(
        name="offload", bottleneck="memory", field="recipe.offload",
        what="optimiser state or parameters rest in host memory"),
    Method(name="activation-offload", bottleneck="memory", field="recipe.offload",
           what="activations rest in host memory until the backward pass"),
    Method(name="data-parallel", bottleneck="compute", field="recipe.dp_replicate",
           what="replicas on parts of the batch (DDP)"),
    Method(
        name="diloco", bottleneck="network", field="recipe.outer_steps",
        what="replicas take many steps apart before they meet"),
    Method(name="sharded-data-parallel", bottleneck="memory", field="recipe.dp_shard",
           what="parameters, gradients and optimiser state shared among ranks (FSDP, ZeRO-3)"),
    Method(name="zero-1", bottleneck="memory", field="recipe.shard",
           what="only the optimiser's state shared among ranks"),
    Method(name="zero-2", bottleneck="memory", field="recipe.shard",
           what="the optimiser's state and gradients shared among ranks"),
    Method(name="hybrid-sharding", bottleneck="network", field="recipe.dp_replicate",
           what="states shared inside a group of ranks, groups kept as replicas (HSDP)"),
    Method(
        name="tensor-parallel", bottleneck="memory", field="recipe.tp",
        what="each matmul split over ranks"),
    Method(
        name="sequence-parallel", bottleneck="memory", field="recipe.sequence_parallel",
        what="norms and residuals split along the sequence over tensor-parallel ranks"),
    Method(
        name="pipeline-parallel", bottleneck="memory", field="recipe.pp",
        what="layers in stages on different ranks (GPipe, 1F1B)"),
    Method(
        name="interleaved-pipeline", bottleneck="compute", field="recipe.virtual_stages",
        what="several pieces of the model a rank: a shorter bubble"),
    Method(name="zero-bubble-pipeline", bottleneck="compute", field="recipe.pipeline",
           what="gradients of weights fill the bubble (ZB-H1, arXiv 2401.10241)"),
    Method(name="dualpipev", bottleneck="compute", field="recipe.pipeline",
           what="both directions at once over a folded pipeline (DeepSeek-V3)"),
    Method(name="context-parallel", bottleneck="memory", field="recipe.cp",
           what="one sequence split over ranks, keys passed around a ring"),
    Method(name="ulysses", bottleneck="memory", field="recipe.context",
           what="one sequence split over ranks, heads exchanged for attention (arXiv 2309.14509)"),
    Method(name="expert-parallel", bottleneck="memory", field="recipe.ep",
           what="experts of a sparse model on different ranks"),
    Method(
        name="sparse-experts", bottleneck="compute", field="model.experts",
        what="a token meets a few of many feed-forwards"),
    Method(
        name="wsd-schedule", bottleneck="compute", field="recipe.schedule",
        what="warm-up, stable, decay: a longer run goes on from a shorter one"),
    Method(name="cosine-schedule", bottleneck="compute", field="recipe.schedule",
           what="learning rate along a cosine: the usual baseline"),
    Method(name="tuned-learning-rate", bottleneck="compute", field="recipe.learning_rate",
           what="a learning rate by size and tokens (Step Law), not by habit"),
    Method(name="z-loss", bottleneck="compute", field="recipe.z_loss",
           what="scores of the vocabulary kept small, so that low precision stays stable"),
    Method(name="balance-loss", bottleneck="network", field="recipe.balance_loss",
           what="tokens spread evenly over experts, so that no rank waits for the fullest"),
    Method(name="weight-average", bottleneck="compute", field="recipe.ema_decay",
           what="a running mean of the weights is evaluated and exported (EMA)"),
    Method(name="hyperparameter-transfer", bottleneck="compute", field="recipe.mup_base_width",
           what="hyper-parameters tuned on a small model and carried over (muP)"),
    Method(name="early-stopping", bottleneck="compute", field="train.development",
           what="experiments that lag are stopped early (successive halving)"),
    Method(name="modern-recipe", bottleneck="compute",
           what="the speedruns' many small changes of architecture and schedule together"),
    Method(name="growth", bottleneck="compute", field="train.token_worth",
           what="a deep model grown by stacking a shallow one (G_stack)"),
    Method(name="data-quality", bottleneck="compute", field="train.token_worth",
           what="text filtered and mixed by what it teaches"),
    Method(name="data-reduction", bottleneck="compute", field="train.token_worth",
           what="near-duplicates left out, what is left diversified"),
    Method(name="partitioning", bottleneck="network", field="recipe.tp",
           what="the best degrees, schedule and batches of all valid recipes"),
    Method(name="checkpoint-interval", bottleneck="storage", field="recipe.checkpoint_interval",
           what="checkpoints as often as faults and their own time ask for (Young, Daly)"),
    Method(name="asynchronous-checkpoints", bottleneck="storage", field="recipe.checkpoint_async",
           what="training waits for a copy of its state, not for the disk"),
    Method(name="relaunch", bottleneck="compute",
           what="a rank that dies, hangs or slows is named, and the job starts again by itself"),
    Method(
        name="memory-mapped-tokens", bottleneck="storage",
        what="tokens on disk as they are used; order a function of seed and step"),
    Method(name="exact-resume", bottleneck="storage", field="recipe.checkpoint_every_steps",
           what="verified checkpoints; a stopped run goes on as if it had not stopped"),
)

_SERVING = (
    Method(name="kv-cache", bottleneck="compute", field="serve.max_tokens",
           what="keys and values of past tokens are kept, not computed again"),
    Method(
        name="continuous-batching", bottleneck="memory", field="serve.max_batch",
        what="requests join and leave the batch at every token"),
    Method(
        name="paged-kv-cache", bottleneck="memory",
        what="cache in pages, given out as a sequence grows"),
    Method(
        name="prefix-cache", bottleneck="compute", field="serve.prefix_hit_rate",
        what="a prompt's known beginning is not computed again"),
    Method(name="chunked-prefill", bottleneck="compute", field="serve.chunk_tokens",
           what="long prompts read in pieces between decoding steps"),
    Method(
        name="disaggregated-prefill", bottleneck="compute", field="serve.prefill_replicas",
        what="prompts read on machines of their own"),
    Method(
        name="speculation", bottleneck="memory", field="serve.drafted_tokens",
        what="several tokens drafted and checked in one pass"),
    Method(
        name="grouped-query-attention", bottleneck="memory", field="model.kv_heads",
        what="fewer key and value heads than query heads"),
    Method(name="sliding-window", bottleneck="memory", field="model.attention",
           what="each token looks at a window of the last ones"),
    Method(
        name="latent-attention", bottleneck="memory", field="model.attention",
        what="keys and values compressed to a latent (MLA)"),
    Method(
        name="int8-weights", bottleneck="memory", field="serve.weight_precision",
        what="weights in 8 bits while decoding"),
    Method(
        name="int8-matmuls", bottleneck="compute", field="serve.weight_precision",
        what="weights and activations in 8 bits, multiplied as such"),
    Method(
        name="int4-weights", bottleneck="memory", field="serve.weight_precision",
        what="weights in 4 bits while decoding"),
    Method(name="fp8-weights", bottleneck="memory", field="serve.weight_precision",
           what="weights in 8-bit floating point while serving"),
    Method(name="quantised-cache", bottleneck="memory", field="serve.cache_precision",
           what="keys and values in 8 bits"),
)

_BUYING = (
    Method(name="newer-chip", bottleneck="compute", field="machine.accelerator",
           what="the same maker's accelerators of a later year"),
    Method(name="other-accelerator", bottleneck="money", field="machine.accelerator",
           what="another maker's, an older or a consumer's accelerator"),
    Method(name="fewer-accelerators", bottleneck="money", field="machine.nodes",
           what="a smaller machine for longer: less of it waits for the network"),
    Method(name="spot", bottleneck="money", field="place.contract",
           what="interruptible machines, made safe by exact resume"),
    Method(name="reserved", bottleneck="money", field="place.contract",
           what="machines bound for a year or three, worth it where they are kept busy"),
    Method(name="cheapest-provider", bottleneck="money", field="place.usd_per_accelerator_hour",
           what="the same accelerator at the cheapest on-demand price of the book"),
    Method(name="power-cap", bottleneck="energy", field="recipe.power_limit",
           what="a lower power limit: less energy for a little more time"),
    Method(name="place", bottleneck="carbon", field="place.zone",
           what="the same kilowatt-hour where the grid is cleaner"),
    Method(name="better-building", bottleneck="energy", field="place.pue",
           what="a building that needs less energy for its cooling"),
    Method(name="clean-hours", bottleneck="carbon", field="place.hours",
           what="only the hours of the day in which the grid is cleanest"),
)

_INSTEAD = (
    Method(name="lora", bottleneck="compute",
           what="an open model of this size fine-tuned on little text (LoRA) instead of a new one"),
    Method(name="prune-and-distil", bottleneck="compute",
           what="a larger open model pruned to this size and distilled from itself"),
    Method(name="analog-in-memory", bottleneck="energy",
           what="matmuls as currents in the memory that holds the weights"),
    Method(name="energy-based-model", bottleneck="compute",
           what="a model that scores whole answers by an energy, in the transformer's place"),
)

CATALOGUE: tuple[Method, ...] = _TRAINING + _SERVING + _BUYING + _INSTEAD
"""All methods, in the order that they are shown in."""
