from __future__ import annotations

import json
import subprocess
import sys

import pytest

from curbcut.cli.main import main
from curbcut.spec.draft import load

FLEET = ["plan", "--on", "8xH100", "--tokens", "1B"]


def planned(capsys, *options):
    assert main([*options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_carries_run_origins_and_forecast(capsys):
    found = planned(capsys, *FLEET)
    assert set(found) == {"run", "origins", "forecast"}
    assert found["run"]["machine"]["accelerator"] == "h100-sxm-80gb"
    assert found["origins"]["train.tokens"].startswith("command line")
    total = found["forecast"]["seconds"]["total"]
    assert total["low"] < total["value"] < total["high"]


def test_same_command_same_bytes(capsys):
    outputs = []
    for _ in range(2):
        main([*FLEET, "--json"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_the_table_names_the_run_and_its_totals(capsys):
    assert main([*FLEET, "--zone", "FRA"]) == 0
    text = capsys.readouterr().out
    for word in ("h100", "rent", "operational", "bits a byte"):
        assert word in text


def test_options_override_the_file(capsys, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('name = "mine"\n[model]\npreset = "curb-4m"\n[machine]\nname = "1xA100"\n'
                    '[train]\ntokens = "5M"\n[place]\nzone = "FRA"\n')
    kept = planned(capsys, "plan", str(file))
    assert kept["run"]["name"] == "mine"
    assert kept["run"]["model"]["preset"] == "curb-4m"
    changed = planned(capsys, "plan", str(file), "--tokens", "9M", "--zone", "DEU",
                      "--name", "yours", "--model", "curb-1m")
    assert changed["run"]["train"]["tokens"] >= 9_000_000
    assert changed["run"]["place"]["zone"] == "DEU"
    assert changed["run"]["name"] == "yours"
    assert changed["run"]["model"]["preset"] == "curb-1m"
    assert changed["run"]["model"]["layers"] == 4


@pytest.mark.parametrize(("option", "value", "key", "expected"), [
    ("--hours", "2", "seconds", 7200.0), ("--hours", "30 min", "seconds", 1800.0),
    ("--energy", "3kWh", "kwh", 3.0), ("--carbon", "5kg", "kgco2e", 5.0),
    ("--budget", "500 EUR", "money", "500 EUR")])
def test_each_limit_reaches_the_run(capsys, option, value, key, expected):
    found = planned(capsys, "plan", "--on", "H100", option, value)
    assert found["run"]["limits"][key] == expected
    assert found["origins"][f"limits.{key}"] == "command line"


def test_write_gives_a_file_that_plans_the_same(capsys, tmp_path):
    file = tmp_path / "out.toml"
    first = planned(capsys, *FLEET, "--write", str(file))
    assert load(file).get("machine.accelerator") == "h100-sxm-80gb"
    second = planned(capsys, "plan", str(file))
    assert second["run"] == first["run"]
    assert second["forecast"] == first["forecast"]


@pytest.mark.parametrize(("options", "word"), [
    (["--budget", "0 EUR"], "greater than 0"), (["--budget", "-1 EUR"], "greater than 0"),
    (["--budget", "nan EUR"], "finite"), (["--budget", "500"], "currency"),
    (["--on", "B201"], "B200"), (["--tokens", "1 furlong"], "unit"),
    (["--energy", "3 kg"], "unit"), (["--zone", "FRX"], "FRA"), (["--hours", "x"], "quantity"),
    (["--model", "curb-5m"], "curb-4m")])
def test_bad_input_is_one_clear_error_with_exit_code_2(capsys, options, word):
    where = [] if "--on" in options else ["--on", "H100"]
    assert main(["plan", *where, *options]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert "help:" in error
    assert "Traceback" not in error


def test_a_file_that_is_missing_or_cannot_be_written(capsys, tmp_path):
    assert main(["plan", str(tmp_path / "none.toml")]) == 2
    assert main([*FLEET, "--json", "--write", str(tmp_path / "no" / "folder.toml")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_run_is_priced_by_its_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert main([*FLEET, "--write", "runs/mine/run.toml", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert main(["plan", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == written.keys()
    assert main(["plan", "yours"]) == 2


def test_a_plan_imports_neither_torch_nor_what_printing_needs():
    code = ("import sys; from curbcut.cli.main import main; "
            "main(['plan', '--on', '8xH100', '--tokens', '1B', '--json']); "
            "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "rich", "sqlalchemy", "numpy", "pyarrow", "tokenizers", "starlette"):
        assert f"'{heavy}'" not in done.stderr
