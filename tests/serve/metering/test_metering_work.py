"""Who takes how much of a step."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.physics import serving_passes, serving_work
from curbcut.plan import machines
from curbcut.serve.engine.interface import StepRecord
from curbcut.serve.metering import work
from tiny import tiny_machine, tiny_run

RUN = tiny_run(model={"width": 512, "heads": 8, "kv_heads": 8, "head_size": 64, "ffn": 2048,
                      "layers": 8, "vocab": 32000, "context_tokens": 4096})
EXPERTS = tiny_run(model={"experts": 8, "experts_per_token": 2, "expert_ffn": 64})
ON_GPU = replace(RUN, machine=machines.build(machines.from_facts("1xH100")),
                 recipe=replace(RUN.recipe, precision="bf16"))
FOUND = work.of_run(RUN)
records = st.builds(
    lambda prefill, decode: StepRecord(0.01, prefill, decode),
    st.dictionaries(st.integers(1, 20), st.integers(1, 256), max_size=6),
    st.dictionaries(st.integers(21, 40), st.integers(0, 4), max_size=8)).filter(
    lambda record: record.prefill or record.decode)


@given(records, st.dictionaries(st.integers(1, 40), st.integers(0, 4000)))
def test_shares_are_of_one_whole(record, seen):
    for one in (FOUND, work.plain(), work.of_run(EXPERTS)):
        shares = one.shares(record, seen)
        assert set(shares) == {*record.prefill, *record.decode}
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0


@given(st.integers(1, 8), st.integers(0, 3000))
def test_equals_share_equally(answers, seen):
    record = StepRecord(0.01, {}, dict.fromkeys(range(answers), 1))
    shares = FOUND.shares(record, dict.fromkeys(range(answers), seen))
    assert list(shares.values()) == pytest.approx([1 / answers] * answers)


def test_a_prompt_pays_for_its_work_and_a_long_context_for_its_reading():
    mixed = FOUND.shares(StepRecord(0.1, {1: 200}, {2: 1, 3: 1}), {2: 10, 3: 4000})
    assert mixed[1] > 0.5 and mixed[3] > mixed[2]
    later = FOUND.shares(StepRecord(0.1, {1: 100, 2: 100}, {}), {2: 3000})
    assert later[2] > later[1]


def test_company_makes_a_request_cheaper_and_never_dearer():
    alone = FOUND.shares(StepRecord(0.1, {}, {1: 1}), {1: 50})[1]
    among = FOUND.shares(StepRecord(0.1, {}, dict.fromkeys(range(1, 9), 1)), {1: 50})[1]
    assert alone == 1 and among < 0.2


def test_parts_are_those_of_the_physics():
    found = work.serving.server(RUN.model, RUN.machine, "fp32", work.engine(RUN))
    one = FOUND.seconds
    whole = serving_work.pass_work(
        RUN.model, found.engine, found.chip, found.constants.elementwise_bytes, tokens=64,
        keys=100, sequences=1, eager=True)
    bytes_ = whole.bytes_ - 64 * float(serving_passes.elements(RUN.model, found.engine, 1)) * (
        found.constants.elementwise_bytes) - serving_passes.sequence_bytes(
        RUN.model, found.engine, 100)
    streaming = found.chip.bytes_per_second * found.constants.bandwidth_share
    started = found.constants.step_seconds + serving_passes.kernel_count(RUN.model) * (
        found.constants.kernel_seconds)
    assert one.every == pytest.approx(float(bytes_) / streaming + started, rel=1e-6)
    assert one.row > found.constants.row_seconds > 0
    assert one.experts == 0 and one.token > one.score > 0 and one.position > 0
    assert work.of_run(EXPERTS).seconds.experts > 0


def test_watts_follow_the_work_on_a_gpu_and_are_constant_on_a_cpu():
    gpu = work.of_run(ON_GPU).watts
    busy = gpu.during(StepRecord(0.01, {1: 8000}, {}))
    slack = gpu.during(StepRecord(1.0, {}, {1: 1}))
    rated = ON_GPU.machine.watts["max"]
    assert 0.05 * rated < slack < busy <= rated
    assert FOUND.watts.during(StepRecord(1.0, {}, {1: 1})) == FOUND.watts.during(
        StepRecord(0.01, {1: 256}, {})) == 10.0


def test_a_machine_without_known_rates_or_power_has_shares_all_the_same():
    bare = work.of_run(tiny_run(machine=tiny_machine(measured_flops={}, watts={}, cores=0)))
    assert bare.watts is None
    assert bare.shares(StepRecord(0.1, {1: 64}, {2: 1}), {})[1] == pytest.approx(96 / 129)


def test_an_answer_that_goes_on_pays_for_its_row():
    shares = FOUND.shares(StepRecord(0.01, {1: 1}, {2: 1}), {1: 50, 2: 50})
    assert shares[2] > shares[1]
