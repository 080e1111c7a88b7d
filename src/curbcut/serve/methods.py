"""The methods that this room runs: name in `curbcut methods` to the code that runs it."""

from __future__ import annotations

from collections.abc import Mapping

_ENGINE = "curbcut.serve.engine"

RUNS: Mapping[str, str] = {
    "kv-cache": f"{_ENGINE}.cache:PagedCache",
    "paged-kv-cache": f"{_ENGINE}.pages:Pages",
    "continuous-batching": f"{_ENGINE}.local:LocalEngine",
    "prefix-cache": f"{_ENGINE}.pages:Pages",
    "chunked-prefill": f"{_ENGINE}.scheduler:Scheduler",
    "speculation": f"{_ENGINE}.speculation:Speculator",
    "quantised-cache": f"{_ENGINE}.byte_cache:ByteCache",
    "int8-weights": f"{_ENGINE}.quantised:Int8",
    "int8-matmuls": f"{_ENGINE}.quantised:Int8Dynamic",
    "int4-weights": f"{_ENGINE}.quantised:Int4",
    **dict.fromkeys(("fp8-weights", "disaggregated-prefill"), f"{_ENGINE}.vllm:VllmEngine"),
}
