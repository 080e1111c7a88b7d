from __future__ import annotations

import dataclasses
import math
from datetime import date

import pytest

from curbcut.accounts import epoch_run
from curbcut.accounts.epoch import three
from curbcut.accounts.sheet import Sheet
from curbcut.facts import accelerators, epoch
from curbcut.spec import Estimate, measured
from tiny import tiny_machine


def sheet_of(accelerator, count, hours, start, spread=1.0):
    sheet = Sheet()
    seconds = 3600.0 * hours
    sheet.leaf("seconds.total", Estimate(seconds, seconds / spread, seconds * spread), "seconds")
    machine = tiny_machine(kind="gpu", accelerator=accelerator, accelerators_per_node=8,
                           nodes=count // 8)
    epoch_run.write(sheet, machine, start)
    return sheet


def test_a_machine_gives_what_the_model_of_the_same_chips_and_days_gives():
    published = three("Falcon-180B")
    sheet = sheet_of("a100-sxm-40gb", 4096, 4320, published.start)
    for way, usd in (("amortised", published.amortised.usd), ("cloud", published.cloud.usd),
                     ("acquisition", published.acquisition.usd)):
        assert sheet.value(f"usd_ways.epoch_{way}") == pytest.approx(usd, rel=1e-12), way


def test_a_chip_that_is_newer_than_the_history_says_which_price_was_taken():
    sheet = sheet_of("h200-sxm-141gb", 8, 10, date(2026, 6, 1))
    source = sheet["usd_ways.epoch_amortised"].estimate.source
    assert "accelerators.csv" in source and "history has none" in source
    chip = accelerators.accelerator("h200-sxm-141gb").purchase_usd
    assert sheet.value("epoch.server_usd") == pytest.approx(1.64 * chip)
    assert sheet["usd_ways.epoch_cloud"].estimate.source.startswith("the price book's")


def test_a_chip_without_any_price_is_unknown_with_the_reason():
    sheet = sheet_of("gb300", 8, 10, date(2026, 6, 1))
    for way in epoch_run.WAYS:
        assert sheet[f"usd_ways.{way}"].estimate.value is None
    assert "no purchase price of NVIDIA GB300" in sheet["usd_ways.epoch_amortised"].estimate.source


def test_what_is_no_accelerator_is_unknown_with_its_name():
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(1.0, "a clock"), "seconds")
    epoch_run.write(sheet, tiny_machine())
    assert {sheet[f"usd_ways.{way}"].estimate.source for way in epoch_run.WAYS} == {
        "test CPU is no accelerator of the facts"}


@pytest.mark.parametrize("one", [one.id for one in accelerators.accelerators()])
def test_every_accelerator_gives_a_value_or_a_reason(one):
    sheet = sheet_of(one, 8, 1, date(2026, 6, 1))
    for way in epoch_run.WAYS:
        found = sheet[f"usd_ways.{way}"].estimate
        assert found.value is None or (math.isfinite(found.value) and found.value > 0)
        assert found.source


def test_a_chip_is_not_used_before_it_can_be_had():
    early = sheet_of("h100-sxm-80gb", 8, 10, date(2020, 1, 1))
    assert early.value("epoch.years") == 0


def test_without_a_day_it_is_that_of_the_newest_price():
    assert sheet_of("h100-sxm-80gb", 8, 10, None)["epoch.years"].estimate.source.endswith(
        str(epoch_run.newest_price()))


def test_energy_is_priced_by_the_nearest_year_that_is_known():
    later = sheet_of("h100-sxm-80gb", 8, 10, date(2030, 1, 1))
    assert later["epoch.usd_per_kwh"].estimate.source.startswith("usd_per_kwh_2024")
    assert later["epoch.usd_per_kwh"].estimate.value == 0.0806


def test_the_interval_is_of_components_and_with_time_and_chips_near_the_authors_own():
    # Theirs of the whole: x0.34 to x3.7, with unknown time (x0.5 to 2) and chips (x0.8 to 1.25).
    spread = math.exp(math.hypot(math.log(2), math.log(1.25)))
    known = sheet_of("a100-sxm-40gb", 64, 100, date(2022, 6, 1)).sampled_estimates()
    drawn = sheet_of("a100-sxm-40gb", 64, 100, date(2022, 6, 1), spread).sampled_estimates()
    own, whole = known["usd_ways.epoch_amortised"], drawn["usd_ways.epoch_amortised"]
    assert 0.30 < whole.low / whole.value < 0.42
    assert 2.5 < whole.high / whole.value < 3.7
    assert whole.low < own.low < own.high < whole.high, "our own time and chips are known"


def test_the_network_interval_is_that_of_its_multiplier():
    found = sheet_of("h100-sxm-80gb", 8, 10, date(2026, 1, 1))["epoch.network_share"].estimate
    assert 1 / (1 - found.low) == pytest.approx(1.07)
    assert 1 / (1 - found.high) == pytest.approx(1.32)
    assert found.value == epoch.constant("network_share").value


def test_a_known_chip_is_epochs_own_and_another_is_made_from_ours():
    ours = accelerators.accelerator("h100-sxm-80gb")
    chip, bought = epoch_run.chip_and_price(ours)
    assert (chip.name, bought.usd) == ("NVIDIA H100 SXM5", 44_489.88)
    unpriced = dataclasses.replace(accelerators.accelerator("b200-sxm-180gb"), purchase_usd=None)
    assert epoch_run.chip_and_price(unpriced)[1] is None


@pytest.mark.parametrize("accelerator", ["h100-sxm-80gb", "a100-sxm-80gb", "rtx-4090"])
def test_what_epoch_states_no_interval_of_has_one_from_its_like(accelerator):
    sheet = sheet_of(accelerator, 8, 10, date(2026, 6, 1))
    for key in ("epoch.server_power_ratio", "epoch.cloud_usd_per_hour"):
        found = sheet[key].estimate
        assert found.value is None or found.low < found.high, key
        assert found.value is None or found.low <= found.value <= found.high, key
    assert sheet["epoch.chip_watts"].estimate.basis == "given"
