from __future__ import annotations

import pytest

from curbcut.accounts.ownership import chip_price, rated_kw, write_ownership
from curbcut.accounts.sheet import Sheet
from curbcut.facts import accelerators
from curbcut.facts.constants import constant
from curbcut.spec import Estimate, Place, measured
from tiny import tiny_machine

NODE = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", accelerators_per_node=8,
                    watts={"max": 700.0})
YEAR = 8766 * 3600.0


def sheet_of(machine=NODE, place=None, use=None) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(YEAR / 100, "a clock"), "seconds")
    if use:
        sheet.leaf("own.utilisation", use, "fraction")
    write_ownership(sheet, machine, place or Place(tenure="own"), "usd.ownership")
    return sheet


def test_a_machine_loses_value_in_the_time_that_the_run_takes_of_its_life():
    chip = accelerators.accelerator("h100-sxm-80gb").purchase_usd
    sheet = sheet_of()
    assert sheet.value("own.machine_usd") == pytest.approx(8 * chip * 1.64)
    assert sheet.value("own.years") == pytest.approx(0.01 / 0.85)
    assert sheet.value("own.depreciation_usd") == pytest.approx(
        8 * chip * 1.64 * 0.322362 * 0.01 / 0.85)


def test_a_machine_that_is_idle_half_the_time_costs_double():
    always, half = (sheet_of(place=Place(tenure="own", pue=1.3), use=measured(share, "a log"))
                    for share in (1.0, 0.5))
    assert half.value("usd.ownership") == pytest.approx(2 * always.value("usd.ownership"))


def test_room_is_paid_by_rated_power_in_a_data_centre():
    sheet = sheet_of(place=Place(tenure="own", pue=1.3))
    assert rated_kw(NODE).value == pytest.approx(8 * 0.85)
    assert sheet.value("own.hosting_usd") == pytest.approx(8 * 0.85 * 196 * 12 * 0.01 / 0.85)
    assert sheet.value("usd.ownership") == pytest.approx(
        sheet.value("own.depreciation_usd") + sheet.value("own.hosting_usd"))


def test_one_card_at_a_desk_pays_for_no_room_but_eight_do_without_a_plant():
    card = tiny_machine(kind="gpu", accelerator="rtx-4090", watts={"max": 450.0})
    assert sheet_of(card).value("own.hosting_usd") == 0
    assert "desk" in sheet_of(card)["own.hosting_usd"].estimate.source
    assert sheet_of(NODE).value("own.hosting_usd") > 0


def test_a_card_in_a_data_centre_without_rated_power_leaves_its_room_out():
    card = tiny_machine(kind="gpu", accelerator="rtx-4090", watts={})
    sheet = sheet_of(card, Place(tenure="own", pue=1.5))
    assert sheet.value("own.hosting_usd") is None
    assert sheet["usd.ownership"].formula == "depreciation"
    assert sheet.value("usd.ownership") > 0


def test_a_chip_without_a_price_is_unknown_with_the_reason():
    assert chip_price(tiny_machine()).value is None
    found = sheet_of(tiny_machine())["usd.ownership"].estimate
    assert found.value is None
    assert "no purchase price of test CPU" in found.source


def test_the_interval_holds_what_is_not_known_of_server_value_and_use():
    found = sheet_of().estimates()["usd.ownership"]
    assert isinstance(found, Estimate)
    assert found.low < 0.75 * found.value < 1.4 * found.value < found.high
    widest = [name for name, _, _ in sheet_of().influences("usd.ownership")]
    assert set(widest[:2]) == {"own.chip_usd", "own.utilisation"}


def test_a_price_is_what_one_paid_and_others_pay_half_or_double():
    found = chip_price(NODE)
    assert (found.low / found.value, found.high / found.value) == pytest.approx((0.5, 2.0))
    assert "others pay 0.5 to 2 x" in found.source
    tpu = chip_price(tiny_machine(kind="tpu", accelerator="h100-sxm-80gb"))
    assert (tpu.low / tpu.value, tpu.high / tpu.value) == pytest.approx((0.25, 4.0))


def test_the_host_of_a_tpu_is_not_that_of_a_gpu():
    tpu = tiny_machine(kind="tpu", accelerator="tpu-v4", watts={"max": 170.0})
    assert rated_kw(tpu).value == pytest.approx(
        (170 + constant("host_watts_per_tpu").value) / 1000)
