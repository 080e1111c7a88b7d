from __future__ import annotations

import pytest

from curbcut.meter.clock import FakeClock
from curbcut.physics.flops import model_flops_per_token
from curbcut.train.account import measured_account
from tiny import tiny_machine, tiny_run


def measured_after(opened, seconds, **machine):
    session = opened(tiny_run(machine=tiny_machine(**machine)), clock=FakeClock())
    session.tokens, session.seconds = 1000, {"steps": seconds, "evaluation": 1.0}
    return session, measured_account(session)


def test_rates_divide_counts_by_durations(opened):
    session, account = measured_after(opened, 4.0)
    run = session.run
    needed = model_flops_per_token(run.model, run.recipe.sequence_tokens) * 1000
    assert account.tokens_per_second["steps"].value == 250
    assert account.mfu["run"].value == pytest.approx(needed / 4.0 / 1e12)
    assert account.goodput["run"].value == pytest.approx(0.8)
    assert account.seconds["total"].value == 5.0


def test_without_a_sensor_no_energy_is_measured(opened):
    _, account = measured_after(opened, 4.0)
    assert [e.value for e in account.kwh.values()] == [None] * 3
    assert account.watts["device"].value is None
    assert account.kwh_modelled["device"].value == pytest.approx(10.0 * 5.0 / 3.6e6)


def test_joules_a_token_are_the_facilitys_energy_over_the_tokens(opened):
    _, account = measured_after(opened, 4.0)
    assert account.joules_per_token["training"].value == pytest.approx(
        account.kwh_modelled["facility"].value * 3.6e6 / 1000)
    session, _ = measured_after(opened, 4.0)
    session.tokens = 0
    assert not measured_account(session).joules_per_token["training"].known


def test_a_sensors_joules_are_the_devices_kwh(opened):
    session, _ = measured_after(opened, 4.0)
    session.joules = 3.6e6
    account = measured_account(session)
    assert account.kwh["device"].value == 1.0
    assert account.kwh["facility"].value is None
    assert account.watts["device"].value == pytest.approx(3.6e6 / 5.0)


def test_a_utilisation_above_one_is_no_figure(opened):
    _, account = measured_after(opened, 4.0, measured_flops={"fp32": 1.0})
    assert account.mfu["run"].value is None
    assert "cannot be" in account.mfu["run"].source


def test_without_a_peak_there_is_no_utilisation(opened):
    _, account = measured_after(opened, 4.0, measured_flops={})
    assert account.mfu["run"].value is None
    assert "no peak" in account.mfu["run"].source


def test_what_was_not_evaluated_is_not_known(opened):
    _, account = measured_after(opened, 4.0)
    assert account.loss["bits_per_byte"].value is None
