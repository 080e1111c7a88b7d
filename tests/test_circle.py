"""The circle on a tiny text: what is priced runs, and what is measured corrects the plan."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from curbcut import circle
from curbcut.cli.main import main
from curbcut.ledger import FILE_NAME, open_ledger
from curbcut.spec import load
from tiny import MODEL_TOML, write_documents

TOML = """
name = "{name}"
""" + MODEL_TOML + """[recipe]
sequence_tokens = 32
global_batch = 8
{recipe}
[train]
text = "{text}"
tokens = 4096
validation_fraction = 0.1
"""


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text", 80)


@pytest.fixture
def write(tmp_path, text):
    def write_it(name="tiny", recipe=""):
        path = tmp_path / f"{name}.toml"
        path.write_text(TOML.format(name=name, recipe=recipe, text=text))
        return path
    return write_it


@pytest.fixture
def probed(monkeypatch):
    """A machine whose kept probe is fixed, so that only the recipe moves the forecast."""
    from tiny import tiny_machine

    monkeypatch.setattr(circle, "_machine", lambda *_: tiny_machine())
    monkeypatch.setattr("curbcut.train.probe.SECONDS", 0.2)
    monkeypatch.setenv("CURBCUT_SENSORS", "off")


def run(path, runs):
    circle.go(load(path), runs, Console(quiet=True))
    return json.loads((runs / path.stem / "account.json").read_text())["measured"]


@pytest.mark.slow
def test_the_whole_circle(probed, write, tmp_path, capsys):
    runs = tmp_path / "runs"
    measured = run(write(), runs)
    folder = runs / "tiny"
    for made in ("run.toml", "plan.json", "metrics", "checkpoints", "model/model.safetensors",
                 "model/config.json", "model/tokenizer.json", "account.json", "evaluation.json"):
        assert (folder / made).exists(), made
    assert measured["tokens"]["trained"]["value"] == 4096
    with open_ledger(runs / FILE_NAME) as ledger:
        assert ledger.account("tiny", "train", "forecast") is not None
        assert ledger.account("tiny", "train", "measured") is not None
        assert len(ledger.pairs(step="train")) == 1
        asked, answered = (ledger.account("tiny", "serve", k) for k in ("forecast", "measured"))
    assert [line[:2] for line in asked.lines()] == [line[:2] for line in answered.lines()]
    assert answered.tokens["prompt"].value == asked.tokens["prompt"].value
    assert answered.kwh["device"].value is None and answered.kwh_modelled["device"].value > 0
    assert answered.memory_bytes["peak"].value is None
    capsys.readouterr()
    assert main(["report", "tiny", "--runs", str(runs), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["steps"]) == ["train", "serve"]
    assert all(step["checked"] for step in said["steps"].values())


@pytest.mark.slow
def test_without_a_sensor_energy_is_null_and_not_the_forecasts(probed, write, tmp_path):
    measured = run(write(), tmp_path / "runs")
    promised = json.loads((tmp_path / "runs/tiny/plan.json").read_text())["forecast"]
    assert promised["kwh"]["facility"]["value"] > 0
    assert [measured["kwh"][k]["value"] for k in ("device", "node", "facility")] == [None] * 3
    assert measured["watts"]["device"]["value"] is None
    assert measured["kwh_modelled"]["facility"]["basis"] == "modelled"


@pytest.mark.slow
def test_one_field_of_the_recipe_moves_forecast_and_execution(probed, write, tmp_path, monkeypatch):
    from curbcut.model import decoder

    shapes = []
    forward, train = decoder.head_loss, circle.train

    def watched(hidden, *rest):
        if hidden.requires_grad:  # an evaluation has rows of its own
            shapes.append(len(hidden))
        return forward(hidden, *rest)

    def after_the_probe(*given, **more):
        shapes.clear()
        return train(*given, **more)

    monkeypatch.setattr(decoder, "head_loss", watched)
    monkeypatch.setattr(circle, "train", after_the_probe)
    found = {}
    for name, micro in (("two", 2), ("eight", 8)):
        run(write(name, f"micro_batch = {micro}"), tmp_path / "runs")
        plan = json.loads((tmp_path / f"runs/{name}/plan.json").read_text())
        assert plan["run"]["recipe"]["micro_batch"] == micro
        found[name] = (plan["forecast"]["memory_bytes"]["activations"]["value"], set(shapes))
    assert found["two"][0] < found["eight"][0]
    assert (found["two"][1], found["eight"][1]) == ({2 * 32}, {8 * 32})


@pytest.mark.slow
def test_a_second_go_repeats_nothing(probed, write, tmp_path, monkeypatch):
    path, runs = write(), tmp_path / "runs"
    first = run(path, runs)
    monkeypatch.setattr("curbcut.train.start.train_run",
                        lambda *_a, **_k: pytest.fail("trained twice"))
    assert run(path, runs) == first


@pytest.mark.slow
def test_the_same_file_again_is_the_same_run_though_its_tokens_were_rounded(
        probed, write, tmp_path):
    path, runs = write(), tmp_path / "runs"
    path.write_text(path.read_text().replace("tokens = 4096", "tokens = 4000"))
    first = run(path, runs)
    assert first["tokens"]["trained"]["value"] > 4000
    assert run(path, runs) == first


@pytest.mark.slow
def test_a_measured_run_corrects_the_next_plan(probed, write, tmp_path):
    from curbcut.ledger import kept_pairs
    from curbcut.plan.forecast import forecast
    from tiny import tiny_machine

    runs = tmp_path / "runs"
    run(write(), runs)
    resolved = load(runs / "tiny/run.toml").complete()
    assert resolved.run.machine == tiny_machine()
    before, after = forecast(resolved.run), forecast(resolved.run, kept_pairs(runs / FILE_NAME))
    assert after.seconds["steps"].value != before.seconds["steps"].value
    assert "corrected by" in after.seconds["steps"].source


def test_another_run_of_the_same_name_is_refused(probed, write, tmp_path, monkeypatch, capsys):
    from curbcut.train import start

    class Enough(Exception):
        pass

    def stop(*_a, **_k):
        raise Enough

    monkeypatch.setattr(start, "train_run", stop)
    with pytest.raises(Enough):
        run(write(), tmp_path / "runs")
    path = write("tiny", "learning_rate = 1e-5")
    assert main(["go", str(path), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "learning_rate" in said
    assert "--name" in said
