import csv
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import EXIT_BAD_INPUT, InputError, UnknownName
from curbcut.facts import constants, grid, table
from curbcut.facts.table import OURS, Row

KEYS = {
    "serving_quality": ("part", "kind", "model", "source"),
    "accelerators": ("id",),
    "rent_prices": ("accelerator", "provider", "instance", "region", "kind", "term_years"),
    "grid": ("zone", "year", "source"),
    "grid_hours": ("zone", "hour"),
    "water": ("scope", "zone"),
    "fab": ("process_nm",),
    "dies": ("accelerator",),
    "embodied": ("category", "item", "source"),
    "presets": ("name",),
    "constants": ("name",),
    "loss_laws": ("name",),
    "loss_constants": ("name",),
    "loss_runs": ("run",),
    "own_runs": ("run",),
    "downstream": ("name",),
    "currency": ("code",),
    "electricity": ("zone",),
    "epoch/hardware_prices": (),
    "epoch/models": ("name",),
    "epoch/chips": ("name",),
    "epoch/constants": ("name",),
    "epoch/producer_prices": ("date",),
    "epoch/results": ("model",),
    "epoch/projects": ("model",),
    "epoch/contributors": ("model", "role"),
    "physics_training": ("name", "accelerator", "stack", "version", "without"),
    "physics_memory": ("name", "accelerator", "stack", "version", "without"),
    "physics_serving": ("name", "accelerator", "stack", "version", "without"),
    "power_caps": ("name", "accelerator", "stack", "version", "without"),
    "power": ("name", "accelerator", "stack", "version", "without"),
    "energy_series": ("name", "accelerator", "stack", "version", "without"),
    "training_priors": ("name",),
    "calibration_spreads": ("name", "level"),
    "stacks": ("software", "feature", "since"),
    "levers": ("lever", "source", "quote"),
    "capability": ("task", "day"),
    "progress": ("name",),
    "collectives": ("cluster", "kind", "nodes"),
}


def test_every_shipped_file_is_known_to_these_tests():
    shipped = {str(path.relative_to(OURS).with_suffix("")) for path in OURS.rglob("*.csv")}
    assert shipped == set(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_every_row_has_source_and_date(name):
    for row in table.rows(name, KEYS[name]):
        assert row.text("source"), row.place
        assert re.match(r"20[0-3]\d(-\d\d(-\d\d)?)?$|2009$", row.text("date")), row.place


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key])
def test_no_two_rows_share_a_key(name):
    keys = [tuple(row.cells[column].casefold() for column in KEYS[name])
            for row in table.rows(name, KEYS[name])]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", KEYS)
def test_no_cell_has_blanks_around_it_or_says_that_it_is_from_memory(name):
    for row in csv.DictReader((OURS / f"{name}.csv").read_text().splitlines()):
        for column, cell in row.items():
            assert cell == cell.strip(), (name, column, cell)
            assert "memory, unverified" not in cell, (name, row)


def test_attributions_stand_where_the_licences_ask():
    text = (OURS / "LICENCES.md").read_text()
    assert "Epoch AI, training-cost-trends v1.0.0, Apache-2.0" in text
    assert "CC BY 4.0" in text
    for name in KEYS:
        assert f"`{name}.csv`" in text + (OURS / "README.md").read_text(), name


def write(folder, name, text):
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_own_row_replaces_ours_and_keeps_the_columns_it_leaves_out(own_facts):
    before = grid.intensity("FRA")
    for cached in (table._rows, grid._all, grid._by_name, grid._by_zone):
        cached.cache_clear()
    write(own_facts, "grid", "zone,gco2e_per_kwh,source,date\nfra,12.5,my meter,2026-01-01\n")
    after = grid.intensity("France")
    assert (after.gco2e_per_kwh, after.source, after.date) == (12.5, "my meter", "2026-01-01")
    assert (after.name, after.kind) == (before.name, before.kind)
    assert grid.intensity("DEU").gco2e_per_kwh == pytest.approx(380.9)


def test_own_row_is_added(own_facts):
    write(own_facts, "constants",
          "name,value,low,high,unit,source,date\nsolar_share,0.5,0.4,0.6,of energy,roof,2026\n")
    assert constants.constant("solar_share").high == 0.6
    assert constants.constant("pue_world").value > 1


