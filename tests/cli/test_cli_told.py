"""How a plan is told: formats, one figure explained, intervals from draws, ages of prices."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import pytest

from curbcut.accounts import money
from curbcut.cli.main import main
from curbcut.spec.estimate import Estimate

RUN = ("plan", "--model", "curb-4m", "--on", "2xA100", "--tokens", "10M")
SEARCH = (*RUN, "--search")
BUDGET = ("plan", "--budget", "50 EUR", "--on", "1xH100,1xA100")
WAYS = pytest.mark.parametrize("arguments", [RUN, SEARCH, BUDGET], ids=["run", "search", "budget"])


@pytest.fixture
def said(capsys, tmp_path):
    """Prints a plan with an empty ledger; its output."""
    def call(*arguments, code=0):
        assert main([*arguments, "--runs", str(tmp_path)]) == code
        return capsys.readouterr()
    return call


def test_csv_has_every_figure_in_full_and_its_key(said):
    found = said(*RUN, "--format", "csv").out
    plain = json.loads(said(*RUN, "--json").out)["forecast"]
    table = found.partition("\nForecast\n")[2].partition("\n\n")[0]
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(table))}
    assert float(rows["usd.total"]["value_high"]) == plain["usd"]["total"]["high"]
    assert rows["usd.staff"]["value"] == "" and "staff" in rows["usd.staff"]["source"]
    ways = csv.DictReader(io.StringIO(found.partition("\nWays to pay for this run\n")[2]))
    assert {row["key"] for row in ways} == {f"usd_ways.{kind}" for kind in plain["usd_ways"]}
    known = {f"{section}.{kind}" for section in plain for kind in plain[section]
             if section not in ("usd_ways", "kwh_modelled")}
    assert known <= set(rows)


@WAYS
@pytest.mark.parametrize("chosen", ["text", "markdown", "csv"])
def test_every_way_to_a_plan_has_every_format(said, arguments, chosen):
    found = said(*arguments, "--format", chosen).out
    assert found.strip()
    if chosen == "markdown":
        assert "### Forecast" in found and "| time | steps |" in found
    if chosen == "csv":
        assert "\ngroup,figure,key,value,value_low,value_high,unit,basis,source\n" in found


@WAYS
def test_json_by_either_option_is_the_same(said, arguments):
    first, second = said(*arguments, "--json"), said(*arguments, "--format", "json")
    assert first.out == second.out
    assert {"run", "origins", "forecast"} <= set(json.loads(first.out))


@WAYS
def test_a_figure_of_the_printed_plan_is_explained(said, arguments):
    printed = json.loads(said(*arguments, "--json").out)["forecast"]["usd"]["total"]
    told = json.loads(said(*arguments, "--explain", "usd.total", "--json").out)
    assert told["key"] == "usd.total" and told["estimate"]["value"] == printed["value"]
    assert {"seconds.total", "usd.rent"} <= {one["key"] for one in told["inputs"]}
    text = said(*arguments, "--explain", "usd.total").out
    assert text.startswith("usd.total = ") and "What moves usd.total most" in text
    assert "run  " not in text.splitlines()[0]


def test_the_explanation_has_the_other_formats(said):
    assert "| usd.rent |" in said(*RUN, "--explain", "usd.rent", "--format", "markdown").out
    assert "key,value,value_low," in said(*RUN, "--explain", "usd.rent", "--format", "csv").out


@WAYS
def test_an_unknown_figure_names_the_nearest(said, arguments):
    found = said(*arguments, "--explain", "usd.totl", code=2)
    assert "unknown figure 'usd.totl'" in found.err and "usd.total" in found.err
    assert found.out == ""


def test_a_figure_of_serving_is_explained_too(said):
    told = said(*RUN, "--serve", "1e9tok/month", "--explain", "seconds.ttft").out
    assert told.startswith("seconds.ttft = ")


def test_draws_move_the_intervals_and_not_the_values(said):
    first = json.loads(said(*RUN, "--json").out)
    drawn = json.loads(said(*RUN, "--samples", "400", "--json").out)
    again = json.loads(said(*RUN, "--samples", "400", "--json").out)
    assert drawn == again
    one, other = first["forecast"]["usd"]["total"], drawn["forecast"]["usd"]["total"]
    assert one["value"] == other["value"] and one["high"] != other["high"]
    assert other["high"] == pytest.approx(one["high"], rel=0.5)


def test_a_search_with_draws_shows_the_best_with_them(said):
    assert "Ways to pay" in said(*SEARCH, "--samples", "100").out
    assert "Ways to pay" not in said(*SEARCH).out


@pytest.mark.parametrize(("number", "mend"), [("99", "nearest: 100"), ("-1", "nearest: 100"),
                                              ("100001", "nearest: 100000")])
def test_too_few_or_many_draws_are_refused(said, number, mend):
    found = said(*RUN, "--samples", number, code=2)
    assert "--samples" in found.err and mend in found.err


def test_old_prices_are_said_to_people_only(said, monkeypatch):
    plain, text = said(*RUN, "--json").out, said(*RUN).out
    warn = money.price_warning
    monkeypatch.setattr(money, "price_warning",
                        lambda machine, place, today: warn(machine, place, date(2031, 1, 1)))
    assert "days old" in " ".join(said(*RUN).out.split()) and "days old" not in text
    assert "days old" in said(*SEARCH).err
    for chosen in ("markdown", "csv"):
        assert "days old" not in said(*RUN, "--format", chosen).out
    assert said(*RUN, "--json").out == plain


def test_the_ledgers_own_ratio_replaces_the_literatures(said, monkeypatch):
    from curbcut.cli import told

    before = json.loads(said(*RUN, "--json").out)["forecast"]["usd"]
    monkeypatch.setattr(told, "ledger_ratio", lambda path: Estimate(
        3.0, 2.0, 4.0, "measured", "own ledger: 9 trainings, 6 of them finished"))
    after = json.loads(said(*RUN, "--json").out)["forecast"]["usd"]
    assert after["total"] == before["total"]
    assert after["project"]["value"] == pytest.approx(3 * after["total"]["value"])
    assert "own ledger" in said(*RUN, "--explain", "usd.project").out


def test_formats_that_are_none_or_disagree(said):
    assert "markdown" in said(*RUN, "--format", "markdwn", code=2).err
    assert "--json" in said(*RUN, "--format", "csv", "--json", code=2).err
