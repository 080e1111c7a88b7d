"""Which function prices each method. `curbcut methods` shows what stands here."""

from __future__ import annotations

from collections.abc import Mapping

_STEP, _MEMORY = "curbcut.physics.step", "curbcut.physics.memory"
_OPERATIONS, _PIPELINE = "curbcut.physics.operations", "curbcut.physics.pipeline"
_LEVERS, _FACTOR = "curbcut.plan.levers", "curbcut.plan.levers.case:published"
_CACHE, _TRAFFIC = "curbcut.physics.cache", "curbcut.physics.serving_traffic"

PRICED: Mapping[str, str] = {
    "bf16-master-weights": f"{_MEMORY}:state_bytes",
    **dict.fromkeys(("fp8", "mxfp8", "nvfp4", "tf32", "fp16"), f"{_STEP}:matmul_seconds"),
    "compile": f"{_STEP}:parts",
    "math-attention": f"{_STEP}:attention_seconds",
    "fused-attention": f"{_STEP}:attention_seconds",
    "fused-optimiser": "curbcut.physics.time:step_groups",
    "muon": "curbcut.physics.flops:orthogonalisation_flops",
    "adamw8": f"{_MEMORY}:moment_bytes",
    "adafactor": f"{_MEMORY}:moment_bytes",
    "chunked-loss": f"{_MEMORY}:logits",
    "gradient-accumulation": f"{_STEP}:micro_batches",
    "recompute": "curbcut.physics.flops:hardware_flops_per_token",
    "selective-recompute": "curbcut.physics.flops:hardware_flops_per_token",
    "offload": f"{_STEP}:parts",
    "activation-offload": f"{_STEP}:parts",
    "data-parallel": f"{_OPERATIONS}:collectives",
    "diloco": f"{_OPERATIONS}:collectives",
    "sharded-data-parallel": f"{_MEMORY}:stage",
    "zero-1": f"{_MEMORY}:stage",
    "zero-2": f"{_MEMORY}:stage",
    "hybrid-sharding": f"{_OPERATIONS}:collectives",
    "tensor-parallel": f"{_OPERATIONS}:layer_matmuls",
    "sequence-parallel": f"{_STEP}:elementwise_seconds",
    "pipeline-parallel": f"{_PIPELINE}:slowest",
    **dict.fromkeys(("interleaved-pipeline", "zero-bubble-pipeline", "dualpipev"),
                    f"{_PIPELINE}:bubble_share"),
    "context-parallel": f"{_OPERATIONS}:collectives",
    "ulysses": f"{_OPERATIONS}:collectives",
    "expert-parallel": f"{_OPERATIONS}:collectives",
    "sparse-experts": f"{_OPERATIONS}:layer_matmuls",
    "exact-resume": "curbcut.plan.forecast:checkpoint_seconds",
    "grouped-query-attention": "curbcut.physics.flops:forward_flops",
    "sliding-window": "curbcut.physics.flops:context",
    "latent-attention": f"{_CACHE}:elements_per_token",
    "kv-cache": f"{_CACHE}:cache_bytes",
    "paged-kv-cache": f"{_CACHE}:cache_bytes",
    "quantised-cache": f"{_CACHE}:cache_bytes",
    **dict.fromkeys(("int8-weights", "int4-weights", "fp8-weights"), f"{_CACHE}:weight_bytes"),
    "continuous-batching": f"{_TRAFFIC}:together",
    "prefix-cache": f"{_TRAFFIC}:together",
    "chunked-prefill": f"{_TRAFFIC}:together",
    "disaggregated-prefill": f"{_TRAFFIC}:apart",
    "speculation": "curbcut.physics.serving_passes:accepted_tokens",
    "place": "curbcut.accounts.carbon:intensity",
    "better-building": "curbcut.accounts.energy:pue",
    **dict.fromkeys(("data-quality", "growth", "data-reduction"), _FACTOR),
    **dict.fromkeys(("hyperparameter-transfer", "early-stopping", "energy-based-model",
                     "prune-and-distil"), _FACTOR),
    "tuned-learning-rate": f"{_LEVERS}.algorithms:tuned_learning_rate",
    "wsd-schedule": f"{_LEVERS}.algorithms:wsd",
    "partitioning": "curbcut.plan.recipes:fastest",
    "checkpoint-interval": "curbcut.physics.goodput:daly",
    "power-cap": "curbcut.physics.power_cap:capped",
    **dict.fromkeys(("newer-chip", "other-accelerator", "fewer-accelerators"),
                    f"{_LEVERS}.hardware:on"),
    **dict.fromkeys(("spot", "reserved", "cheapest-provider"), "curbcut.accounts.money:write"),
    "clean-hours": f"{_LEVERS}.buying:clean_hours",
    "lora": f"{_LEVERS}.instead:lora",
    "analog-in-memory": f"{_LEVERS}.instead:analog",
}
"""Name in `spec.methods.CATALOGUE` -> "module:function"."""
