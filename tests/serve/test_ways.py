from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from curbcut.errors import InputError
from curbcut.serve.ways import RUN, refuse_unknown_ways
from curbcut.spec.nouns import ServeJob

OTHERS = {"weight_precision": "nvfp4", "cache_precision": "fp8"}


def test_what_runs_is_served():
    refuse_unknown_ways(ServeJob(max_batch=4, ttft_seconds=2.0, prefix_hit_rate=0.5, replicas=2,
                                 chunk_tokens=64, drafted_tokens=3, weight_precision="int8-dynamic",
                                 cache_precision="int8"))


@pytest.mark.parametrize("name", RUN["own"])
def test_each_way_that_only_plans_know_is_refused_by_name(name):
    job = replace(ServeJob(), **{name: OTHERS.get(name, 2)})
    with pytest.raises(InputError) as refused:
        refuse_unknown_ways(job)
    assert f"serve.{name}" in str(refused.value)


def test_another_engine_is_named_where_it_runs():
    with pytest.raises(InputError, match="serve it with vLLM"):
        refuse_unknown_ways(ServeJob(weight_precision="fp8"))
    with pytest.raises(InputError) as refused:
        refuse_unknown_ways(ServeJob(weight_precision="nvfp4"))
    assert "vLLM" not in str(refused.value)
    refuse_unknown_ways(ServeJob(tensor_parallel=2, prefill_replicas=1), "vllm")
    with pytest.raises(InputError, match="own engine"):
        refuse_unknown_ways(ServeJob(weight_precision="int8"), "vllm")


def test_values_are_ones_that_a_job_can_have():
    hints = get_type_hints(ServeJob)
    for values in RUN.values():
        for name, known in values.items():
            if get_args(hints[name]) and isinstance(known[0], str):
                assert set(known) <= set(get_args(hints[name]))


def test_weights_are_kinds_that_the_engine_has():
    matrices = pytest.importorskip("curbcut.serve.engine.matrices")
    assert set(RUN["own"]["weight_precision"]) <= set(matrices.KINDS)
