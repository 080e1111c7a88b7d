"""The methods that training runs, by the function that runs each; `curbcut methods` joins them.

Imports no torch: the table is printed on machines that only plan.
"""

from __future__ import annotations

from collections.abc import Mapping

RUNS: Mapping[str, str] = {
    "bf16-master-weights": "curbcut.train.precision:split_weights",
    "tf32": "curbcut.train.precision:split_weights",
    "compile": "curbcut.train.parallel.compiled:apply",
    "math-attention": "curbcut.model.attention:causal_attention",
    "fused-attention": "curbcut.model.decoder:SelfAttention",
    "fused-optimiser": "curbcut.train.optimiser:adamw",
    "muon": "curbcut.train.optimiser:muon",
    "chunked-loss": "curbcut.model.loss:head_loss",
    "gradient-accumulation": "curbcut.train.passes:Accumulated",
    "wsd-schedule": "curbcut.train.schedule:learning_rate",
    "cosine-schedule": "curbcut.train.schedule:learning_rate",
    "memory-mapped-tokens": "curbcut.data.batches:Batches",
    "exact-resume": "curbcut.train.start:resume",
    "grouped-query-attention": "curbcut.model.decoder:SelfAttention",
}
"""Name in `spec.methods.CATALOGUE` -> "module:function"."""
