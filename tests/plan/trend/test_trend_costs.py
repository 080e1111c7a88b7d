"""Trends of the facts: the published ones are reproduced, the others hold together."""

from __future__ import annotations

from datetime import date

import pytest

from curbcut.plan.trend import capability, frontier, hardware


@pytest.fixture(scope="module")
def costs():
    return frontier.costs()


def test_frontier_cost_grows_as_published(costs):
    # arXiv:2405.21015: 45 models, 0.39 orders of magnitude a year (0.29 to 0.48), R2 0.61.
    amortised = frontier.frontier(costs)[0]
    line = amortised.line
    assert (amortised.approach, len(amortised.points), amortised.without) == ("amortised", 45, 19)
    assert [round(each, 2) for each in (line.slope, line.low, line.high)] == [0.39, 0.29, 0.48]
    assert (round(line.growth.value, 1), round(line.growth.low, 1), round(line.growth.high, 1)) \
        == (2.4, 2.0, 3.1)
    assert line.r_squared == pytest.approx(0.61, abs=0.005)


def test_the_other_approaches_have_their_own_models(costs):
    found = {one.approach: one for one in frontier.frontier(costs)}
    assert len(found["acquisition"].points) == 37 and len(found["cloud"].points) == 40
    for one in found.values():
        days = [point.published for point in one.points]
        assert days == sorted(days)
        assert 1.5 < one.line.growth.low < one.line.growth.high < 4.0


def test_dollars_are_of_one_month(costs):
    gpt3 = next(point for point in frontier.frontier(costs)[0].points if "GPT-3 175B" in point.name)
    assert gpt3.usd == pytest.approx(2_056_969, rel=1e-6)
    assert gpt3.usd_nominal == pytest.approx(1_959_693, rel=1e-6)


def test_rented_arithmetic_gets_cheaper_and_bought_too():
    paces = hardware.paces()
    rent = hardware.pace(paces, "16-bit", "rent").line
    bought = hardware.pace(paces, "16-bit", "purchase").line
    assert rent.points >= 40 and rent.low > 0 and bought.low > 0
    assert 1.1 < rent.growth.value < 1.8 and 1.1 < bought.growth.value < 1.8
    assert hardware.pace(paces, "fp8", "nothing") is None


def test_prices_of_one_chip_and_day_count_once():
    for pace in hardware.paces():
        if pace.way == "rent":
            keys = [(offer.name, offer.day) for offer in pace.offers]
            assert len(keys) == len(set(keys))


def test_the_best_offer_is_a_recent_one():
    for pace in hardware.paces():
        newest = max(offer.day for offer in pace.offers)
        assert (newest - pace.best.day).days <= 731
        assert pace.best in pace.offers


@pytest.mark.parametrize(("text", "day"), [
    ("2024", date(2024, 1, 1)), ("2025-03", date(2025, 3, 1)), ("2022-09-20", date(2022, 9, 20))])
def test_days_as_far_as_they_are_known(text, day):
    assert hardware.day_of(text) == day


def test_factors_are_kept_apart_and_their_product_is_theirs():
    rent = hardware.pace(hardware.paces(), "16-bit", "rent").line
    found = {one.name: one.yearly for one in capability.factors(rent, None)}
    assert found["algorithms"].value == pytest.approx(2 ** (12 / 8))
    assert found["algorithms"].low == pytest.approx(2 ** (12 / 22))
    product = found["rent x algorithms"]
    assert product.value == pytest.approx(rent.growth.value * found["algorithms"].value)
    assert product.high / product.value >= found["algorithms"].high / found["algorithms"].value
    assert "purchase of 16-bit arithmetic" not in found
    assert all(one.source for one in found.values())


def test_algorithms_over_years_are_their_rate():
    assert capability.algorithms(2024.0, 2026.0).value == pytest.approx(8.0)
    back = capability.algorithms(2026.0, 2024.0)
    assert back.value == pytest.approx(1 / 8)
    assert back.low < back.value < back.high


def test_measured_records_are_those_published():
    found = {task.name: task for task in capability.tasks()}
    assert found["GPT-2 grade"].factor == pytest.approx(43_000 / 48)
    assert found["124M speedrun"].factor == pytest.approx(45 / 1.23)
    assert found["124M speedrun"].line.slope < 0
    assert found["GPT-2 grade"].line is None


def test_yardsticks_have_their_own_cost(costs):
    names = [one.model.name for one in capability.yardsticks(costs)]
    assert "GPT-3 175B (davinci)" in names
    assert all(not one.model.base_model for one in capability.yardsticks(costs))
