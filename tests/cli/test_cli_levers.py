from __future__ import annotations

import json

import pytest

from curbcut.cli.main import main

RUN = ["levers", "--model", "llama-3-8b", "--tokens", "20B", "--on", "16xH100"]
SOME = [*RUN, "--only", "fp8,compile,place"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_options_alone_are_a_run(capsys):
    assert main(SOME) == 0
    out = capsys.readouterr().out
    assert "Levers of run, training" in out and "fp8" in out


def test_json_is_data_and_nothing_else(capsys):
    assert main([*SOME, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in read["waterfalls"][0]["results"]} == {
        "fp8", "compile", "place"}


def test_a_file_and_a_run_folder_are_the_same_run(tmp_path, capsys):
    text = ('[model]\npreset = "llama-3-8b"\n[train]\ntokens = "20B"\n'
            '[machine]\nname = "16xH100"\n')
    (tmp_path / "run.toml").write_text(text)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(text)
    out = []
    for name in ("run.toml", "mine"):
        assert main(["levers", name, "--only", "fp8", "--json"]) == 0
        out.append(capsys.readouterr().out)
    assert out[0] == out[1]


def test_a_unit_and_a_currency_can_be_chosen(capsys):
    assert main([*SOME, "--unit", "kg"]) == 0
    assert "CO2e" in capsys.readouterr().out
    assert main([*SOME, "--unit", "eur"]) == 0
    assert "EUR" in capsys.readouterr().out


def test_serving_is_shown_where_it_is_asked_for(capsys):
    assert main([*RUN, "--only", "int4-weights,compile"]) == 0
    assert "million answer tokens" in capsys.readouterr().out


def test_a_picture_is_drawn_where_it_is_asked_for(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main([*SOME, "--plot", "fall.svg"]) == 0
    assert (tmp_path / "fall.svg").read_text().lstrip().startswith("<?xml")
    assert main([*SOME, "--plot", "fall.doc"]) == 2


@pytest.mark.parametrize(("more", "says"), [
    (["--unit", "kwhh"], "'kwh'"),
    (["--only", "fp9"], "'fp8'"),
    (["--on", "any"], "levers start from one"),
    (["--zone", "nowhereland"], "unknown grid zone"),
    (["--model", "llama-3-8"], "did you mean 'Llama-3-8B'"),
    (["--format", "yaml"], "unknown format"),
    (["--contract", "spott"], "spot"),
])
def test_bad_input_names_the_nearest_and_changes_nothing(more, says, capsys):
    at = SOME.index(more[0]) if more[0] in SOME else len(SOME)
    assert main([*SOME[:at], *SOME[at + 2:], *more]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err


def test_an_option_that_is_given_twice_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        main([*SOME, "--on", "8xA100"])
    assert left.value.code == 2
    assert "--on is given twice" in capsys.readouterr().err


def test_an_unknown_run_names_the_nearest(tmp_path, capsys):
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text("")
    assert main(["levers", "frist"]) == 2
    assert "did you mean 'first'" in capsys.readouterr().err
    (tmp_path / "runs" / "bare").mkdir()
    assert main(["levers", "bare"]) == 2
    assert "no run.toml" in capsys.readouterr().err
    assert main(["levers", "missing.toml"]) == 2
