"""The methods that this room runs: name in `curbcut methods` to the code that runs it."""

from __future__ import annotations

from collections.abc import Mapping

RUNS: Mapping[str, str] = {
    "kv-cache": "curbcut.serve.engine.cache:PagedCache",
    "paged-kv-cache": "curbcut.serve.engine.pages:Pages",
    "continuous-batching": "curbcut.serve.engine.local:LocalEngine",
}
