from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from curbcut.accounts.sheet import Sheet, draws
from curbcut.errors import UnknownName
from curbcut.physics.numbers import smaller
from curbcut.spec.estimate import Estimate, given, measured, unknown

PRICE = Estimate(2.0, 1.0, 5.0, "default", "a price book")
HOURS = Estimate(10.0, 8.0, 12.0, "modelled", "a roofline")
WIDE = Estimate(1.0, -1.0, 2.0, "modelled", "may be negative")


def bill() -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", HOURS.scaled(3600), "seconds")
    sheet.leaf("rent.usd_per_hour", PRICE, "usd")
    sheet.leaf("fleet.count", given(4, "the fleet"))
    sheet.formula("usd.rent", "hours x accelerators x rent",
                  ("seconds.total", "fleet.count", "rent.usd_per_hour"),
                  lambda seconds, count, rent: seconds / 3600 * count * rent, "usd")
    sheet.formula("usd.total", "rent + setting up", ("usd.rent",), lambda rent: rent + 5.0, "usd",
                  source="both lines")
    return sheet


def test_values_follow_from_the_middles_and_carry_the_weakest_basis():
    sheet = bill()
    assert sheet.value("usd.rent") == pytest.approx(80.0)
    rent, total = (sheet.estimates()[f"usd.{kind}"] for kind in ("rent", "total"))
    assert total.value == pytest.approx(85.0)
    assert rent.basis == total.basis == "default"
    assert rent.source == "hours x accelerators x rent"
    assert total.source == "both lines"


def test_the_first_order_interval_of_a_product_adds_logs_in_squares():
    rent = bill().estimates()["usd.rent"]
    up = math.hypot(math.log(5 / 2), math.log(12 / 10))
    down = math.hypot(math.log(2 / 1), math.log(10 / 8))
    assert rent.high == pytest.approx(80 * math.exp(up))
    assert rent.low == pytest.approx(80 * math.exp(-down))


@examples(st.lists(st.tuples(st.floats(0.1, 100), st.floats(1.01, 1.6), st.floats(1.01, 1.6)),
                   min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_first_order_and_monte_carlo_agree_on_products_and_sums(leaves):
    sheet = Sheet()
    for i, (value, down, up) in enumerate(leaves):
        sheet.leaf(f"leaf.{i}", Estimate(value, value / down, value * up))
    names = [f"leaf.{i}" for i in range(len(leaves))]
    sheet.formula("all.product", "product", names, lambda *each: math.prod(each))
    sheet.formula("all.sum", "sum", names, lambda *each: sum(each))
    quick, drawn = sheet.estimates(), sheet.sampled_estimates(20_000)
    for key in ("all.product", "all.sum"):
        wide = math.log(drawn[key].high / drawn[key].low)
        assert math.log(quick[key].high / drawn[key].high) == pytest.approx(0, abs=0.25 * wide)
        assert math.log(quick[key].low / drawn[key].low) == pytest.approx(0, abs=0.25 * wide)


def test_a_leaf_is_drawn_so_that_a_twentieth_lies_beyond_each_end():
    for leaf in (PRICE, WIDE):
        drawn = draws("a.leaf", leaf, 100_000, 3)
        assert np.mean(drawn < leaf.low) == pytest.approx(0.05, abs=0.004)
        assert np.mean(drawn > leaf.high) == pytest.approx(0.05, abs=0.004)
        assert np.median(drawn) == pytest.approx(leaf.value, rel=0.03)


def test_draws_are_the_sheets_seed_and_the_leafs_key_and_nothing_else():
    one, other = bill(), bill()
    other.leaf("later.leaf", PRICE)
    drawn = one.sampled(500, seed=7)
    assert np.array_equal(drawn["usd.total"], other.sampled(500, seed=7)["usd.total"])
    assert not np.array_equal(drawn["usd.total"], one.sampled(500, seed=8)["usd.total"])
    assert not np.array_equal(drawn["rent.usd_per_hour"] / 2,
                              other.sampled(500, seed=7)["later.leaf"] / 2)


def test_two_sheets_with_one_price_move_together():
    dear, cheap = bill(), bill()
    cheap.formula("usd.half", "half", ("usd.rent",), lambda rent: rent / 2)
    apart = dear.sampled()["usd.rent"] - 2 * cheap.sampled()["usd.half"]
    assert np.abs(apart).max() < 1e-9


def test_what_follows_from_an_unknown_is_unknown_and_says_why():
    sheet = bill()
    sheet.leaf("usd.staff", unknown("nobody said who works on it"), "usd")
    sheet.formula("usd.project", "total + staff", ("usd.total", "usd.staff"),
                  lambda total, staff: total + staff, "usd")
    sheet.formula("usd.twice", "2 x", ("usd.project",), lambda project: 2 * project, "usd")
    found = sheet.estimates()["usd.twice"]
    assert not found.known
    assert found.source == "nobody said who works on it"
    assert not sheet.sampled_estimates(100)["usd.project"].known
    assert "usd.project" not in sheet.sampled(100)


def test_exact_leaves_leave_no_interval():
    sheet = Sheet()
    sheet.leaf("a.count", measured(3, "counted"))
    sheet.formula("a.square", "count^2", ("a.count",), lambda count: count ** 2)
    found = sheet.estimates()["a.square"]
    assert found.low == found.value == found.high == 9.0
    assert found.basis == "measured"


def test_a_bound_in_a_formula_bounds_its_interval():
    sheet = Sheet()
    sheet.leaf("a.share", Estimate(0.9, 0.5, 1.4))
    sheet.formula("mfu.run", "at most all", ("a.share",), lambda share: smaller(share, 1.0))
    for found in (sheet.estimates(), sheet.sampled_estimates(2000)):
        assert found["mfu.run"].high == pytest.approx(1.0)
        assert found["mfu.run"].low == pytest.approx(0.5, rel=0.05)


def test_influences_name_the_widest_first_and_only_what_matters():
    sheet = bill()
    sheet.leaf("other.leaf", PRICE)
    found = sheet.influences("usd.total")
    assert [name for name, _, _ in found] == ["rent.usd_per_hour", "seconds.total"]
    assert found[0][1:] == pytest.approx((45.0, 205.0))


def test_leaves_of_a_figure_are_those_it_follows_from():
    sheet = bill()
    sheet.leaf("other.leaf", PRICE)
    assert [one.key for one in sheet.leaves("usd.total")] == [
        "seconds.total", "rent.usd_per_hour", "fleet.count"]
    assert [one.key for one in sheet.leaves("other.leaf")] == ["other.leaf"]


def test_an_account_takes_its_sections_and_leaves_inner_figures_out():
    account = bill().account()
    assert set(account.usd) == {"rent", "total"}
    assert set(account.seconds) == {"total"}
    assert account.get("usd", "total").value == pytest.approx(85.0)
    assert [section for section, _, _ in account.lines()] == ["seconds", "usd", "usd"]


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UnknownName, match=r"usd\.total"):
        bill()["usd.totl"]


def test_a_key_is_written_once():
    sheet = bill()
    with pytest.raises(ValueError, match="already"):
        sheet.leaf("usd.rent", PRICE)
