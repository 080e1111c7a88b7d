from __future__ import annotations

import json

import pytest

from curbcut.cli import plan
from curbcut.cli.main import main
from curbcut.spec.draft import load
from plan.plan_samples import CPU

ON = ["--on", "1xH100,4xA100"]
FIGURES = ("usd", "kwh", "kgco2e", "seconds", "bits_per_byte")


def backwards(capsys, *options):
    assert main(["plan", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def anywhere():
    """One plan over all machines of the facts, as JSON."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["plan", "--budget", "100 EUR", "--json"]) == 0
    return json.loads(said.getvalue())


def test_a_budget_alone_looks_at_every_machine_with_a_price(anywhere):
    found = anywhere["backwards"]
    assert found["compared"]["machines"] > 100
    assert found["compared"]["plans"] > 10_000
    assert len({one["machine"] for one in found["runners_up"]}) == 6
    assert found["best"]["machine"] == anywhere["run"]["machine"]["name"]
    assert anywhere["run"]["limits"]["money"] == "100 EUR"
    assert found["answer"][0].startswith("100.00 EUR buys ")


def test_json_has_all_that_is_printed(anywhere):
    found = anywhere["backwards"]
    assert set(anywhere) == {"backwards", "run", "origins", "forecast"}
    assert set(found) == {"answer", "question", "compared", "best", "serving", "binds",
                          "shadow_prices", "front", "runners_up"}
    assert found["binds"][0] == "usd"
    assert {one["limit"] for one in found["shadow_prices"]} == {"usd", "seconds"}
    for one in (found["best"], *found["front"], *found["runners_up"]):
        for figure in FIGURES:
            assert one[figure]["low"] <= one[figure]["value"] <= one[figure]["high"]
    spent = anywhere["forecast"]["usd"]["total"]["value"]
    assert 0.8 < spent / found["question"]["limits"]["usd"] <= 0.85 + 1e-6
    assert found["question"]["assumed"] == ["seconds"]


def test_same_command_same_bytes(capsys):
    outputs = []
    for _ in range(2):
        main(["plan", "--budget", "20 EUR", *ON, "--json"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_write_gives_a_file_that_plans_the_same(capsys, tmp_path):
    file = tmp_path / "best.toml"
    first = backwards(capsys, "--budget", "20 EUR", "--hours", "10", *ON, "--data", "30 GB",
                      "--write", str(file))
    assert load(file).get("train.text_bytes") == 30_000_000_000
    assert main(["plan", str(file), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["run"] == first["run"]
    assert second["forecast"] == first["forecast"]


def test_the_table_reads_from_answer_to_runners_up(capsys):
    assert main(["plan", "--budget", "40000 EUR", "--serve", "1e6tok/day", *ON, "--data", "1 GB",
                 "--loss", "1.1"]) == 0
    said = capsys.readouterr()
    words = ("1.1 bits a byte costs", "What binds: target loss", "Planned with 85%",
             "Nobody said how long", "--project counts experiments", "Serving ", "90% interval",
             "What binds, and what more would buy", "The front:", "The best of other machines")
    places = [said.out.index(word) for word in words]
    assert places == sorted(places)
    assert "machines compared in" in said.err and "compared in" not in said.out


def test_a_project_is_said_and_divides_the_budget(capsys):
    alone = backwards(capsys, "--budget", "20 EUR", *ON)
    whole = backwards(capsys, "--budget", "20 EUR", *ON, "--project")
    factor = whole["backwards"]["question"]["development_multiplier"]["value"]
    assert factor > 1
    assert whole["forecast"]["usd"]["total"]["value"] == pytest.approx(
        alone["forecast"]["usd"]["total"]["value"] / factor, rel=0.02)
    assert "project's" in " ".join(whole["backwards"]["answer"])


def test_contracts_and_the_place_may_be_left_to_the_plan(capsys):
    found = backwards(capsys, "--budget", "20 EUR", *ON, "--contract", "any", "--zone", "any")
    assert found["run"]["place"]["contract"] in ("on-demand", "spot")
    assert found["origins"]["place.zone"] == "plan: least carbon a kWh"
    held = backwards(capsys, "--budget", "20 EUR", *ON, "--contract", "spot")
    assert held["run"]["place"]["contract"] == "spot"
    assert held["origins"]["place.contract"] == "command line"


def test_a_limit_here_is_planned_here(capsys, monkeypatch):
    monkeypatch.setattr(plan, "this_machine", lambda _names: CPU)
    found = backwards(capsys, "--on", "here", "--energy", "0.1 kWh", "--hours", "1")
    assert found["run"]["machine"]["name"] == CPU.name
    assert found["backwards"]["best"]["priced_only_for"] is None
    assert main(["plan", "--on", "here", "--hours", "1", "--json"]) == 0
    assert "backwards" not in json.loads(capsys.readouterr().out)


def test_the_machine_of_a_file_is_kept_and_a_model_given_is_priced_forwards(capsys, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[machine]\nname = "2xA100"\n[place]\nzone = "FRA"\n')
    found = backwards(capsys, str(file), "--budget", "20 EUR")
    assert found["run"]["machine"]["name"] == "2xa100-sxm-80gb"
    assert found["run"]["place"]["zone"] == "FRA"
    assert main(["plan", str(file), "--budget", "20 EUR", "--model", "curb-4m", "--json"]) == 0
    assert "backwards" not in json.loads(capsys.readouterr().out)
    chosen = backwards(capsys, "--budget", "20 EUR", "--model", "curb-4m", *ON)
    assert chosen["run"]["model"]["layers"] == 4


def test_traffic_of_a_whole_run_is_served_in_its_plan(capsys):
    assert main(["plan", "--model", "curb-4m", "--tokens", "10M", "--on", "1xH100",
                 "--serve", "1e6tok/day", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"]["serve"]["months"] == 12
    assert found["forecast"]["tokens_per_second"]["answers"]["value"] == pytest.approx(1e6 / 86400)


@pytest.mark.parametrize(("options", "said"), [
    (["--model", "curb-4m", "--tokens", "1M", "--on", "1xH100", "--project"], "project's lines"),
    (["--search", "--model", "curb-4m", "--on", "1xH100", "--project"], "project's lines"),
    (["--budget", "0.00001 EUR"], "smallest feasible budget is"),
    (["--budget", "5 EURO"], "'EUR'"), (["--budget", "5 EUR", "--zone", "FRX"], "'FRA'"),
    (["--budget", "5 EUR", "--on", "8xH10O,1xA100"], "'H100'"),
    (["--budget", "5 EUR", "--contract", "sport"], "spot"),
    (["--budget", "5 EUR", "--contract", "sport,spot"], "'spot'"),
    (["--budget", "5 EUR", "--serve", "1e9tok"], "1e9tok/month"),
    (["--budget", "5 EUR", "--serve", "1e9tok/moth"], "month"),
    (["--budget", "5 EUR", "--data", "30 apples"], "unit"),
    (["--loss", "low"], "--loss 0.9"), (["--loss", "-1"], "greater than 0"),
    (["--loss", "0.1"], "no budget reaches it"), (["--data", "30 GB"], "--budget"),
    (["--budget", "5 EUR", "--on", "any", "--tokens", "1B"], "leave the tokens to a budget")])
def test_bad_input_is_one_clear_error(capsys, tmp_path, options, said):
    out = tmp_path / "out.toml"
    assert main(["plan", *options, "--write", str(out)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error and " help: " in error and "Traceback" not in error
    assert not out.exists()
