from __future__ import annotations

import io
import math
import subprocess
import sys

import pytest

from curbcut.errors import UnknownName
from curbcut.report import tables
from curbcut.report.aligned import print_rows
from curbcut.report.labels import GROUPS
from curbcut.report.tables import Cell, Column, Figure, Table
from curbcut.spec import UNIT_OF, Estimate


def printed(columns, rows, width):
    out = io.StringIO()
    console = tables.plain_console(out)
    console.width = width
    print_rows(console, columns, rows)
    return out.getvalue().splitlines()


def test_every_section_of_an_account_has_its_group():
    assert sorted(s for group in GROUPS.values() for s in group) == sorted(UNIT_OF)


@pytest.mark.parametrize(("value", "section", "said"), [
    (240.0, "seconds", "4.00 min"), (2.0**31, "memory_bytes", "2.00 GiB"), (0.234, "mfu", "23.4%"),
    (0.004, "kwh", "4.00 Wh"), (None, "kwh", "unknown"), (0.0, "kwh", "0 Wh"),
    (math.inf, "usd", "no bound"), (999.5, "usd", "$999.50"), (1234.4, "usd", "$1,234"),
    (96_809.0, "usd", "$96.8k"), (51234.0, "tokens_per_second",
                                                                 "51,234 tok/s"),
])
def test_a_figure_is_said_in_the_unit_of_its_section(value, section, said):
    assert tables.figure(value, section) == said


@pytest.mark.parametrize(("estimate", "section", "said", "beside"), [
    (Estimate(240.0, 200.0, 300.0), "seconds", "3.33 .. 5.00 min", "3.33 .. 5.00"),
    (Estimate(100.0, 60.0, 200.0), "seconds", "60.0 s .. 3.33 min", "60.0 s .. 3.33 min"),
    (Estimate(0.2, 0.1, 0.3), "mfu", "10.0 .. 30.0%", "10.0 .. 30.0"),
    (Estimate(2.0, 1.0, 3.0), "usd", "$1.00 .. $3.00", "1.00 .. 3.00"),
    (Estimate(1.8, 1.7, 1.9), "loss", "1.70 .. 1.90", "1.70 .. 1.90"),
    (Estimate(96e3, 64.6e3, 162e3), "usd", "$64.6k .. $162k", "64.6k .. 162k"),
    (Estimate(1.31, 0.634, 4.94), "kgco2e", "634 gCO2e .. 4.94 kgCO2e", "0.634 .. 4.94"),
    (Estimate(2.0, 1e-4, 9.0), "kwh", "0.100 Wh .. 9.00 kWh", "0.100 Wh .. 9.00 kWh"),
    (Estimate(2.0, 1.0, math.inf), "usd", "$1.00 .. no bound", "$1.00 .. no bound"),
    (Estimate(2.0), "usd", "", ""), (Estimate(None), "usd", "", ""),
])
def test_an_interval_says_its_unit_once(estimate, section, said, beside):
    assert tables.interval(estimate, section) == said
    assert tables.interval(estimate, section, beside_value=True) == beside


def test_money_is_said_in_the_currency_of_the_place():
    from curbcut.facts.currency import usd_per

    assert tables.figure(10 * usd_per("EUR").value, "usd", "EUR") == "10.00 EUR"
    assert tables.figure(0.001 * usd_per("EUR").value, "usd", "EUR") == "0.0010 EUR"
    with pytest.raises(UnknownName):
        tables.figure(1.0, "usd", "XXX")


def test_columns_align_and_the_last_one_that_may_is_cut_first():
    columns = [Column("a"), Column("b", right=True), Column("c", least=4)]
    rows = [["x", Cell("123", "bold"), "a long text that goes on"], ["yy", "4", "short"]]
    wide = printed(columns, rows, 80)
    assert wide[1:] == ["x   123  a long text that goes on", "yy    4  short"]
    narrow = printed(columns, rows, 20)
    assert narrow[1:] == ["x  123 a long text …", "yy   4 short"]
    assert all(len(line) <= 20 for line in narrow)


def test_brackets_are_text_and_not_markup():
    assert printed([Column("a")], [["[red]x[/red] [1]"]], 80)[1] == "[red]x[/red] [1]"


def test_a_stream_that_knows_only_ascii_still_gets_its_table():
    code = ("from curbcut.report.tables import *\n"
            "from curbcut.report.aligned import print_rows\n"
            "print_rows(plain_console(), [Column('a', least=3)], [['\u20ac ' + 'x' * 200]])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True,
                          env={"PYTHONIOENCODING": "ascii", "COLUMNS": "40"})
    assert done.stdout.splitlines()[1] == b"? " + b"x" * 77 + b"?"


def test_importing_the_room_imports_neither_rich_nor_sqlalchemy():
    code = ("import sys, curbcut.report.tables, curbcut.report.account, curbcut.report.methods\n"
            "sys.exit(bool({'rich', 'sqlalchemy', 'torch'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def shown(table, width=80):
    console = tables.plain_console(io.StringIO())
    console.width = width
    tables.show([table], console=console)
    return console.file.getvalue().splitlines()


def test_figures_of_one_column_may_have_units_of_their_own():
    table = Table("", (Column("", name="what"), Column("value", interval=True)), [
        ("time", Figure(Estimate(240.0, 200.0, 300.0), "seconds")),
        ("room", Figure(2.0**30, "bytes")), ("money", Figure(None, "usd"))], currency="EUR")
    assert [line.split() for line in shown(table)[1:]] == [
        ["time", "4.00", "min", "3.33", "..", "5.00"], ["room", "1.00", "GiB"],
        ["money", "unknown"]]
    assert tables.read(table.rows[0][1]) == Estimate(240.0, 200.0, 300.0)


def test_long_text_goes_on_below_in_its_column():
    table = Table("", (Column("a"), Column("b", least=10, wrap=True)), [("x", "one two " * 12)])
    lines = shown(table)[1:]
    assert len(lines) == 2 and lines[0].startswith("x  one") and lines[1].startswith("   ")
    assert " ".join(lines).split()[1:] == ["one", "two"] * 12


def test_what_stands_below_its_row_is_whole_and_indented():
    table = Table("", (Column("a"), Column("why", below=True), Column("n")), [
        ("  x", "a reason " * 20, 3), ("y", "", 4)])
    lines = shown(table)
    assert lines[1].split() == ["x", "3"] and lines[-1].split() == ["y", "4"]
    assert all(line.startswith("      a") or line.startswith("      r") for line in lines[2:-1])
    assert " ".join(lines[2:-1]).split() == ["a", "reason"] * 20


def test_a_table_without_columns_is_a_heading_with_sentences():
    assert shown(Table("Held", (), (), ["one"])) == ["Held", "one"]


def test_a_column_without_room_stands_below_its_row():
    table = Table("", (Column("a"), Column("b"), Column("c")), [("x" * 40, "y" * 30, "z" * 20)])
    assert shown(table)[1:] == [f"{'x' * 40}  {'y' * 30}", f"    {'z' * 20}"]
    assert len(shown(table, 100)) == 2
