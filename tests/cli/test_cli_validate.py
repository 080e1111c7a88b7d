from __future__ import annotations

import csv
import json

import pytest

from curbcut.cli.main import main
from plan.validation import tables


def many(path, count=24):
    """Rows of one source, enough to calibrate."""
    return tables.throughput(path, *({
        "micro_batch": str(2 ** (number % 3)), "global_batch_seqs": str(64 * (1 + number % 4)),
        "measured_step_time_s": str(3 + number % 7)} for number in range(count)))


def test_the_verb_prints_a_table_and_writes_rows(tmp_path, capsys):
    path = tables.throughput(tmp_path / "t.csv", {}, {"gpu": "Abacus"}, {"recompute": ""})
    out = tmp_path / "out.csv"
    assert main(["validate", "throughput", str(path), "--rows", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Step time (stack never seen)" in printed
    assert "there-2025" in printed
    assert "Not expressed: 1 row" in printed
    with open(out) as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ["a1", "a3"]
    assert float(lines[0]["low95"]) < float(lines[0]["low80"]) < float(lines[0]["predicted"])
    assert "recompute" in lines[1]["assumed"]
    assert float(lines[0]["measured"]) == 4.0


def test_the_verb_prints_json_and_the_same_bytes_twice(tmp_path, capsys):
    path = many(tmp_path / "t.csv")
    arguments = ["validate", "throughput", str(path), "--json", "--calibrate", "10", "--seed", "4"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert json.loads(first)["rows"] == 14


@pytest.mark.parametrize("arguments", [
    ["throughput", "nowhere.csv"], ["colour", "t.csv"],
    ["throughput", "t.csv", "--calibrate", "0"], ["throughput", "t.csv", "--folds", "1"],
    ["throughput", "t.csv", "--folds", "3", "--calibrate", "3"],
    ["runs", "t.csv"], ["memory", "t.csv"], ["throughput", "t.csv", "--rows", "no/such/o.csv"]])
def test_bad_input_is_one_clear_error(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    tables.throughput("t.csv", {})
    assert main(["validate", *arguments]) == 2
    assert capsys.readouterr().err.startswith("curbcut: ")


def test_memory_of_different_units_is_scored_apart(tmp_path, capsys):
    lines = [tables.MEMORY | {"id": f"m{number}", "unit_note": note, "quantity": quantity}
             for number, (note, quantity) in enumerate((
                 ("GiB", "peak allocated"), ("GB as printed (GB/GiB not stated)", "peak memory"),
                 ("PERCENT", "activation memory relative to no-recompute TP baseline")))]
    path = tables.write(tmp_path / "m.csv", lines)
    assert main(["validate", "memory", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found["rows"], found["percent"]["rows"], found["gb_or_gib"]["rows"]] == [1, 1, 1]
    assert main(["validate", "memory", str(path)]) == 0
    assert "in percent of a baseline" in capsys.readouterr().out
