"""Budgets at the ends of what can be: each an honest answer or one clear error."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from curbcut.cli import plan
from curbcut.cli.main import main
from plan.plan_samples import CPU

FEW = ["--on", "1xH100,8xA100,1xRTX-4090"]
NAMED = re.compile(r"(?:feasible budget is|it takes at least) (.*?) on ([\w.-]+)")


def error_of(capsys, *options):
    assert main(["plan", *options]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert " help: " in said and "Traceback" not in said
    return said


@pytest.mark.parametrize(("option", "value"), [
    ("--budget", "0.000001 USD"), ("--budget", "0.00001 EUR"), ("--energy", "1e-9 kWh"),
    ("--carbon", "1e-9 kg"), ("--hours", "1 s")])
def test_the_smallest_budget_that_is_named_works_when_it_is_typed(capsys, option, value):
    said = NAMED.search(error_of(capsys, option, value, *FEW))
    assert said
    assert main(["plan", option, said[1], *FEW]) == 0
    assert main(["plan", option, said[1], "--on", said[2]]) == 0


def test_two_limits_that_are_too_small_are_both_named_and_both_work(capsys):
    error = error_of(capsys, "--budget", "0.000001 USD", "--energy", "1e-9 kWh", *FEW)
    named = NAMED.search(error)[1].split(" and ")
    assert len(named) == 2
    assert main(["plan", "--budget", named[0], "--energy", named[1], *FEW]) == 0


@pytest.mark.parametrize("traffic", ["1e9tok/month", "1e12tok/month", "1e15tok/month"])
def test_a_budget_that_serving_eats_names_one_that_lasts(capsys, traffic):
    options = ["--serve", traffic, *FEW]
    said = NAMED.search(error_of(capsys, "--budget", "10 EUR", *options))
    assert main(["plan", "--budget", said[1], *options]) == 0


def test_a_loss_beyond_the_limits_names_what_it_takes(capsys):
    said = NAMED.search(error_of(capsys, "--loss", "0.8", "--budget", "1 USD", *FEW))
    capsys.readouterr()
    assert main(["plan", "--loss", "0.8", "--budget", said[1], *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["forecast"]["loss"]["bits_per_byte"]["value"] <= 0.8 * (1 + 1e-9)


def test_a_loss_that_the_first_steps_reach_is_answered(capsys):
    assert main(["plan", "--loss", "5", *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["forecast"]["loss"]["bits_per_byte"]["value"] < 5
    assert found["forecast"]["usd"]["total"]["value"] < 0.1


def test_more_money_than_there_is_time_for_is_bound_by_time(capsys):
    assert main(["plan", "--budget", "1e12 USD", *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["backwards"]
    assert found["binds"][0] == "seconds"
    worth = {one["limit"]: one["a_tenth_more"] for one in found["shadow_prices"]}
    assert worth["usd"] == 0 and worth["seconds"] > 0


def test_a_machine_named_twice_or_among_all_is_one_of_them(capsys):
    answers = []
    for on in ("H100", "1xH100,H100", "8xH100,1xH100"):
        assert main(["plan", "--budget", "20 USD", "--on", on, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["forecast"]["loss"]["bits_per_byte"])
    assert answers[0]["value"] == answers[1]["value"]
    assert answers[2]["value"] <= answers[0]["value"] * (1 + 1e-9)
    assert main(["plan", "--budget", "20 USD", "--on", "any,H100", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert every["forecast"]["loss"]["bits_per_byte"]["value"] <= answers[0]["value"]
    seen = [(one["machine"], one["precision"], one["contract"])
            for one in (every["backwards"]["best"], *every["backwards"]["runners_up"])]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("options", "said"), [
    (["--budget", "nan EUR"], "not a number"), (["--budget", "inf USD"], "not a number"),
    (["--budget", "-5 EUR"], "greater than 0"), (["--budget", "0 EUR"], "greater than 0"),
    (["--budget", "5000"], "'5000 EUR'"), (["--budget", "5000 EURO"], "'EUR'"),
    (["--hours", "nan"], "not a number"), (["--energy", "0 kWh"], "greater than 0"),
    (["--budget", "5 EUR", "--zone", "nowhere"], "grid zone"),
    (["--budget", "5 EUR", "--contract", "spott"], "'spot'"),
    (["--budget", "5 EUR", "--serve", "0tok/month"], "greater than 0"),
    (["--budget", "5 EUR", "--data", "1kB", *FEW], "text is too short")])
def test_what_cannot_be_is_one_clear_error(capsys, options, said):
    assert said in error_of(capsys, *options)


def test_text_alone_bounds_a_first_run_here_and_nothing_elsewhere(capsys, monkeypatch):
    monkeypatch.setattr(plan, "this_machine", lambda names: CPU)
    assert main(["plan", "--data", "1MB", "--on", "here", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "backwards" not in found
    assert found["run"]["train"]["tokens"] <= 4.2e6 / 2.5
    assert "what may be spent" in error_of(capsys, "--data", "1MB")
    assert "what may be spent" in error_of(capsys, "--data", "1MB", "--on", "8xH100")


def test_a_projects_budget_is_shared_by_the_ledgers_own_ratio(capsys, monkeypatch):
    from curbcut.accounts import development
    from curbcut.spec.estimate import Estimate

    options = ["--budget", "100 USD", "--project", *FEW, "--json"]
    own = Estimate(3.0, 2.5, 4.0, "measured", "own ledger: 9 trainings, 5 of them finished")
    monkeypatch.setattr(development, "ledger_ratio", lambda path: own)
    assert main(["plan", *options]) == 0
    found = json.loads(capsys.readouterr().out)["backwards"]["question"]
    assert found["development_multiplier"]["value"] == 3.0
    assert found["limits"]["usd"] == pytest.approx(100 / 3)


def test_runners_up_say_how_likely_they_are_better_after_all(capsys):
    assert main(["plan", "--budget", "100 USD", "--on", "1xH100,8xA100,1xRTX-4090", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["backwards"]
    assert len(first["runners_up"]) >= 2
    chances = [one["chance_better"] for one in first["runners_up"]]
    assert all(0 <= chance <= 0.6 for chance in chances)
    assert main(["plan", "--budget", "100 USD", *FEW]) == 0
    assert "better after" in capsys.readouterr().out


def test_a_plan_for_the_machine_at_hand_is_one_that_can_be_trained(capsys, monkeypatch):
    from curbcut.plan import machines

    here = replace(machines.build(machines.from_facts("1xH100")), name="here")
    monkeypatch.setattr(plan, "this_machine", lambda names: here)
    assert main(["plan", "--energy", "20 kWh", "--on", "here", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"]["recipe"]["precision"] == "bf16"
    assert found["run"]["train"]["token_worth"] == 1.0
    assert main(["plan", "--energy", "20 kWh", "--on", "1xH100", "--json"]) == 0
    away = json.loads(capsys.readouterr().out)
    assert away["run"]["recipe"]["precision"] == "fp8"
    assert away["run"]["train"]["token_worth"] < 1
    assert away["backwards"]["best"]["priced_only_for"] is None
