import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.serve.bench.client import Answer
from curbcut.serve.bench.result import Objective, Sample, result, sample, spread
from curbcut.spec.estimate import measured


def answered(*events, status=200, error="", began=10.0, ended=12.0):
    """An answer whose events came at given times."""
    parts = [(when, b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode())
              + b"\n\n") for when, event in events]
    return Answer(began, ended, status, error, parts)


def text(said, **more):
    return {"choices": [{"text": said}]} | more


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5,
                                  "prompt_tokens_details": {"cached_tokens": 4}}}


def test_what_one_request_met():
    one = sample(answered((10.5, text("")), (11.0, text("a")), (11.5, text("b")),
                          (11.8, text("c")), (11.9, USAGE), (11.9, b"[DONE]")), 9.5, 7, None)
    assert (one.ttft, one.late, one.seconds) == (1.5, 0.5, 2.5)
    assert one.tpot == pytest.approx(0.8 / 4) and one.gaps == pytest.approx((0.5, 0.3))
    assert (one.prompt_tokens, one.cached_tokens, one.answer_tokens) == (9, 4, 5)
    assert one.counted == "usage"


def test_where_the_server_counts_nothing():
    events = [(11.0, {"choices": [{"delta": {"content": "one two"}}]}),
              (11.5, {"choices": [{"delta": {"reasoning_content": " three"}}]}), (12, b"[DONE]")]
    one = sample(answered(*events), 10.0, 7, lambda said: len(said.split()))
    assert (one.counted, one.answer_tokens, one.prompt_tokens) == ("tokenizer", 3, 7)
    one = sample(answered(*events), 10.0, 7, None)
    assert (one.counted, one.answer_tokens) == ("chunks", 2)


@pytest.mark.parametrize(("answer", "said"), [
    (answered(error="lost"), "lost"),
    (answered((11, {"error": {"message": "too much"}}), status=200), "too much"),
    (Answer(1, 2, 429, "", [(2.0, b'{"error": {"message": "busy"}}')]), "429: busy"),
    (Answer(1, 2, 500, "", [(2.0, b"<html>")]), "500: no reason given"),
    (answered((11, b"[DONE]")), "without text"), (answered(), "without an end")])
def test_what_is_no_answer_says_why(answer, said):
    assert said in sample(answer, 1.0, 7, None).error


def one_sample(due=0.0, ended=1.0, ttft=0.2, tpot=0.1, **more):
    return Sample(due, 0.0, ended, **({"prompt_tokens": 10, "answer_tokens": 5, "ttft": ttft,
                                       "tpot": tpot} | more))


def test_what_all_requests_say_together():
    found = result("2 users", [one_sample(0, 2), one_sample(0, 1, ttft=0.9), one_sample(3, 4),
                               Sample(3, 0.0, 4, error="429: busy")], Objective(ttft=0.5),
                   measured(60.0, "a sensor"))
    assert (found.requests, found.errors, found.seconds) == (3, {"429: busy": 1}, 4)
    assert found.busy_seconds == 3 and found.in_flight == 5 / 4
    assert (found.requests_per_second, found.goodput) == (0.75, 0.5)
    assert (found.input_per_second, found.output_per_second) == (30 / 4, 15 / 4)
    assert found.joules_per_token.value == 4 and found.good == 2


def test_without_objective_no_goodput_and_without_sensor_no_joules():
    found = result("1 user", [one_sample()], Objective())
    assert found.goodput is None and found.joules_per_token.value is None
    nothing = result("1 user", [Sample(0, 0, 1, error="x")], Objective(tpot=1))
    assert nothing.ttft is None and nothing.good == 0
    assert nothing.joules_per_token.value is None


def test_an_answer_of_one_token_meets_any_objective_of_later_ones():
    assert Objective(tpot=0.01).met(one_sample(tpot=None))
    assert not Objective(tpot=0.01).met(one_sample())
    assert not Objective(tpot=9).met(Sample(0, 0, 1, error="x"))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_library(values):
    found = spread(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for percent, value in found.percentiles.items():
        assert value == pytest.approx(cuts[percent - 1], abs=1e-9)
    assert found.most == max(values)
