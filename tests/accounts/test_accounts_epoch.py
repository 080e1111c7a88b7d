import dataclasses
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts import epoch as approaches
from curbcut.accounts.epoch import WAYS, three
from curbcut.errors import InputError, UnknownName
from curbcut.facts import epoch

NAMES = sorted(epoch.results())
EXACT = 1e-9


@pytest.mark.parametrize("way, count", [("amortised", 45), ("acquisition", 37), ("cloud", 40)])
def test_every_published_value_is_reproduced(way, count):
    stated = {name: one for name, one in epoch.results().items() if one.usd[way] is not None}
    assert len(stated) == count
    for name, one in stated.items():
        found = three(name).way(way)
        assert found is not None, name
        assert found.usd == pytest.approx(one.usd[way], rel=EXACT), name
        assert found.usd_2023 == pytest.approx(one.usd_2023[way], rel=EXACT), name


@pytest.mark.parametrize("name", NAMES)
def test_parts_and_hours_are_theirs_and_no_value_is_made_up(name):
    stated, found = epoch.results()[name], three(name)
    for way in WAYS:
        assert (found.way(way) is None) == (stated.usd[way] is None), way
        assert (way in found.missing) == (found.way(way) is None), way
    if stated.chip_hours:
        assert found.chip_hours == pytest.approx(stated.chip_hours, rel=EXACT)
    if found.amortised:
        for part, usd in stated.parts.items():
            assert found.amortised.parts[part] == pytest.approx(usd, rel=EXACT), part


def test_parts_add_up_to_the_whole():
    for one in approaches.models():
        for way in WAYS:
            found = three(one).way(way)
            if found:
                assert sum(found.parts.values()) == pytest.approx(found.usd, rel=1e-12)


def test_gpt3_by_hand():
    # 17,250 USD loses 0.14 log10 a year over 463 days; 3,552,000 h; 19% network; 0.46875 kW each.
    found = three("GPT-3 175B (davinci)")
    assert (found.purchase.usd, found.purchase.available) == (17_250, date(2018, 6, 25))
    assert found.start == date(2019, 10, 1)
    assert found.chip_value_usd == pytest.approx(11_463.62, abs=0.01)
    assert found.amortised.parts["energy"] == pytest.approx(1_665_000 * 0.0667)
    assert found.cloud.usd == pytest.approx(1.16 * 3_552_000)
    assert found.acquisition.usd == pytest.approx(10_000 * 17_250 / 0.81)


def test_a_model_that_goes_on_from_another_has_its_costs():
    base, own = three("PaLM (540B)"), three("Minerva (540B)")
    alone = three(dataclasses.replace(own.model, base_model=""))
    assert own.amortised.usd == pytest.approx(alone.amortised.usd + base.amortised.usd)
    assert own.cloud.usd == pytest.approx(alone.cloud.usd + base.cloud.usd)
    assert "PaLM" in own.amortised.basis


def test_a_base_whose_cost_is_not_known_leaves_none():
    orphan = dataclasses.replace(epoch.model("Minerva (540B)"), base_model="Claude 2")
    found = three(orphan)
    assert found.amortised is None
    assert "Claude 2" in found.missing["amortised"]


def test_intervals_of_the_whole_are_the_authors():
    gpu, tpu = three("GPT-4"), three("PaLM (540B)")
    assert (gpu.amortised.spread, gpu.acquisition.spread) == ((0.34, 3.7), (0.46, 2.1))
    assert (tpu.amortised.spread, tpu.acquisition.spread) == ((0.27, 4.9), (0.23, 4.2))
    assert gpu.cloud.spread is None, "none is stated"


def test_a_model_that_goes_on_from_itself_is_refused():
    circle = dataclasses.replace(epoch.model("PaLM (540B)"), base_model="U-PaLM (540B)")
    with pytest.raises(InputError, match="goes on from itself"):
        three(circle)


def test_a_training_of_endless_hours_is_refused():
    with pytest.raises(InputError, match="longer than there are days"):
        three(dataclasses.replace(epoch.model("BLOOM-176B"), hours=1e17))


def test_a_name_that_no_model_has_says_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'GPT-4'"):
        three("GPT4")


def test_reasons_name_what_is_missing():
    assert three("Claude 2").missing["amortised"] == approaches.NO_CHIP
    assert "number of chips" in three("PaLM 2").missing["acquisition"]
    assert "no rent of Google TPU v1" in three("AlphaGo Zero").missing["cloud"]


@settings(max_examples=50, deadline=None)
@given(st.floats(1e3, 1e5), st.floats(0, 10), st.floats(0.05, 0.3))
def test_a_chip_only_loses_value_and_a_year_of_use_charges_no_more_than_it_is_worth(
        price, years, loss):
    now = approaches.value_usd(price, years, loss)
    later = approaches.value_usd(price, years + 1, loss)
    assert later < now <= price
    # The charge of a year at today's rate is what a straight line from today loses.
    assert now - later <= approaches.capital_usd(now, loss, 8766, 8766) <= now


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 1e9), st.floats(0, 0.5))
def test_a_network_of_a_share_is_that_share_of_the_whole(capital, share):
    network = approaches.network_usd(capital, share)
    assert network / (network + capital) == pytest.approx(share, abs=1e-12)


def test_a_model_of_after_the_tables_has_the_newest_prices():
    later = dataclasses.replace(epoch.model("Inflection-2"), published=date(2026, 5, 1))
    found = three(later)
    ratio = epoch.producer_price(date(2023, 12, 1)) / epoch.producer_price(date(2024, 4, 1))
    assert found.amortised.usd_2023 == pytest.approx(found.amortised.usd * ratio)
    assert found.amortised.parts["energy"] > 0