def test_comments_blank_lines_and_a_byte_order_mark_are_skipped(own_facts):
    write(own_facts, "constants", "\ufeff# ours\n\nname,value,unit,source,date\n"
                                  "# next\nfive,5,W,me,2026\n\n")
    assert constants.constant("five").value == 5


@pytest.mark.parametrize(("text", "says"), [
    ("name,value,unit,source,date\nbad,many,W,me,2026\n", "value is 'many'"),
    ("name,value,unit,source,date\nbad,nan,W,me,2026\n", "value is 'nan'"),
    ("name,value,unit,source,date\nbad,inf,W,me,2026\n", "value is 'inf'"),
    ("name,value,unit,source,date\nbad,-1,W,me,2026\n", "value is '-1'"),
    ("name,value,unit,source,date\nbad,,W,me,2026\n", "value is empty"),
    ("name,value,unit,date\nbad,1,W,2026\n", "source is empty"),
    ("name,value,unit,source,date\nbad,1,W,me,\n", "date is empty"),
    ("name,value,unit,source,date\nbad,1,W,me\n", "has 4 cells, the header has 5"),
    ("name,value,low,high,unit,source,date\nbad,1,2,3,W,me,2026\n", "not in order"),
    ('name,value,unit,source,date\nbad,1,W,"me"x,2026\n', "is no CSV"),
])
def test_broken_own_row_gives_one_clear_error_with_file_and_line(own_facts, text, says):
    path = write(own_facts, "constants", text)
    with pytest.raises(InputError) as caught:
        constants.constants()
    assert says in str(caught.value)
    assert f"{path}, line 2" in str(caught.value)
    assert caught.value.mend
    assert caught.value.exit_code == EXIT_BAD_INPUT


def test_unknown_own_column_names_the_nearest(own_facts):
    write(own_facts, "constants", "name,valeu,unit,source,date\n")
    with pytest.raises(UnknownName, match="line 1: unknown column 'valeu'") as caught:
        constants.constants()
    assert "'value'" in caught.value.mend


def test_own_file_that_is_not_utf8_is_named(own_facts):
    (own_facts / "constants.csv").write_bytes(b"name,value\n\xff\xfe")
    with pytest.raises(InputError, match=r"constants\.csv: cannot be read"):
        constants.constants()


def test_own_file_that_nothing_reads_is_refused_with_the_nearest_name(own_facts):
    write(own_facts, "acelerators", "id,source,date\n")
    with pytest.raises(UnknownName, match=r"did you mean 'accelerators\.csv'"):
        grid.zones()


def test_with_no_key_own_rows_are_only_added(own_facts):
    ours = len(table.rows("epoch/hardware_prices", ()))
    write(own_facts, "epoch/hardware_prices", "hardware,source,date\nabacus,shop,2026-01-01\n")
    table._rows.cache_clear()
    assert len(table.rows("epoch/hardware_prices", ())) == ours + 1


def test_folder_of_own_facts_is_chosen_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CURBCUT_FACTS", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert table.overlay_folder() == tmp_path / "curbcut" / "facts"
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path / "else"))
    assert table.overlay_folder() == tmp_path / "else"


@settings(max_examples=50)
@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_numbers_survive_text(value):
    assert Row({"x": repr(value)}, "here").number("x") == value


@settings(max_examples=50)
@given(st.text(alphabet="abc |", max_size=12))
def test_lists_have_no_empty_parts(text):
    assert all(Row({"x": text}, "here").many("x"))


def test_cells_read_by_kind():
    row = Row({"n": "3", "half": "0.5", "yes": "yes", "none": ""}, "f.csv, line 2")
    assert (row.whole("n"), row.flag("yes"), row.maybe_number("none")) == (3, True, None)
    with pytest.raises(InputError, match=r"f\.csv, line 2: half is 0\.5"):
        row.whole("half")
    with pytest.raises(UnknownName, match="unknown n '3'"):
        row.flag("n")


def test_facts_need_neither_numpy_nor_torch():
    code = ("import sys, curbcut.facts.prices, curbcut.facts.grid, curbcut.facts.presets;"
            "print([m for m in ('numpy', 'pandas', 'torch', 'rich') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
