from __future__ import annotations

import csv
import io
import json

import pytest

from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.report import tables
from curbcut.report.explain import as_plain, explanation, show_explanation
from curbcut.spec.estimate import Estimate, given, unknown


@pytest.fixture
def sheet():
    found = Sheet()
    found.leaf("seconds.total", Estimate(7200.0, 3600.0, 14400.0, "modelled", "a roofline"),
               "seconds")
    found.leaf("rent.usd_per_hour", Estimate(2.0, 1.5, 3.0, "default", "a price book of 2026"),
               "usd")
    found.leaf("usd.staff", unknown("nobody said who works on it"), "usd")
    found.leaf("fleet.count", given(8, "the fleet"))
    found.formula("usd.rent", "hours x accelerators x rent",
                  ("seconds.total", "fleet.count", "rent.usd_per_hour"),
                  lambda seconds, count, rent: seconds / 3600 * count * rent, "usd")
    found.formula("usd.total", "rent + staff", ("usd.rent", "usd.staff"),
                  lambda rent, staff: rent + staff, "usd")
    found.formula("usd.twice", "rent + rent", ("usd.rent", "usd.rent"),
                  lambda one, other: one + other, "usd")
    return found


def printed(sheet, key):
    file = io.StringIO()
    tables.show(explanation(sheet, key), console=tables.plain_console(file))
    return file.getvalue()


def test_it_says_value_interval_formula_inputs_and_sources(sheet):
    text = printed(sheet, "usd.rent")
    assert text.startswith("usd.rent = $32.00  (90%: $15.")
    assert "= hours x accelerators x rent" in text
    for said in ("10,000 draws", "seconds.total", "2.00 h", "a roofline", "a price book of 2026",
                 "fleet.count", "log-normal"):
        assert said in text


def test_the_leaf_that_moves_it_most_stands_first(sheet):
    moved = printed(sheet, "usd.rent").partition("What moves")[2]
    assert 0 < moved.index("seconds.total") < moved.index("rent.usd_per_hour")
    assert "fleet.count" not in moved


def test_what_is_not_known_says_why(sheet):
    text = printed(sheet, "usd.total")
    assert "usd.total = unknown, nobody said who works on it" in text
    assert "draws" not in text


def test_a_figure_met_again_is_not_opened_again(sheet):
    assert printed(sheet, "usd.twice").count("fleet.count") == 1


def test_json_has_the_same_in_si(sheet):
    plain = json.loads(json.dumps(as_plain(sheet, "usd.rent")))
    assert plain["estimate"]["value"] == 32.0
    assert [one["key"] for one in plain["inputs"]] == [
        "usd.rent", "seconds.total", "fleet.count", "rent.usd_per_hour"]
    assert plain["inputs"][1]["estimate"]["value"] == 7200.0
    assert plain["inputs"][1]["distribution"] == "log-normal"
    assert plain["drawn"]["low"] < 32.0 < plain["drawn"]["high"]
    assert [one["key"] for one in plain["influences"]] == ["seconds.total", "rent.usd_per_hour"]


def test_an_unknown_key_names_the_nearest(sheet):
    with pytest.raises(UnknownName, match=r"usd\.rent"):
        printed(sheet, "usd.rant")
    with pytest.raises(UnknownName, match=r"usd\.rent"):
        as_plain(sheet, "usd.rant")


def test_csv_has_the_tree_with_units_and_depths(sheet, capsys):
    show_explanation(sheet, "usd.rent", "csv")
    titled, tree = capsys.readouterr().out.split("\n", 1)
    assert titled.startswith("usd.rent = ")
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(tree.partition("\n\n")[0]))}
    assert float(rows["seconds.total"]["value_high"]) == 14400.0
    assert (rows["seconds.total"]["unit"], rows["seconds.total"]["depth"]) == ("seconds", "1.0")
    assert rows["usd.rent"]["from"] == "= hours x accelerators x rent"


def test_markdown_and_json_say_the_same_figure(sheet, capsys):
    show_explanation(sheet, "usd.rent", "markdown")
    assert "| usd.rent | $32.00 |" in capsys.readouterr().out
    show_explanation(sheet, "usd.rent", "json", samples=200, seed=3)
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == 200 and told == as_plain(sheet, "usd.rent", samples=200, seed=3)


def test_money_is_said_in_the_currency_of_the_place(sheet):
    (title, *_), *_ = [[table.title] for table in explanation(sheet, "usd.rent", currency="EUR")]
    assert " EUR " in title and "$" not in title
