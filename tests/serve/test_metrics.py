import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.serve.engine.interface import Stats
from curbcut.serve.metrics import BOUNDS, COUNTERS, GAUGES, Metrics
from exposed import parsed


def test_each_figure_is_a_field_and_has_one_name():
    known = {field.name for field in fields(Stats)}
    names = [name for name, *_ in (*COUNTERS, *GAUGES)]
    assert {source for _, source, *_ in (*COUNTERS, *GAUGES)} <= known
    assert len(set(names)) == len(names)


def test_counts_of_all_models():
    stats = {"a": Stats(requests=3, answer_tokens=20, running=2, pages=10, used_pages=4),
             "b": Stats(requests=1, prefill_seconds=0.25)}
    found = parsed(Metrics().text(stats))
    assert found["curbcut_requests_total", ("model", "a")] == 3
    assert found["curbcut_prefill_seconds_total", ("model", "b")] == 0.25
    assert found["curbcut_running_requests", ("model", "a")] == 2
    assert found["vllm:generation_tokens_total", ("model_name", "a")] == 20
    assert found["vllm:kv_cache_usage_perc", ("model_name", "a")] == 0.4
    assert ("vllm:kv_cache_usage_perc", ("model_name", "b")) not in found


def test_latencies_fall_into_their_buckets():
    metrics = Metrics()
    metrics.ended("a", finish="stop", seconds=1.1, ttft_seconds=0.1, answer_tokens=11)
    metrics.ended("a", finish="length", seconds=400, ttft_seconds=0.0005, answer_tokens=1)
    metrics.ended("a", finish="cancelled", seconds=0.3)
    found = parsed(metrics.text({}))
    label = ("model", "a")
    assert found["curbcut_ttft_seconds_count", label] == 2
    assert found["curbcut_ttft_seconds_bucket", ("le", "0.001"), label] == 1
    assert found["curbcut_ttft_seconds_bucket", ("le", "0.1"), label] == 2
    assert found["curbcut_tpot_seconds_sum", label] == pytest.approx(0.1)
    assert found["curbcut_request_seconds_bucket", ("le", "300.0"), label] == 2
    assert found["curbcut_request_seconds_bucket", ("le", "+Inf"), label] == 3
    assert found["curbcut_answers_total", ("finish", "cancelled"), label] == 1
    assert found["vllm:request_success_total", ("finished_reason", "stop"),
                 ("model_name", "a")] == 1


@given(st.lists(st.floats(0, 1000), max_size=40))
def test_buckets_never_fall_and_end_at_the_count(times):
    metrics = Metrics()
    for seconds in times:
        metrics.ended("a", finish="stop", seconds=seconds)
    found = parsed(metrics.text({}))
    counts = [found.get(("curbcut_request_seconds_bucket", ("le", repr(bound)), ("model", "a")), 0)
              for bound in (*BOUNDS, math.inf)][:-1]
    assert counts == [sum(one <= bound for one in times) for bound in BOUNDS]
    assert found.get(("curbcut_request_seconds_count", ("model", "a")), 0) == len(times)


def test_energy_is_there_only_where_a_sensor_is():
    assert "joules" not in Metrics().text({"a": Stats()})
    assert "joules" not in Metrics(lambda: {"device": None}).text({"a": Stats()})
    found = parsed(Metrics(lambda: {"device": 2.5, "node": None}).text({}))
    assert found == {("curbcut_energy_joules_total", ("boundary", "device")): 2.5}


@given(st.text(max_size=20).filter(lambda name: "\r" not in name))
def test_a_name_can_be_anything(name):
    metrics = Metrics()
    text = metrics.text({name: Stats(requests=7)})
    assert "7" in text and text.count("\n") == Metrics().text({"a": Stats()}).count("\n")
