"""Measured power caps against the physics, with and without the GPU's own constants."""

from __future__ import annotations

import pytest

from curbcut.errors import InputError
from curbcut.physics import power_cap
from curbcut.plan.validation import power_caps
from curbcut.plan.validation.outcome import Regime, validate
from plan.validation import tables

COLUMNS = ["gpu", "dataset", "network", "batch_size", "optimizer", "power_limit_w", "limit_frac",
           "time_per_epoch_s", "avg_power_w", "energy_per_epoch_j", "time_rel", "energy_rel"]
FULL = {"gpu": "v100", "dataset": "d", "network": "n", "batch_size": "8", "optimizer": "adam",
        "power_limit_w": "250", "limit_frac": "1.0", "avg_power_w": "200", "time_rel": "1",
        "energy_rel": "1"}
HALF = FULL | {"power_limit_w": "125", "limit_frac": "0.5", "avg_power_w": "130",
               "time_rel": "1.2", "energy_rel": "0.78"}


def table(tmp_path, *lines):
    return tables.write(tmp_path / "c.csv", list(lines), COLUMNS)


def test_a_row_below_the_rated_power_is_predicted_from_the_draw_without_a_cap(tmp_path):
    found = power_caps.predict(table(tmp_path, FULL, HALF), known=True)
    (time,), left = found["time"]
    assert not left and time.measured == pytest.approx(1.2)
    expected = power_cap.capped(0.5, 200 / 250, power_cap.cap_constants("v100"))
    assert time.predicted == pytest.approx(expected.seconds)
    assert found["energy"][0][0].predicted == pytest.approx(expected.energy)
    assert time.low95 < time.low80 < time.predicted < time.high80 < time.high95


def test_by_default_the_family_was_never_seen(tmp_path):
    path = table(tmp_path, FULL, HALF)
    seen, unseen = (power_caps.predict(path, known)["time"][0][0] for known in (True, False))
    assert seen.predicted != unseen.predicted


def test_nothing_measured_under_the_cap_changes_the_prediction(tmp_path):
    other = HALF | {"avg_power_w": "1", "time_rel": "3", "energy_rel": "2"}
    one = power_caps.predict(table(tmp_path, FULL, HALF), True)["time"][0][0]
    two = power_caps.predict(table(tmp_path, FULL, other), True)["time"][0][0]
    assert one.predicted == two.predicted


@pytest.mark.parametrize(("change", "reason"), [
    ({"network": "another"}, "no row of the same network"), ({"time_rel": ""}, "no limit below"),
    ({"limit_frac": "1.5"}, "no limit below")])
def test_a_point_without_its_like_says_why(tmp_path, change, reason):
    _, left = power_caps.predict(table(tmp_path, FULL, HALF | change), True)["time"]
    assert reason in left[0].reason


def test_an_old_card_is_not_the_new_one_of_its_number(tmp_path):
    curves, _ = power_caps.read(table(tmp_path, FULL | {"gpu": "rtx6000"},
                                      HALF | {"gpu": "rtx6000"}))
    assert curves[0].family == "quadro-rtx-6000"


def test_it_is_a_table_of_energy(tmp_path):
    found = validate("energy", table(tmp_path, FULL, HALF), Regime())
    assert found.table == "power_caps" and set(found.parts) == {"", "time"}


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no column"):
        power_caps.read(tables.write(tmp_path / "c.csv", [{"gpu": "v100"}]))
