"""The methods that training runs, by the function that runs each; `curbcut methods` joins them.

Imports no torch: the table is printed on machines that only plan.
"""

from __future__ import annotations

from collections.abc import Mapping

RUNS: Mapping[str, str] = {
    "bf16-master-weights": "curbcut.train.precision:split_weights",
    "tf32": "curbcut.train.precision:split_weights",
    "fp8": "curbcut.train.parallel.fp8:apply",
    "compile": "curbcut.train.parallel.compiled:apply",
    "math-attention": "curbcut.model.attention:causal_attention",
    "fused-attention": "curbcut.model.decoder:SelfAttention",
    "fused-optimiser": "curbcut.train.optimiser:adamw",
    "muon": "curbcut.train.muon:Muon",
    "adamw8": "curbcut.train.adamw8:AdamW8",
    "adafactor": "curbcut.train.adafactor:Adafactor",
    "hyperparameter-transfer": "curbcut.train.transfer:rate_factor",
    "chunked-loss": "curbcut.model.loss:head_loss",
    "recompute": "curbcut.train.parallel.recompute:apply",
    "selective-recompute": "curbcut.model.attention:lean_causal_attention",
    "activation-offload": "curbcut.train.parallel.offload:apply",
    "offload": "curbcut.train.precision:split_weights",
    "data-parallel": "curbcut.train.parallel.replicated:weights",
    "sharded-data-parallel": "curbcut.train.parallel.sharded:apply",
    "hybrid-sharding": "curbcut.train.parallel.sharded:apply",
    "zero-1": "curbcut.train.parallel.zero1:weights",
    "zero-2": "curbcut.train.parallel.sharded:apply",
    "sparse-experts": "curbcut.model.experts:SparseFeedForward",
    "expert-parallel": "curbcut.train.parallel.experts:apply",
    "tensor-parallel": "curbcut.train.parallel.tensor:apply",
    "sequence-parallel": "curbcut.train.parallel.tensor:apply",
    "pipeline-parallel": "curbcut.train.parallel.pipeline:apply",
    "interleaved-pipeline": "curbcut.train.parallel.schedules:order",
    "zero-bubble-pipeline": "curbcut.train.parallel.schedules:order",
    "dualpipev": "curbcut.train.parallel.schedules:order",
    "context-parallel": "curbcut.train.parallel.ring:ring_attention",
    "ulysses": "curbcut.train.parallel.ulysses:ulysses_attention",
    "gradient-accumulation": "curbcut.train.passes:Accumulated",
    "wsd-schedule": "curbcut.train.schedule:learning_rate",
    "cosine-schedule": "curbcut.train.schedule:learning_rate",
    "memory-mapped-tokens": "curbcut.data.batches:Batches",
    "exact-resume": "curbcut.train.start:resume",
    "checkpoint-interval": "curbcut.train.checkpoint.interval:Rhythm",
    "asynchronous-checkpoints": "curbcut.train.checkpoint.saving:Saver",
    "relaunch": "curbcut.launch.local:train",
    "weight-average": "curbcut.train.averages:Averages",
    "z-loss": "curbcut.model.loss:head_loss",
    "balance-loss": "curbcut.model.experts:Router.balanced",
    "grouped-query-attention": "curbcut.model.decoder:SelfAttention",
}
"""Name in `spec.methods.CATALOGUE` -> "module:function"."""
