"""Laws of aligned text and of intervals: nothing that matters is lost at any width."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.report import tables
from curbcut.report.formats import as_csv, as_markdown
from curbcut.report.tables import Cell, Column, Figure, Table
from curbcut.spec import UNIT_OF, Estimate

word = st.text("abcxyz", min_size=1, max_size=9)
sentence = st.lists(word, min_size=0, max_size=30).map(" ".join)
rows = st.lists(st.tuples(word, st.floats(-1e6, 1e6), sentence), min_size=1, max_size=5)


def lines(table, width):
    console = tables.plain_console(io.StringIO())
    console.width = width
    tables.print_table(table, console)
    return console.file.getvalue().splitlines()


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(80, 160))
def test_text_that_may_wrap_is_whole_at_any_width(found, width):
    table = Table("", (Column("a"), Column("n"), Column("why", least=20, wrap=True)), found)
    printed = lines(table, width)
    assert all(len(line) <= width for line in printed)
    words = " ".join(printed[1:]).split()
    for name, _, text in found:
        assert name in words
        assert all(one in words for one in text.split())


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(80, 160))
def test_what_stands_below_is_whole_and_in_its_order(found, width):
    table = Table("", (Column("a"), Column("n"), Column("why", below=True)), found)
    printed = lines(table, width)
    assert all(len(line) <= width for line in printed)
    said = [one for line in printed[1:] if line.startswith("    ") for one in line.split()]
    assert said == [one for _, _, text in found for one in text.split()]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(word, sentence), min_size=1, max_size=5), st.integers(40, 100))
def test_text_that_may_be_cut_says_so_and_the_first_column_stands(found, width):
    table = Table("", (Column("a"), Column("long", least=6)), found)
    printed = lines(table, width)[1:]
    assert len(printed) == len(found)
    for line, (name, text) in zip(printed, found, strict=True):
        assert len(line) <= width and line.startswith(name)
        assert line.endswith("…") or line.split()[1:] == text.split()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=6))
def test_numbers_end_below_each_other(values):
    table = Table("", (Column("a"), Column("n", unit="kwh")), [("x", one) for one in values])
    assert len({len(line) for line in lines(table, 100)[1:]}) == 1


def test_a_row_and_its_wrapped_lines_keep_their_style_and_numbers_stand_once():
    table = Table("", (Column("a"), Column("n"), Column("why", least=10, wrap=True)),
                  [("x", 3, "word " * 40)])
    printed = lines(table, 80)[1:]
    assert len(printed) > 2 and sum("3" in line for line in printed) == 1


def test_a_heading_without_words_takes_no_line():
    assert lines(Table("", (Column("", name="a"), Column("", name="b")), [("x", "y")]), 80) == [
        "x  y"]


def test_a_table_without_rows_is_its_title_and_notes():
    assert lines(Table("None", (Column("a"),), [], ["why"]), 80) == ["None", "why"]


# --- quantities and intervals ---------------------------------------------------------------------

DIMENSIONS = sorted(set(UNIT_OF.values()))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DIMENSIONS), st.floats(1e-3, 1e9), st.floats(1.05, 50), st.booleans())
def test_an_interval_is_two_ends_in_order(unit, value, wide, beside):
    said = tables.span(Estimate(value, value / wide, value * wide), unit, beside_value=beside)
    low, between, high = said.partition(" .. ")
    assert low and between and high
    assert all(re.search(r"\d", end) for end in (low, high))
    assert not re.search(r"\d", said.replace(low, "", 1).replace(high, "", 1).replace("..", ""))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([one for one in DIMENSIONS if one not in ("usd", "tokens/s", "seconds",
                                                                 "count", "")]),
       st.floats(1.0, 500.0), st.floats(1.05, 5.0))
def test_beside_its_value_an_interval_says_numbers_of_the_same_unit(unit, value, wide):
    """Read with the value's unit, both ends are what they were."""
    estimate = Estimate(value, value / wide, value * wide)
    low, _, high = tables.span(estimate, unit, beside_value=True).partition(" .. ")
    shown = tables.quantity(value, unit)
    if any(re.search("[A-Za-z]", end) for end in (low, high)):
        return  # each end says its own unit: nothing to carry over
    factor = value / float(shown.split(" ")[0].rstrip("%").replace(",", ""))
    for text, end in ((low, estimate.low), (high, estimate.high)):
        assert float(text.rstrip("%").replace(",", "")) * factor == pytest.approx(end, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1e14), st.sampled_from(["USD", "EUR", "JPY", "INR"]))
def test_money_is_said_to_three_digits_in_any_currency(usd, currency):
    from curbcut.facts.currency import usd_per

    said = tables.money(usd, currency)
    assert said.startswith("$") or said.endswith(" ct") or said.endswith(f" {currency}")
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    text = said.removesuffix(f" {currency}").lstrip("$").replace(",", "")
    cents = text.endswith(" ct")
    number = float(text.removesuffix(" ct").rstrip("kMBT")) * scale.get(text[-1], 1.0)
    amount = usd / usd_per(currency).value
    assert number * (0.01 if cents else 1.0) == pytest.approx(amount, rel=0.051)


def test_what_is_no_number_is_said_in_words():
    assert tables.quantity(float("-inf"), "usd") == "-no bound"
    assert tables.quantity(None, "seconds") == "unknown"


# --- the same in every format ---------------------------------------------------------------------

cells = st.one_of(st.none(), st.booleans(), word, st.floats(0.1, 1e6),
                  st.floats(0.1, 1e6).map(lambda value: Estimate(value, value / 2, value * 2)),
                  st.floats(0.1, 1e6).map(lambda value: Figure(value, "kwh")),
                  word.map(lambda text: Cell(text.upper(), "bold", text)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_every_format_has_as_many_rows_and_full_columns(found):
    table = Table("t", (Column("a", interval=True), Column("b")), found, ["note"])
    csv_lines = as_csv(table).splitlines()
    assert len(csv_lines) == 1 + len(found)
    assert all(line.count(",") == 3 for line in csv_lines)
    marks = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
    assert len(marks) == 2 + len(found) and len({line.count("|") for line in marks}) == 1


@settings(max_examples=40, deadline=None)
@given(cells)
def test_what_a_program_reads_is_never_dressed_up(cell):
    found = tables.read(cell)
    assert not isinstance(found, Cell | Figure)
    if isinstance(cell, Cell):
        assert found == cell.plain and found != cell.text


def test_markdown_is_text_whatever_stands_in_it():
    table = Table("a|b <c>", (Column("x|y"),), [("back\\slash | <b>bold</b>\nnext",)])
    text = as_markdown(table)
    row = text.splitlines()[-1]
    assert row == r"| back\\slash \| &lt;b>bold&lt;/b> next |"
    assert r"| x\|y |" in text
