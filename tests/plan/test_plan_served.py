from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.cli.main import main
from curbcut.errors import InputError
from curbcut.physics import serving
from curbcut.plan.served import under_load, with_service
from curbcut.plan.serving import engine, forecast_session
from curbcut.spec.account import Account
from plan.plan_samples import LARGE
from tiny import tiny_run


def served(**job):
    return under_load(replace(LARGE, serve=replace(LARGE.serve, **{"max_batch": 64} | job)))


def value(account, kind, section="seconds"):
    return getattr(account, section)[kind].value


def speed(account, kind):
    return value(account, kind, "tokens_per_second")


@settings(max_examples=25)
@given(st.floats(0.1, 40), st.floats(1, 3))
def test_more_requests_a_second_are_answered_no_sooner(rate, factor):
    few, many = served(requests_per_second=rate), served(requests_per_second=rate * factor)
    for kind in ("ttft", "tpot"):
        if many.seconds[kind].known:
            assert value(few, kind) <= value(many, kind) * (1 + 1e-6)
    assert speed(few, "most") == speed(many, "most")


def test_what_is_asked_for_is_answered_where_the_server_keeps_up():
    found = served(requests_per_second=5.0, output_tokens=100)
    assert speed(found, "answers") == 500 and speed(found, "most") > 500
    assert found.seconds["ttft"].low < value(found, "ttft") < found.seconds["ttft"].high


def test_a_server_asked_for_more_than_it_gives_says_so():
    found = served(requests_per_second=1e5)
    assert not found.seconds["ttft"].known and "queue without end" in found.seconds["tpot"].source
    assert speed(found, "answers") < 1e5 * LARGE.serve.output_tokens


def test_an_idle_server_answers_as_one_request_alone():
    assert value(served(requests_per_second=1e-6), "tpot") == pytest.approx(
        value(served(requests_per_second=1e-6, max_batch=1), "tpot"))


def test_tighter_objectives_leave_fewer_tokens_and_none_that_cannot_be_met():
    loose, tight = (speed(served(tpot_seconds=limit), "most") for limit in (1.0, 0.002))
    assert tight < loose
    never = served(ttft_seconds=1e-6).tokens_per_second["most"]
    assert not never.known and "not even one request" in never.source


def test_replicas_and_workers_of_their_own_for_prefill_give_more():
    one, four = served(), served(replicas=4)
    assert speed(four, "most") == pytest.approx(4 * speed(one, "most"), rel=0.01)
    busy = {"requests_per_second": 20.0, "prompt_tokens": 4000, "replicas": 2}
    mixed, split = served(**busy), served(**busy, prefill_replicas=4)
    assert value(split, "tpot") < value(mixed, "tpot")


def test_what_serves_holds_what_the_forecast_of_the_server_says():
    run = replace(LARGE, serve=replace(LARGE.serve, tensor_parallel=2))
    assert value(under_load(run), "server", "memory_bytes") == pytest.approx(
        forecast_session(run).memory_bytes["peak"].value)
    full = served(max_batch=10**6).memory_bytes["server"]
    assert full.source.endswith("does not fit")
    assert served().memory_bytes["server"].source.endswith(": fits")


def test_no_rate_no_latency_but_memory():
    run = replace(LARGE, machine=replace(LARGE.machine, peak_flops={}))
    found = under_load(run)
    assert not any(one.known for one in (*found.seconds.values(),
                                         *found.tokens_per_second.values()))
    assert value(found, "server", "memory_bytes") > 0


def test_the_plan_keeps_its_lines():
    plan = Account(seconds={"total": forecast_session(LARGE).seconds["tpot"]})
    found = with_service(plan, LARGE)
    assert set(found.seconds) == {"total", "ttft", "tpot"}
    assert set(found.tokens_per_second) == {"answers", "most"}


def test_a_cpu_is_priced_with_its_engine_beside_the_pass():
    found = serving.server(tiny_run().model, tiny_run().machine, "fp32")
    assert value(under_load(tiny_run()), "tpot") > found.constants.step_seconds > 1e-4


@pytest.mark.parametrize(("job", "mend"), [
    ({"tensor_parallel": 3}, "nearest: 2 or 4"),
    ({"tensor_parallel": 4, "expert_parallel": 3}, "nearest: 2 or 4"),
    ({"prefix_hit_rate": 1.0}, "nearest: 0.99"), ({"acceptance": 1.5}, "nearest: 1")])
def test_a_refusal_names_the_nearest_that_can_be(job, mend):
    run = replace(LARGE, serve=replace(LARGE.serve, **job))
    with pytest.raises(InputError) as caught:
        engine(run)
    name = list(job)[-1]
    assert f"{name} = {job[name]:g}" in str(caught.value) and mend in str(caught.value.mend)


@pytest.fixture
def plan(tmp_path, capsys):
    def planned(*serve, options=()):
        path = tmp_path / "run.toml"
        path.write_text('[model]\npreset = "curb-4m"\n[train]\ntokens = "1M"\n'
                        '[machine]\nname = "8xH100"\n' + "\n".join(("[serve]",) * bool(serve)
                                                                  + serve))
        code = main(["plan", str(path), "--runs", str(tmp_path / "runs"), *options])
        return code, capsys.readouterr()
    return planned


def test_the_plan_of_a_run_that_says_how_it_is_served_prints_it(plan):
    code, shown = plan("replicas = 4", "requests_per_second = 10")
    lines = [line for line in shown.out.splitlines() if line.split()]
    found = {name: line for line in lines for name in (
        "ttft", "tpot", "asked to serve", "most to serve", "to serve")
        if name in re.split(r"\s{2,}", line.strip())[:2]}
    assert code == 0 and len(found) == 5
    assert "1,280 tok/s" in found["asked to serve"] and " us" in found["tpot"]


def test_the_plan_of_another_run_says_nothing_of_serving(plan):
    code, shown = plan(options=("--json",))
    assert code == 0 and "ttft" not in json.loads(shown.out)["forecast"]["seconds"]


@pytest.mark.parametrize(("line", "said"), [
    ("tensor_parallel = -1", "serve.tensor_parallel: -1"), ("replicas = 0", "serve.replicas: 0"),
    ('weight_precision = "fp3"', "'fp3'"), ("prefill_replicas = -2", "prefill_replicas: -2"),
    ("prefix_hit_rate = nan", "prefix_hit_rate"), ("prefix_hit_rate = 1.0", "prefix_hit_rate = 1"),
    ("acceptance = 2.0", "acceptance"), ("chunk_tokens = 2.5", "chunk_tokens: 2.5"),
    ("drafts = 1", "unknown key 'drafts'"), ("replicas = 9", "9 accelerators"),
    ("tensor_parallel = 3", "tensor_parallel = 3")])
def test_nonsense_is_refused_once(plan, line, said):
    code, shown = plan(line)
    assert code == 2 and not shown.out
    assert shown.err.count("curbcut:") == 1 and said in shown.err and "help:" in shown.err
