"""A rehearsal and an evaluation through the verbs, on a tiny text."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from curbcut import circle
from curbcut.cli.main import main
from curbcut.ledger import FILE_NAME, kept_pairs
from curbcut.spec import load
from tiny import MODEL_TOML, tiny_machine, write_documents

TOML = """
name = "tiny"
""" + MODEL_TOML + """[recipe]
sequence_tokens = 32
global_batch = 8
micro_batch = 8
[train]
text = "{text}"
tokens = 5120
validation_fraction = 0.1
"""


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text")


@pytest.fixture
def path(tmp_path, text, monkeypatch):
    monkeypatch.setattr(circle, "_machine", lambda *_: tiny_machine())
    monkeypatch.setattr("curbcut.train.probe.SECONDS", 0.1)
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    found = tmp_path / "tiny.toml"
    found.write_text(TOML.format(text=text))
    return found


def test_a_rehearsal_teaches_the_plan_and_leaves_the_run_unbegun(path, tmp_path):
    runs = tmp_path / "runs"
    before, after = circle.rehearse(load(path), runs, Console(quiet=True))
    assert not (runs / "tiny").exists()
    (plain, _, measured), = kept_pairs(runs / FILE_NAME)
    assert plain["name"] == "tiny-rehearsal"
    assert measured.seconds["total"].value < 60
    assert "corrected by" not in before.seconds["steps"].source
    assert "corrected by 1 measured run" in after.seconds["steps"].source
    # What the plan then says of the rehearsal's own recipe is what was measured.
    steps = plain["train"]["tokens"] // 256
    assert after.seconds["steps"].value / 20 == pytest.approx(
        measured.seconds["steps"].value / steps, rel=0.2)
    again, _ = circle.rehearse(load(path), runs, Console(quiet=True))
    assert "corrected by 1 measured run" in again.seconds["steps"].source


def test_train_shows_samples_and_eval_gives_the_same_bits(path, text, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main(["train", str(path), "--runs", str(runs)]) == 0
    said, folder = capsys.readouterr().out, runs / "tiny"
    samples = json.loads((folder / "samples.json").read_text())
    assert len(samples) == 2, "of the two documents held out"
    assert all(one["prompt"] and one["prompt"].splitlines()[0] in said for one in samples)
    record = "".join(one.read_text() for one in (folder / "metrics").glob("samples-*.jsonl"))
    assert record.count('"kind":"samples"') == 1
    assert "taught the next plan" in said
    run = load(folder / "run.toml").complete().run
    assert run.recipe.stack_version.startswith("2.")
    kept = json.loads((folder / "evaluation.json").read_text())

    assert main(["eval", "tiny", "--runs", str(runs), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bits_per_byte"] == kept["bits_per_byte"]
    assert told["perplexity"] == pytest.approx(2.718281828 ** told["nats_per_token"])
    assert len(list((folder / "metrics").glob("samples-*.jsonl"))) == 1, "made once"

    # Any folder in Hugging Face's format, on any text.
    assert main(["eval", str(folder / "model"), "--text", str(text), "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["bytes_"] > told["bytes_"]
    assert other["bits_per_byte"] == pytest.approx(told["bits_per_byte"], rel=0.3)


def test_eval_of_what_is_not_trained_names_the_mend(path, tmp_path, capsys):
    assert main(["eval", str(path), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "has no trained model" in said
    assert "curbcut train tiny" in said


def test_imports_of_a_command_that_goes_on_count_as_its_start(path, tmp_path, monkeypatch):
    began = []

    def stop(*_a, **more):
        began.append(more["began"])
        raise KeyboardInterrupt

    monkeypatch.setattr("curbcut.train.start.train_run", stop)
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", str(path), *runs]) == 130
    assert main(["train", "tiny", *runs]) == 130
    settled = circle.settle(load(path), tmp_path / "runs", Console(quiet=True), began=1.0)
    assert settled.began == 1.0, "a run that stands: all that the command does is its training's"
    assert began[0] is not None and began[1] > began[0]
