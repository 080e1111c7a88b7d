"""The four formats of a table hold the same, and what a program reads comes back exactly."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.cli import formats as options
from curbcut.errors import InputError, UnknownName
from curbcut.report import formats
from curbcut.report.tables import Cell, Column, Table, plain_console, show
from curbcut.spec import Estimate

WAYS = Table(
    "Ways to pay",
    (Column("way"), Column("cost", unit="usd", interval=True), Column("time", unit="seconds"),
     Column("sold?"), Column("source", least=8)),
    [("spot", Estimate(1.2e6, 0.9e6, 1.7e6, "modelled", "book"), 7200.0, True, "a | b\nc"),
     (Cell("", plain="own"), None, None, False, Cell("list price", "dim", "Epoch, \"2025\""))],
    notes=["prices of 2026-03"])


def shown(tables, chosen, plain=None, width=100):
    out = io.StringIO()
    console = plain_console(out)
    console.width = width
    show(tables, chosen, plain=plain, console=console)
    return out.getvalue()


def test_people_read_units_an_interval_and_notes():
    lines = shown([WAYS], "text").splitlines()
    assert lines[0] == "Ways to pay"
    assert lines[1].split() == ["way", "cost", "90%", "interval", "time", "sold?", "source"]
    assert " ".join(lines[2].split()).startswith("spot $1.20M 900k .. 1.70M 2.00 h yes a | b c")
    assert "unknown" in lines[-2] and "no" in lines[-2]
    assert lines[-1] == "prices of 2026-03"


def test_csv_comes_back_equal():
    header, *rows = list(csv.reader(io.StringIO(shown([WAYS], "csv"))))
    assert header == ["way", "cost_usd", "cost_usd_low", "cost_usd_high", "time_seconds", "sold",
                      "source"]
    assert rows[0][:6] == ["spot", "1200000.0", "900000.0", "1700000.0", "7200.0", "true"]
    assert rows[0][6] == "a | b\nc"
    assert rows[1] == ["own", "", "", "", "", "false", 'Epoch, "2025"']


def test_json_has_keys_units_intervals_and_sources():
    (table,) = json.loads(shown([WAYS], "json"))["tables"]
    assert table["columns"][1] == {"key": "cost_usd", "title": "cost", "unit": "usd"}
    assert table["rows"][0]["cost_usd"] == {"value": 1.2e6, "low": 0.9e6, "high": 1.7e6,
                                            "basis": "modelled", "source": "book"}
    assert table["rows"][1] == {"way": "own", "cost_usd": None, "time_seconds": None,
                                "sold": False, "source": 'Epoch, "2025"'}
    assert table["notes"] == ["prices of 2026-03"]


def test_a_verbs_own_json_stands_in_for_its_tables():
    assert json.loads(shown([WAYS], "json", plain=[{"a": 1}])) == [{"a": 1}]


def test_markdown_keeps_bars_and_lines_in_their_cells():
    lines = shown([WAYS], "markdown").splitlines()
    assert lines[:2] == ["### Ways to pay", ""]
    assert lines[3] == "|---|---:|---:|---:|---|---|"
    cells = lines[4].replace(r"\|", "¦").split("|")
    assert len(cells) == 8 and cells[-2] == " a ¦ b c "
    assert lines[-1] == "- prices of 2026-03"


def test_several_tables_are_parted_and_titled():
    text = shown([WAYS, WAYS], "csv")
    blocks = text.split("\n\n")
    assert len(blocks) == 2 and all(block.startswith("Ways to pay\nway,") for block in blocks)
    assert shown([WAYS, WAYS], "text").count("Ways to pay") == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\x00")),
    st.none() | st.floats(allow_nan=False), st.none() | st.integers())))
def test_whatever_is_written_as_csv_is_read_back(rows):
    table = Table("", (Column("a"), Column("b", unit="seconds"), Column("c")), rows)
    found = list(csv.reader(io.StringIO(formats.as_csv(table), newline="")))[1:]
    back = [(a, float(b) if b else None, int(c) if c else None) for a, b, c in found]
    assert back == rows


@pytest.mark.parametrize(("value", "field"), [
    (np.float64(0.1), "0.1"), (math.inf, "inf"), (3, "3"), (None, ""), (True, "true")])
def test_fields_are_plain_figures(value, field):
    assert formats.as_csv(Table("", (Column("x"),), [(value,)])) == f"x\n{field}\n".replace(
        "\n\n", '\n""\n')


def test_a_bound_that_is_none_is_null_in_json():
    text = shown([Table("", (Column("x", interval=True),), [(Estimate(2.0, 1.0, math.inf),)])],
                 "json")
    assert json.loads(text)["tables"][0]["rows"][0]["x"]["high"] is None


@pytest.mark.parametrize(("column", "key"), [
    (Column("cost", unit="usd"), "cost_usd"), (Column("time (s)", unit="seconds"),
                                               "time_s_seconds"),
    (Column("USD", unit="usd"), "usd"), (Column("of peak", unit="fraction"), "of_peak_share"),
    (Column("models", unit="count"), "models"), (Column("", name="group"), "group"),
    (Column("speed", unit="flops/s"), "speed_flops_per_second")])
def test_keys_say_their_unit(column, key):
    assert column.key == key


def test_money_of_millions_has_three_digits_in_any_currency():
    dollars = Table("", (Column("x", unit="usd"),), [(1_959_693.42,), (3.2e9,), (999.5,)])
    assert [line.strip() for line in shown([dollars], "text").splitlines()[1:]] == [
        "$1.96M", "$3.20B", "$999.50"]
    euros = Table("", dollars.columns, dollars.rows, currency="EUR")
    assert "M EUR" in shown([euros], "text")
    assert formats.as_csv(euros) == formats.as_csv(dollars)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    options.add(parser)
    return options.chosen(parser.parse_args(arguments))


def test_json_is_the_short_form():
    assert (parsed(), parsed("--json"), parsed("--format", "csv"),
            parsed("--json", "--format", "json")) == ("text", "json", "csv", "json")


@pytest.mark.parametrize(("arguments", "error", "said"), [
    (("--format", "cvs"), UnknownName, "did you mean 'csv'"),
    (("--format", "csv", "--json"), InputError, "give one of them")])
def test_formats_that_are_none(arguments, error, said):
    with pytest.raises(error, match=said):
        parsed(*arguments)


def test_some_columns_are_for_programs_and_some_for_people():
    table = Table("t", (Column("a"), Column("b", only="programs"), Column("c", only="people")),
                  [("x", "y", "z")])
    assert formats.written([table], "csv") == "a,b\nx,y\n"
    assert "| x | z |" in formats.written([table], "markdown")
    plain = formats.as_plain(table)
    assert plain["rows"] == [{"a": "x", "b": "y"}] and len(plain["columns"]) == 2


def test_sentences_alone_are_no_csv():
    tables_ = [Table("Said", (), (), ["a < b"]), Table("t", (Column("a"),), [("x",)])]
    assert formats.written(tables_, "csv") == "a\nx\n"
    assert formats.written(tables_, "markdown").startswith("### Said\n\n- a &lt; b\n\n### t\n")
