from __future__ import annotations

import io

import pytest

from curbcut.report import validation_lines
from curbcut.report.formats import as_csv
from curbcut.report.tables import plain_console, show

LINE = {"id": "a run", "reported": 1287000.0, "unit": "kWh", "reproduced": 1289400.0,
        "modelled": 1.4e6, "low": 1.0e6, "high": 2.0e6, "ratio": 1.088, "from_memory": True}


def said(more, width=100):
    console = plain_console(io.StringIO())
    console.width = width
    table = validation_lines.table(more)
    show([table] if table else [], console=console)
    return "\n".join([console.file.getvalue(), *validation_lines.sentences(more)]).strip()


def test_a_row_shows_reported_reproduced_and_modelled():
    found = said({"lines": [LINE]})
    for part in ("a run (from memory)", "1.287M", "1.289M", "1.4M", "1M .. 2M", "1.09"):
        assert part in found


def test_what_is_not_known_is_a_dash():
    found = said({"lines": [LINE | {"reproduced": None, "low": None, "ratio": None}]})
    assert found.count(" -") >= 3


def test_long_tables_are_cut_and_say_so():
    found = said({"lines": [LINE | {"id": f"row {n}"} for n in range(70)]})
    assert "row 59" in found and "row 60" not in found and "and 10 more" in found


def test_nothing_to_show_prints_nothing():
    assert said({}) == ""


def test_error_factors_are_said():
    found = said({"error_factors": {"joules": {"all": {"typical": 1.14, "p90": 1.4, "rows": 3}}}})
    assert "x1.14" in found and "x1.40" in found


def test_what_was_reproduced_is_counted():
    found = said({"reproduced": {"cloud": {"rows": 40, "reproduced": 39,
                                           "max_relative_error": 2e-5},
                                 "none": {"rows": 0, "reproduced": 0,
                                          "max_relative_error": None}}})
    assert "cloud: 39 of 40 reproduced" in found and "2.0e-05" in found and "none" not in found


@pytest.mark.parametrize("width", [80, 100])
def test_a_row_stays_on_its_line_at_any_width(width):
    found = said({"lines": [LINE | {"id": "a long name of a run and its machine"}]}, width)
    assert all(len(line) <= width for line in found.splitlines())
    assert [line for line in found.splitlines() if line.endswith("1.09")]


def test_csv_has_all_rows_and_both_ends():
    table = validation_lines.table({"lines": [LINE] * 70}, "csv")
    lines = as_csv(table).splitlines()
    assert lines[0] == "row,reported,unit,own_method,modelled,low,high,ratio"
    assert len(lines) == 71 and lines[1].split(",")[5:] == ["1000000.0", "2000000.0", "1.088"]
