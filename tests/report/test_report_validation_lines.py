from __future__ import annotations

import io

from curbcut.report import validation_lines
from curbcut.report.tables import plain_console

LINE = {"id": "a run", "reported": 1287000.0, "unit": "kWh", "reproduced": 1289400.0,
        "modelled": 1.4e6, "low": 1.0e6, "high": 2.0e6, "ratio": 1.088, "from_memory": True}


def said(more):
    out = io.StringIO()
    validation_lines.print_lines(plain_console(out), more)
    return out.getvalue()


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
