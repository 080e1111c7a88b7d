"""Trends as tables: what is not known is none and never 0, people are spared rows, programs not."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from curbcut.facts.currency import usd_per
from curbcut.report import trend as report
from curbcut.report.formats import written
from curbcut.report.tables import plain_console, read
from report.trend_sample import LINE, NOTHING, YEAR, outlook, reach, record

FRONTIER, DEAREST, ARITHMETIC, FACTORS, TASKS, AGAIN, MAP, HOW, YEARS = range(9)


@pytest.fixture(scope="module")
def found():
    return outlook()


def tables(found, currency="USD", **more):
    return list(report.tables(found, currency, **more))


def text(found, width=100, **more):
    console = plain_console(io.StringIO())
    console.width = width
    report.print_trend(found, console=console, **more)
    return console.file.getvalue()


def column(table, key):
    at = [one.key for one in table.columns].index(key)
    return [read(row[at]) for row in table.rows]


@pytest.mark.parametrize("whole", [False, True])
def test_keys_of_each_table_differ_and_rows_are_as_wide_as_its_columns(found, whole):
    made = tables(found, whole=whole)
    assert len(made) == 9
    for table in made:
        keys = [one.key for one in table.columns if one.only != "people"]
        assert len(set(keys)) == len(keys), table.title
        assert all(len(row) == len(table.columns) for row in table.rows), table.title


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_text_fits_its_console(found, width):
    assert max(map(len, text(found, width).splitlines())) <= width


def test_an_approach_without_a_line_has_no_growth_and_says_how_many_models(found):
    table = tables(found)[FRONTIER]
    assert column(table, "models") == [7, 4, 0]
    growth = column(table, "times_a_year")
    assert growth[0] == LINE.growth and growth[1:] == [None, None]
    assert column(table, "doubling_months")[0] == pytest.approx(12 * LINE.doubling_years)
    assert column(table, "newest") == ["2025-06-01", "2022-06-01", ""]


def test_the_dearest_come_first_and_people_see_five_of_them(found):
    shown, whole = (tables(found, whole=one)[DEAREST] for one in (False, True))
    assert column(shown, "model") == [f"Model {i}" for i in (6, 5, 4, 3, 2)]
    assert len(whole.rows) == 7 and shown.rows == whole.rows[:5]
    assert column(whole, "cloud_usd") == [None] * 7, "what no approach gives is none"
    assert column(whole, "acquisition_usd")[:3] == [None] * 3


def test_a_family_with_too_few_prices_says_so(found):
    table = tables(found, whole=True)[ARITHMETIC]
    assert column(table, "price") == ["rent of 16-bit", "purchase of fp8"]
    assert column(table, "times_a_year") == [LINE.growth, None]
    assert column(table, "best") == [1e18, None] and column(table, "on") == ["H100", ""]
    assert "too few" in text(found) and "best lately: 1.00 EFLOP on H100" in text(found)


def test_sources_are_a_column_for_programs_and_a_note_for_people(found):
    shown, whole = (tables(found, whole=one)[FACTORS] for one in (False, True))
    assert column(whole, "source") == ["a survey"]
    assert "arithmetic: a survey" in shown.notes and "source" not in [
        one.key for one in shown.columns]


def test_records_are_from_the_first_to_the_last(found):
    shown, whole = (tables(found, whole=one)[TASKS] for one in (False, True))
    assert column(whole, "took") == [43_000.0] and column(whole, "takes") == [73.0]
    assert column(whole, "times_less")[0] == pytest.approx(43_000 / 73)
    years = 6.96
    assert column(whole, "times_less_a_year")[0] == pytest.approx((43_000 / 73) ** (1 / years),
                                                                 rel=0.01)
    assert "$43.0k" in text(found) and "$73.00" in text(found)
    assert any("score 0.25" in note and "a log" in note for note in shown.notes)


def test_records_of_time_are_said_as_times(found):
    task = replace(found.tasks[0], records=tuple(
        replace(one, unit="seconds") for one in (record(one.day, one.value)
                                                 for one in found.tasks[0].records)))
    said = text(outlook(tasks=(task,)))
    assert "11.9 h" in said and "73.0 s" in said


def test_people_see_the_newest_ten_trainings_and_how_many_there_are(found):
    shown, whole = (tables(found, whole=one)[AGAIN] for one in (False, True))
    assert column(shown, "model") == [f"Model {i}" for i in range(2, 12)]
    assert any("the newest 10 of 12" in note for note in shown.notes)
    assert len(whole.rows) == 12 and not any("newest" in note for note in whole.notes)
    assert column(whole, "rented_usd")[11] is None and column(whole, "rented_usd")[0] == 2e5


def test_a_budget_that_buys_nothing_says_why_and_has_no_size(found):
    table = tables(found)[MAP]
    assert column(table, "binds") == ["too little for the smallest", "money", "money"]
    assert column(table, "parameters")[0].value is None
    assert column(table, "rule_of_thumb")[0] is None
    assert column(tables(found)[HOW], "budget_usd") == [100.0, 1000.0], "and it has no plan"


def test_where_time_binds_it_is_said(found):
    late = replace(found.reaches[1], time_binds=True)
    table = tables(outlook(reaches=(late,)))[MAP]
    assert column(table, "binds") == ["time"]


def test_tokens_go_with_the_size_that_was_read_off_between_rungs(found):
    row = tables(found)[HOW]
    rung = found.reaches[1].rung
    assert column(row, "tokens")[0] == pytest.approx(
        rung.tokens / rung.shape.parameters * found.reaches[1].parameters.value)


def test_years_ahead_are_said_to_be_extrapolated_and_those_behind_are_not(found):
    table = tables(found)[YEARS]
    assert [one.title for one in table.columns] == ["budget", "2023", "2026 today", "2030"]
    assert table.notes[0] == "extrapolated: 2030"
    assert [read(row[1]) for row in table.rows] == [None, 1e8, 1e9]
    assert "too little" in text(found)
    past = outlook(by_year=found.by_year[:2])
    assert not any(note.startswith("extrapolated") for note in tables(past)[YEARS].notes)


def test_what_algorithms_add_is_of_budgets_that_buy_something(found):
    note = tables(found)[YEARS].notes[-1]
    assert "200 M of today for $100.00" in note and "None" not in note


def test_another_years_map_says_by_which_trend(found):
    ahead = outlook(year=2030.0, reaches=tuple(
        reach(one, 2030.0, basis="extrapolated") for one in (100.0, 1000.0)))
    table = tables(ahead)[MAP]
    assert "in 2030:" in table.title
    assert any("extrapolated" in note for note in table.notes)
    today = tables(found)[MAP]
    assert "today's prices" in today.title
    assert not any("trend of rents" in note for note in today.notes)


def test_part_of_a_year_is_said_with_its_tenth(found):
    assert "in 2028.5:" in tables(outlook(year=2028.5))[MAP].title


def test_budgets_are_in_the_persons_currency_and_what_was_published_in_dollars(found):
    said = text(found, currency="EUR")
    assert f"{1000 / usd_per('EUR').value:,.2f} EUR" in said
    again = said[said.index("Published trainings"):said.index("Who can train")]
    assert "EUR" not in again and "$" in again
    assert written(tables(found, "EUR"), "csv") == written(
        [replace(one, currency="EUR") if one.currency == "EUR" else one
         for one in tables(found, "EUR")], "csv")


def test_json_is_strict_and_whole(found):
    console = plain_console(io.StringIO())
    report.print_trend(found, "json", console=console)
    said = json.loads(console.file.getvalue())["tables"]
    assert [len(one["rows"]) for one in said] == [3, 7, 2, 1, 1, 12, 3, 2, 3]
    assert said[MAP]["rows"][0]["parameters"]["value"] is None


def test_csv_parts_its_tables_and_leaves_what_is_not_known_empty(found):
    blocks = [list(csv.DictReader(io.StringIO(block.partition("\n")[2]))) for block in written(
        tables(found, whole=True), "csv").split("\n\n")]
    assert len(blocks) == 9
    assert blocks[MAP][0]["parameters"] == blocks[MAP][0]["parameters_low"] == ""
    assert float(blocks[MAP][1]["parameters_high"]) == 1.5e8


def test_nothing_at_all_prints_headings_and_no_error():
    empty = outlook(paces=(), factors=(), tasks=(), again=(), reaches=(NOTHING,),
                    by_year=((NOTHING,),))
    assert "Who can train what" in text(empty)
    assert len(tables(empty, whole=True)) == 9


def test_a_map_of_one_year_is_that_year(found):
    assert f"{int(YEAR)} (today's prices)" in text(found)
