import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callers import caller
from curbcut.ledger.access import Allowance
from curbcut.serve.gateway.quotas import Quotas, may_ask, span
from curbcut.serve.gateway.refusal import Refused

KEY = "key:id-ann"
PROJECT = "project:default"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def ann(**limits):
    return caller("ann", allowances={KEY: Allowance(**limits)})


def refused(act, *given):
    with pytest.raises(Refused) as caught:
        act(*given)
    assert caught.value.status == 429 and caught.value.code == "rate_limit_exceeded"
    return caught.value


def test_a_minute_s_requests_and_then_one_each_share_of_a_minute():
    clock, who = Clock(), ann(requests_a_minute=3)
    quotas = Quotas(clock)
    for _ in range(3):
        quotas.request(who)
    assert refused(quotas.request, who).retry_after_seconds == 20
    clock.now += 19.9
    refused(quotas.request, who)
    clock.now += 0.2
    quotas.request(who)
    refused(quotas.request, who)


@given(st.integers(1, 100), st.lists(st.floats(0, 30), max_size=200))
def test_no_stretch_of_time_has_more_than_its_share_and_one_bucket(limit, gaps):
    clock, who = Clock(), ann(requests_a_minute=limit)
    quotas, taken = Quotas(clock), []
    for gap in gaps:
        clock.now += gap
        try:
            quotas.request(who)
        except Refused as error:
            clock.now += 0.0
            assert error.retry_after_seconds >= 1
        else:
            taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = limit + (taken[last] - taken[first]) * limit / 60
            assert last - first + 1 <= most + 1e-6


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 60), st.integers(1, 5000),
                                                st.floats(0, 1)), max_size=60))
def test_tokens_follow_the_mean_whatever_the_sizes(limit, asked):
    clock, who = Clock(), ann(tokens_a_minute=limit)
    quotas, used, largest, begun = Quotas(clock), 0, 0, clock.now
    for gap, most, share in asked:
        clock.now += gap
        try:
            quotas.begin(who, most)
        except Refused:
            continue
        took = math.floor(most * share)
        quotas.end(who, most, took)
        used, largest = used + took, max(largest, most)
        assert used <= limit + (clock.now - begun) * limit / 60 + largest + 1e-6


def test_a_request_beyond_a_minute_waits_for_a_full_bucket_and_leaves_it_in_debt():
    clock, who = Clock(), ann(tokens_a_minute=100)
    quotas = Quotas(clock)
    quotas.begin(who, 250)
    assert quotas.headers(who)["x-ratelimit-remaining-tokens"] == "0"
    quotas.end(who, 250, 250)
    assert refused(quotas.begin, who, 1).retry_after_seconds == 91  # 150 of debt, and the 1
    clock.now += 149
    refused(quotas.begin, who, 250)
    clock.now += 1
    quotas.begin(who, 100)


def test_what_was_not_used_comes_back_and_never_more_than_the_limit():
    quotas, who = Quotas(Clock()), ann(tokens_a_minute=100)
    quotas.begin(who, 100)
    refused(quotas.begin, who, 50)
    quotas.end(who, 100, 10)
    quotas.begin(who, 90)
    quotas.end(who, 90, 0)
    quotas.end(who, 90, 0)
    assert quotas.headers(who)["x-ratelimit-remaining-tokens"] == "100"


def test_of_several_scopes_all_are_asked_and_none_loses_to_a_refusal():
    clock = Clock()
    both = {PROJECT: Allowance(requests_a_minute=10, concurrency=2), KEY: Allowance(
        requests_a_minute=2, tokens_a_minute=5)}
    who, quotas = caller("ann", allowances=both), Quotas(clock)
    quotas.request(who)
    quotas.request(who)
    assert KEY in refused(quotas.request, who).message
    other = caller("bob", allowances={PROJECT: both[PROJECT]})
    for _ in range(8):  # the refused one took nothing of the project's ten
        quotas.request(other)
    assert PROJECT in refused(quotas.request, other).message
    quotas.begin(other, 1)
    quotas.begin(other, 1)
    assert "2 requests at a time" in refused(quotas.begin, other, 1).message
    quotas.end(other, 1, 1)
    quotas.begin(other, 1)


def test_a_limit_of_nothing_is_never_met():
    quotas = Quotas(Clock())
    for limits, act in (({"requests_a_minute": 0}, lambda who: quotas.request(who)),
                        ({"tokens_a_minute": 0}, lambda who: quotas.begin(who, 1)),
                        ({"concurrency": 0}, lambda who: quotas.begin(who, 1))):
        error = refused(act, ann(**limits))
        assert error.retry_after_seconds is None and not error.retry
    quotas.request(caller("free"))
    quotas.begin(caller("free"), 10**9)
    assert quotas.headers(caller("free")) == {}


def test_a_limit_that_changes_holds_from_then_on():
    clock = Clock()
    quotas = Quotas(clock)
    quotas.request(ann(requests_a_minute=2))
    assert quotas.headers(ann(requests_a_minute=10))["x-ratelimit-remaining-requests"] == "9"
    assert quotas.headers(ann(requests_a_minute=1))["x-ratelimit-remaining-requests"] == "1"
    assert quotas.headers(ann()) == {}


@pytest.mark.parametrize(("seconds", "said"), [
    (0.0, "0ms"), (0.12, "120ms"), (1.0, "1s"), (360.0, "6m0s"), (3723, "1h2m3s"), (59.2, "1m0s")])
def test_spans(seconds, said):
    assert span(seconds) == said


def test_models_are_those_that_all_scopes_allow():
    both = {PROJECT: Allowance(models=("a", "b")), KEY: Allowance(models=("b", "b:x", "c"))}
    who = caller("ann", allowances=both)
    assert [may_ask(who, name) for name in ("a", "b", "c", "b:x")] == [False, True, False, False]
    assert may_ask(None, "a") and may_ask(caller("bob"), "a")
    assert not may_ask(ann(models=()), "a")
