from dataclasses import replace

import pytest

from curbcut.plan.serving import forecast_serving, forecast_session
from curbcut.serve.engine.interface import Stats
from curbcut.serve.measure import account
from tiny import tiny_machine, tiny_run

STATS = Stats(prompt_tokens=300, answer_tokens=80, decode_tokens=76, prefill_seconds=1.5,
              decode_seconds=4.0, first_tokens=4, first_token_seconds=2.0, next_token_seconds=5.7,
              weights_bytes=5000, cache_bytes=700)
RUN = tiny_run()


def test_figures_are_counts_over_their_own_seconds():
    found = account(STATS, 10.0, peak_bytes=1 << 20, joules=7.2e3, energy_source="gpu")
    assert found.tokens_per_second["decode"].value == 19
    assert found.tokens_per_second["prefill"].value == 200
    assert found.seconds["idle"].value == 4.5 and found.seconds["total"].value == 10
    assert found.seconds["ttft"].value == 0.5
    assert found.seconds["tpot"].value == pytest.approx(0.075)
    assert found.memory_bytes["peak"].value == 1 << 20
    assert found.memory_bytes["parameters"].value == 5000
    assert found.memory_bytes["cache"].value == 700
    assert found.kwh["device"].value == 0.002 and found.kwh["device"].source == "gpu"
    assert found.watts["device"].value == 720
    assert {e.basis for _, _, e in found.lines()} == {"measured"}


def test_what_was_not_measured_is_unknown_and_never_zero():
    found = account(Stats(), 10.0)
    for section, kind in (("kwh", "device"), ("memory_bytes", "peak"), ("memory_bytes", "cache"),
                          ("tokens_per_second", "decode"), ("seconds", "ttft"),
                          ("seconds", "tpot"), ("watts", "device")):
        assert found.get(section, kind).value is None and found.get(section, kind).source


def test_forecast_and_measurement_share_their_kinds():
    measured = {line[:2] for line in account(STATS, 10.0, run=RUN).lines()}
    for promised in (forecast_serving(RUN, 1, 10, 10), forecast_session(RUN)):
        assert {line[:2] for line in promised.lines()} == measured


def test_without_a_sensor_energy_is_null_and_modelled_energy_is_not():
    found = account(STATS, 10.0, run=RUN, energy_source="no energy sensor")
    for kind in ("device", "node", "facility"):
        assert found.kwh[kind].value is None and found.kwh[kind].source == "no energy sensor"
        assert found.kwh_modelled[kind].value > 0
        assert found.kwh_modelled[kind].basis == "modelled"
    assert found.usd["total"].value > 0 and found.kgco2e["operational"].value > 0


def test_a_server_at_rest_draws_idle_power():
    run = replace(RUN, machine=tiny_machine(watts={"typical": 10.0, "idle": 2.0}))
    found = account(STATS, 10.0, run=run)
    assert found.kwh_modelled["device"].value == pytest.approx((5.5 * 10 + 4.5 * 2) / 3.6e6)


def test_what_was_remembered_or_guessed_is_told_where_there_was_any():
    some = replace(STATS, cached_tokens=150, drafted_tokens=40)
    found = account(some, 10.0)
    assert found.tokens["cached"].value == 150 and found.tokens["drafted"].value == 40
    assert found.tokens["accepted"].value == 0
    assert found.tokens_per_second["prefill"].value == 100  # of those that were read
    assert set(account(STATS, 10.0).tokens) == {"prompt", "answer"}


def test_joules_a_token_are_a_sensors_or_modelled_and_say_so():
    found = account(STATS, 10.0, run=RUN, joules=160.0, energy_source="gpu").joules_per_token
    assert (found["device"].value, found["device"].basis, found["device"].source) == (
        2.0, "measured", "gpu")
    assert found["answer"].basis == "modelled"
    rested = account(STATS, 1000.0, run=RUN).joules_per_token  # rest is no work on an answer
    assert rested["answer"].value == pytest.approx(found["answer"].value)
    assert not account(STATS, 10.0).joules_per_token
    assert not account(Stats(), 10.0, joules=5.0).joules_per_token


def test_nobody_is_told_the_price_of_a_model_that_is_no_run():
    found = account(STATS, 10.0)
    assert not found.usd and not found.kgco2e and not found.kwh_modelled
