"""Joules an answer token of a planned server: by the batch that is there, at the facility."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.served import under_load, with_service
from curbcut.plan.serving import forecast_serving, forecast_session
from curbcut.spec.account import Account
from plan.plan_samples import LARGE
from tiny import tiny_run

CARD = replace(LARGE, machine=replace(LARGE.machine, accelerators_per_node=1,
                                      watts={"max": 700.0}))


def of(run=CARD, machine=None, **job):
    run = replace(run, serve=replace(run.serve, **{"max_batch": 64} | job))
    return replace(run, machine=replace(run.machine, **machine)) if machine else run


def answer(run, requests, prompt=200, output=200):
    return forecast_serving(run, requests, prompt, output).joules_per_token["answer"].value


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 64), st.integers(1, 4))
def test_more_requests_together_never_take_more_joules_a_token(requests, factor):
    assert answer(of(max_batch=256), requests * factor) <= answer(
        of(max_batch=256), requests) * (1 + 1e-9)


def test_joules_a_token_are_the_facilitys_energy_over_answer_tokens():
    found = forecast_serving(of(), 8, 200, 100)
    assert found.joules_per_token["answer"].value == pytest.approx(
        found.kwh["facility"].value * 3.6e6 / 800)
    assert found.kwh["device"].value == pytest.approx(
        found.watts["device"].value * found.seconds["total"].value / 3.6e6)


def test_a_busier_server_draws_more_and_less_than_its_rated_power():
    one, many = (forecast_serving(of(max_batch=n), n, 200, 200).watts["device"] for n in (1, 64))
    assert 0.3 * 700 < one.value < many.value < 700
    assert one.low < one.value < one.high
    assert "memory" in one.source or "memory" in many.source


def test_a_server_that_is_asked_for_little_draws_its_idle_power():
    idle, busy = (under_load(of(requests_per_second=rate)).watts["server"].value
                  for rate in (1e-4, 20.0))
    assert 0.1 * 700 < idle < 0.3 * 700 < busy < 700


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 5), st.floats(1.2, 4))
def test_more_traffic_takes_fewer_joules_a_token(rate, factor):
    few, many = (under_load(of(requests_per_second=each)).joules_per_token
                 for each in (rate, rate * factor))
    assert many["answer"].value <= few["answer"].value * (1 + 1e-6)
    assert few["most"].value == pytest.approx(many["most"].value)
    assert few["most"].value <= few["answer"].value * (1 + 1e-6)


def test_accelerators_that_do_not_serve_draw_idle_power():
    alone = forecast_serving(of(), 8, 200, 200)
    among = forecast_serving(of(machine={"accelerators_per_node": 8}), 8, 200, 200)
    own = alone.watts["device"].value
    assert own + 5 * 0.1 * 700 < among.watts["device"].value < 4 * own


def test_twice_the_servers_draw_twice_the_watts_at_twice_the_traffic():
    pair = of(machine={"accelerators_per_node": 2}, replicas=2, requests_per_second=8.0)
    two, one = under_load(pair), under_load(of(requests_per_second=4.0))
    assert two.watts["server"].value == pytest.approx(2 * one.watts["server"].value, rel=0.02)
    assert two.joules_per_token["answer"].value == pytest.approx(
        one.joules_per_token["answer"].value, rel=0.02)


def test_where_nothing_can_be_priced_nothing_is_said():
    found = under_load(of(machine={"peak_flops": {}}))
    assert not found.watts["server"].known and not found.joules_per_token["most"].known
    never = under_load(of(ttft_seconds=1e-6)).joules_per_token
    assert not never["most"].known and never["answer"].known


def test_a_cpu_draws_what_its_cores_draw():
    found = forecast_serving(tiny_run(), 2, 10, 10)
    assert found.joules_per_token["answer"].value > 0
    assert "multipliers" not in found.watts["device"].source


def test_a_session_promises_joules_a_token_and_no_total():
    found = forecast_session(of())
    assert found.joules_per_token["answer"].known and not found.kwh["facility"].known


def test_the_plan_has_them_beside_its_own():
    plan = Account(joules_per_token={"training": forecast_session(of()).watts["device"]})
    found = with_service(plan, of())
    assert set(found.joules_per_token) == {"training", "answer", "most"}
    assert set(found.watts) == {"server"}
