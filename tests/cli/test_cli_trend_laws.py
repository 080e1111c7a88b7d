"""`curbcut trend`: the map grows with money and years, whatever currency or format it is read in.
"""

from __future__ import annotations

import itertools
import json

import pytest

from curbcut.cli.main import main
from curbcut.facts.currency import usd_per

REACH = 6
"""Table of the map."""


def reaches(capsys, *arguments):
    assert main(["trend", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["tables"][REACH]["rows"]


def test_a_map_rises_with_each_budget(capsys):
    amounts = [str(10 ** power) for power in (2, 4, 6, 8)]
    rows = reaches(capsys, *[part for amount in amounts for part in ("--budget", f"{amount} USD")])
    sizes = [row["parameters"]["value"] for row in rows]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    # Size grows about as the square root of money: C = 120 P^2.
    assert all(4 < later / before < 20 for before, later in itertools.pairwise(sizes))


def test_a_later_year_is_a_larger_model_for_the_same_money(capsys):
    found = [reaches(capsys, "--budget", "10000 USD", "--year", str(year))[0]["parameters"]
             for year in (2022, 2028, 2034)]
    assert [one["value"] for one in found] == sorted(one["value"] for one in found)
    for one in found:
        assert one["low"] <= one["value"] <= one["high"]
    now, far = found[1], found[2]
    assert far["high"] / far["low"] > now["high"] / now["low"]


@pytest.mark.parametrize("code", ["EUR", "JPY"])
def test_any_currency_is_its_dollars(capsys, code):
    amount = 7000.0
    own = reaches(capsys, "--budget", f"{amount} {code}")[0]
    dollars = reaches(capsys, "--budget", f"{amount * usd_per(code).value!r} USD")[0]
    assert own["budget_usd"] == pytest.approx(dollars["budget_usd"])
    assert own["parameters"] == pytest.approx(dollars["parameters"])


def test_budgets_keep_the_order_that_they_were_named_in(capsys):
    rows = reaches(capsys, "--budget", "5000 USD", "--budget", "50 USD", "--budget", "500 USD")
    assert [row["budget_usd"] for row in rows] == [5000.0, 50.0, 500.0]


def test_a_budget_below_the_smallest_shape_says_what_that_costs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["trend", "--budget", "0.0001 USD"]) == 0
    out = capsys.readouterr().out
    assert "smallest shape" in out
    found = reaches(capsys, "--budget", "0.0001 USD")[0]["parameters"]
    assert (found["value"], found["low"], found["high"]) == (None, None, None)


@pytest.mark.parametrize("year", ["2010", "2050"])
def test_years_at_the_edge_are_answered_and_none_beyond(capsys, year):
    assert reaches(capsys, "--budget", "1e6 USD", "--year", year)[0]["parameters"]
    for beyond in ("2009.9", "inf"):
        assert main(["trend", "--year", beyond]) == 2
        assert "nearest: 20" in capsys.readouterr().err
