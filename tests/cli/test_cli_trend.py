"""`curbcut trend` as a person, a script and a reader of pictures meet it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from curbcut.cli.main import main
from curbcut.facts.currency import usd_per
from curbcut.plan.machines import build, from_facts


def call(capsys, *arguments):
    code = main(["trend", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def whole():
    """The tables of one call, as JSON."""
    from curbcut.plan.trend.outlook import outlook
    from curbcut.report.trend import tables

    return outlook(), list(tables(outlook()))


def test_people_read_the_published_growth_and_the_map(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    code, out, err = call(capsys)
    assert (code, err) == (0, "")
    line = next(one for one in out.splitlines() if one.startswith("hardware written off"))
    assert line.split()[5:] == ["45", "2.45", "1.96", "..", "3.05", "0.608", "9.3", "months",
                               "2023-12-06"]
    assert "Who can train what in 2026 (today's prices)" in out
    assert "extrapolated: 2028, 2030" in out and "C = 120 P^2" in out
    assert "nanochat README" in out and "2403.05812" in out


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_longer_than_the_console(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = call(capsys, "--budget", "5000 EUR", "--budget", "3 EUR", "--budget", "0.0001 EUR")[1]
    tables = [line for line in lines.splitlines() if "  " in line.strip()]
    assert max(map(len, lines.splitlines())) <= width
    # A line that was wrapped would begin with a figure of the last column.
    assert all(line.split()[0] != ".." for line in tables)


def test_programs_read_every_table(capsys):
    code, out, _ = call(capsys, "--json", "--budget", "1000 USD", "--budget", "$1e5")
    found = json.loads(out)["tables"]
    assert code == 0 and len(found) == 9
    frontier = found[0]["rows"][0]
    assert frontier["times_a_year"]["value"] == pytest.approx(2.448, abs=1e-3)
    assert len(found[1]["rows"]) >= 45
    budgets = [row["budget_usd"] for row in found[6]["rows"]]
    assert budgets == [1000.0, 1e5]
    assert found[6]["rows"][0]["parameters"]["low"] < found[6]["rows"][0]["parameters"]["high"]


def test_csv_has_all_tables_of_plain_figures(capsys):
    code, out, _ = call(capsys, "--format", "csv")
    blocks = [list(csv.reader(io.StringIO(block))) for block in out.split("\n\n")]
    assert code == 0 and len(blocks) == 9
    title, header, *rows = blocks[6]
    assert "Who can train what" in title[0]
    assert [float(row[header.index("budget_usd")]) for row in rows] == [10.0 ** p for p in
                                                                        range(2, 10)]
    sizes = [float(row[header.index("parameters")]) for row in rows]
    assert sizes == sorted(sizes)
    assert all(len(row) == len(header) for row in rows)


def test_markdown_has_a_heading_a_table(capsys):
    code, out, _ = call(capsys, "--format", "markdown", "--budget", "5000 EUR")
    assert code == 0 and out.count("### ") == 9
    assert "| 5,000 EUR |" in out


def test_a_budget_in_euros_is_one_in_dollars(capsys):
    dollars = 5000 * usd_per("EUR").value
    euros = json.loads(call(capsys, "--json", "--budget", "5000 EUR")[1])["tables"][6]["rows"]
    assert [row["budget_usd"] for row in euros] == pytest.approx([dollars])


def test_another_year_says_how_it_is_known(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = call(capsys, "--year", "2029", "--budget", "1000 USD")
    assert code == 0
    assert "Who can train what in 2029" in out and "trend of rents (extrapolated)" in out


@pytest.mark.parametrize(("arguments", "said"), [
    (("--year", "1900"), "nearest: 2010"), (("--budget", "0 USD"), "--budget"),
    (("--budget", "500"), "no currency"), (("--budget", "5 EURO"), "'EUR'"),
    (("--format", "xml"), "format"), (("--plot", "x.gif"), ".svg or .png"),
    (("--budget", "-3 EUR"), "--budget")])
def test_bad_options_are_named(capsys, arguments, said):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err and "help:" in err


def test_the_picture_holds_both_and_the_tables_are_printed_too(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "trend.svg"
    code, out, _ = call(capsys, "--plot", path)
    said = " ".join(" ".join("".join(each.itertext()).split()) for each in ET.parse(path).iter(
        "{http://www.w3.org/2000/svg}text"))
    assert code == 0 and "Cost of training" in out
    for one in ("2.4 times a year", "95% interval 2.0 to 3.1", "45 models", "GPT-4",
                "Who can train what in 2026", "2030, extrapolated", "$1B", "parameters",
                "dollars of December 2023", "BLOOM-176B (2022)"):
        assert one in said, one
    first = path.read_bytes()
    call(capsys, "--plot", path)
    assert path.read_bytes() == first


def test_one_budget_is_a_picture_too(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    for amount in ("700 USD", "0.0001 USD"):
        assert call(capsys, "--budget", amount, "--plot", tmp_path / "a.png")[0] == 0


def test_tables_are_the_same_twice(whole):
    from curbcut.report.formats import written
    from curbcut.report.trend import tables

    found, first = whole
    assert written(first, "json") == written(list(tables(found)), "json")


def test_no_torch_and_no_matplotlib_are_loaded():
    code = ("import sys; from curbcut.cli.main import main\n"
            "main(['trend', '--budget', '100 USD'])\n"
            "sys.exit(bool({'torch', 'matplotlib', 'sqlalchemy'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize(("more", "says"), [
    (["--year", "abc"], "'abc' is no year"), (["--year", "nan"], "'nan' is no year"),
    (["--year", "1800"], "nearest: 2010"), (["--budget", "-5 EUR"], "a budget of -5 EUR"),
    (["--budget", "0 USD"], "above 0"), (["--year", "2027", "--year", "2028"], "given twice")])
def test_bad_input_says_what_where_and_the_mend(capsys, more, says):
    try:
        code = main(["trend", *more])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert says in said.err and more[0] in said.err


def test_people_read_machines_by_names_that_a_plan_takes(whole):
    table = next(one for one in whole[1] if one.title == "Each of them")
    at = [one.title for one in table.columns].index("machine")
    for row in table.rows:
        assert build(from_facts(row[at])).name == row[at]
