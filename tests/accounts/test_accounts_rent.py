from __future__ import annotations

import statistics
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts.rent import (
    CONTRACTS,
    day,
    newest_day,
    rent_price,
    spot_interruption_seconds,
    write_rent,
    write_spot,
)
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.facts import accelerators, prices
from curbcut.physics.goodput import goodput
from curbcut.spec import Place, measured
from tiny import tiny_machine

RENT = Place(tenure="rent")


def gpus(accelerator="h100-sxm-80gb", nodes=1):
    return tiny_machine(kind="gpu", accelerator=accelerator, accelerators_per_node=8, nodes=nodes)


def sheet_of(contract, machine=None, place=RENT, seconds=3600.0):
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(seconds, "a clock"), "seconds")
    write_rent(sheet, machine or gpus(), place, contract, "usd.rent")
    return sheet


def test_rent_is_the_books_median_and_range():
    book = [one.usd_per_hour for one in prices.rents("h100-sxm-80gb", "on-demand")]
    found = rent_price(gpus(), RENT)
    assert found.value == statistics.median(book)
    assert (found.low, found.high) == (min(book), max(book))
    assert "newest of 2026-11" in found.source


def test_one_price_alone_has_the_spread_that_others_have():
    [only] = prices.rents("tpu-v4", "on-demand")
    found = rent_price(gpus("tpu-v4"), RENT)
    assert found.value == only.usd_per_hour and "the one on-demand price" in found.source
    assert 0.5 < found.low / found.value < 1 < found.high / found.value < 2


def test_own_rate_is_for_its_own_contract_only():
    place = Place(tenure="rent", contract="spot", usd_per_accelerator_hour=0.5)
    assert rent_price(gpus(), place).value == 0.5
    assert rent_price(gpus(), place, "on-demand").value == rent_price(gpus(), RENT).value


def test_a_fresh_reserved_price_of_the_book_is_taken():
    found = rent_price(gpus("tpu-v4"), RENT, "reserved-3y")
    assert (found.value, "2023-06-01" in found.source) == (1.45, True)


def test_a_stale_reserved_price_gives_way_to_todays_with_a_discount():
    # The book's reserved A100 is of 2024-01, dearer than on demand in 2026.
    found, today = rent_price(gpus("a100-sxm-80gb"), RENT, "reserved-1y"), rent_price(
        gpus("a100-sxm-80gb"), RENT)
    assert found.value < today.value
    assert "newest reserved-1y price is of 2024-01-29" in found.source


def test_a_contract_that_the_book_lacks_is_the_on_demand_price_at_the_usual_discount():
    found, today = rent_price(gpus(), RENT, "reserved-3y"), rent_price(gpus(), RENT)
    assert found.value == pytest.approx(today.value * (1 - 0.56))
    assert "discounts of four clouds" in found.source
    spot = rent_price(gpus("h100-pcie-80gb"), RENT, "spot")
    assert 0.2 < spot.value / rent_price(gpus("h100-pcie-80gb"), RENT).value < 0.6
    assert "spot over on-demand price of" in spot.source


@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_price_is_unknown_with_what_to_do(contract):
    found = rent_price(tiny_machine(), RENT, contract)
    assert found.value is None
    assert "set place.usd_per_accelerator_hour" in found.source


def test_every_accelerator_of_the_book_has_a_price_in_every_contract():
    for name in {one.accelerator for one in prices.book()}:
        values = [rent_price(gpus(name), RENT, contract).value for contract in CONTRACTS]
        assert all(values), name
        assert values[2] < values[1] < values[0], name


def test_a_users_own_row_is_the_newest(own_prices):
    own_prices.write_text("accelerator,provider,kind,usd_per_hour,source,date\n"
                          "h200-sxm-141gb,our cluster,spot,0.9,contract,2027-02-03\n")
    assert newest_day(gpus("h200-sxm-141gb"), "spot") == date(2027, 2, 3)
    assert rent_price(gpus("h200-sxm-141gb"), RENT, "spot").low == 0.9


@pytest.fixture
def own_prices(tmp_path, monkeypatch):
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    return tmp_path / "rent_prices.csv"


def test_days_may_be_known_to_the_month_or_the_year_alone():
    assert (day("2026-11"), day("2025"), day("2024-01-29")) == (
        date(2026, 11, 1), date(2025, 1, 1), date(2024, 1, 29))
    with pytest.raises(InputError, match="'May' is no date"):
        day("May")


def test_every_date_of_the_book_and_of_accelerators_is_read():
    for one in prices.book():
        assert day(one.date) > date(2012, 1, 1)
    for chip in accelerators.accelerators():
        if chip.purchase_date:
            assert day(chip.purchase_date) > date(2012, 1, 1), chip.id


def test_spot_pays_for_the_time_that_interruptions_cost():
    sheet, machine = sheet_of("spot"), gpus()
    apart = spot_interruption_seconds(machine).value
    lost = goodput(60, 1, None, 600, apart)
    assert sheet.value("spot.time_ratio") == pytest.approx(1 / lost.productive)
    assert sheet.value("usd.rent") == pytest.approx(
        8 * rent_price(machine, RENT, "spot").value / lost.productive)
    assert 1.02 < sheet.value("spot.time_ratio") < 1.3


def test_more_nodes_are_interrupted_more_often_but_mostly_together():
    one, many = spot_interruption_seconds(gpus()), spot_interruption_seconds(gpus(nodes=64))
    assert one.value == pytest.approx(4.9 * 3600)
    assert one.value / 64 < many.value < one.value
    assert many.value == pytest.approx(one.value / (0.92 + 0.08 * 64))
    assert many.low < many.value < many.high


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 512), st.integers(1, 512))
def test_interruptions_never_make_it_cheaper_and_grow_with_nodes(few, more):
    few, more = sorted((few, more))
    ratios = []
    for nodes in (few, more):
        sheet = Sheet()
        write_spot(sheet, gpus(nodes=nodes))
        ratios.append(sheet.value("spot.time_ratio"))
    assert 1 <= ratios[0] <= ratios[1] * (1 + 1e-12)


def test_goodput_takes_a_mean_time_of_its_own_on_arrays_too():
    means = np.array([3600.0, 7200.0])
    found = goodput(60, 1, None, 600, means)
    assert found.productive[0] < found.productive[1] < 1
    assert goodput(60, 8, None, 600).productive > found.productive[1]


def test_a_sheet_draws_spot_wider_than_on_demand():
    spot = sheet_of("spot").sampled_estimates(4000)["usd.rent"]
    assert spot.low < spot.value < spot.high
    assert "one in 4.9 h" in spot.source
