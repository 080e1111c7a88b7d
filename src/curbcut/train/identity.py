"""Which run a checkpoint is of: what decides its weights, however the work is laid out."""

from __future__ import annotations

import hashlib
import json

from curbcut.spec import Run
from curbcut.spec import codec as spec_codec

LAYOUT = frozenset((
    "stack", "stack_version", "dp_replicate", "dp_shard", "shard", "tp", "sequence_parallel", "pp",
    "pipeline", "virtual_stages", "cp", "context", "ep", "micro_batch", "recompute", "offload",
    "attention", "chunked_loss", "compile", "power_limit", "checkpoint_every_steps",
    "checkpoint_interval", "checkpoint_async", "keep_checkpoints", "evaluate_every_steps"))
"""Fields of a recipe that say how a step is computed, not which step it is: a checkpoint written
under some of them goes on under others."""


def identity(run: Run) -> str:
    """Hash of what decides a run's weights on any layout: model, optimisation, text, seed.

    Neither the machine nor how the work is spread over its ranks is part of it, so a run may go on
    on another number of ranks or by another method.
    """
    plain = spec_codec.plain(run)
    kept = {table: plain[table] for table in ("model", "train", "seed")}
    kept["recipe"] = {name: value for name, value in plain["recipe"].items()
                      if name not in LAYOUT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
