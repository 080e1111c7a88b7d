from __future__ import annotations

import json
import tomllib

import pytest

from curbcut.cli import plan
from curbcut.cli.main import main
from curbcut.spec.draft import load
from plan.plan_samples import CPU

SMALL = ["plan", "--search", "--on", "2xA100", "--model", "qwen3-0.6b", "--tokens", "100M"]


def searched(capsys, *options):
    assert main([*options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def found():
    """One search, as JSON."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*SMALL, "--json"]) == 0
    return json.loads(said.getvalue())


def test_json_has_search_run_origins_and_forecast(found):
    assert set(found) == {"search", "run", "origins", "forecast"}
    assert found["search"]["priced"] >= found["search"]["fit"] > 0
    best = found["search"]["best"]
    for field, value in best["recipe"].items():
        if field not in ("checkpoint_every_steps", "evaluate_every_steps"):
            assert found["run"]["recipe"][field] == value
    assert found["origins"]["recipe.tp"].startswith("plan: least time of ")
    assert best["step_seconds"]["low"] < best["step_seconds"]["value"] < best[
        "step_seconds"]["high"]


def test_every_figure_has_its_interval(found):
    for one in (found["search"]["best"], *found["search"]["runners_up"],
                *found["search"]["front"]):
        for figure in ("step_seconds", "seconds", "usd", "kwh", "peak_bytes"):
            estimate = one[figure]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["source"]


def test_the_best_is_the_fastest_of_the_front_and_runners_up_say_why(found):
    search = found["search"]
    fastest = min(one["step_seconds"]["value"] for one in search["front"])
    assert search["best"]["step_seconds"]["value"] == fastest
    assert search["runners_up"]
    for up in search["runners_up"]:
        assert up["why"] and up["differs"]
        if up["differs"] not in ("memory", "machine"):
            assert up["over_bytes"] > 0 or up["step_seconds"]["value"] >= fastest


def test_same_command_same_bytes(capsys):
    outputs = []
    for _ in range(2):
        main([*SMALL, "--json"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_ranks_that_training_runs_say_so(found):
    assert found["search"]["best"]["runs_here"]
    assert found["search"]["best_that_runs"] is None, "it is the best of all"
    assert found["search"]["best"]["priced_only_for"] is None


def test_what_training_runs_is_said_to_run(capsys):
    found = searched(capsys, "plan", "--search", "--on", "1xB200", "--model", "qwen3-0.6b",
                     "--tokens", "10M")
    best, running = found["search"]["best"], found["search"]["best_that_runs"]
    assert best["priced_only_for"] == 'precision = "nvfp4"'
    assert running["runs_here"] and running["recipe"]["precision"] == "fp8"
    assert running["step_seconds"]["value"] >= best["step_seconds"]["value"]
    assert main(["plan", "--search", "--on", "1xB200", "--model", "qwen3-0.6b"]) == 0
    assert "The best of what runs here" in capsys.readouterr().out
    plain = [one for one in (found["search"]["best"], *found["search"]["runners_up"],
                             *found["search"]["front"]) if one["runs_here"]]
    assert plain
    for one in plain:
        assert one["recipe"]["precision"] in ("bf16", "fp32", "tf32", "fp8")
        assert one["priced_only_for"] is None


def test_the_table_says_counts_best_runners_up_and_front(capsys):
    assert main(SMALL) == 0
    said = capsys.readouterr()
    for words in ("recipes priced", "fit; least time for 100", "The best: runs here",
                  "Runners-up, and why they lost", "The Pareto front", "90% interval",
                  "[recipe]", "micro_batch = ", "of a step: "):
        assert words in said.out
    assert "searched in" in said.err and "searched in" not in said.out


def test_the_printed_recipe_is_toml(capsys):
    from curbcut.plan.search_draft import search_draft
    from curbcut.report.search import toml
    from curbcut.spec.draft import Draft

    draft = Draft().with_raw({"model": {"preset": "qwen3-0.6b"}, "machine": {"name": "2xA100"},
                              "train": {"tokens": "10M"}}, "test")
    best = search_draft(draft).found.best
    fields = tomllib.loads("\n".join(toml(best)))
    for name, value in fields.items():
        assert getattr(best.recipe, name) == value


def test_write_gives_a_run_that_plans_the_same(capsys, tmp_path):
    file = tmp_path / "best.toml"
    first = searched(capsys, *SMALL, "--write", str(file))
    assert load(file).get("recipe.tp") == first["run"]["recipe"]["tp"]
    assert main(["plan", str(file), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["run"] == first["run"]
    assert second["forecast"] == first["forecast"]


@pytest.mark.parametrize("objective", ["time", "money", "energy", "memory"])
def test_each_objective_chooses_its_own(capsys, objective):
    found = searched(capsys, "plan", "--search", "--on", "1xA100,1xH100", "--model", "curb-4m",
                     "--tokens", "10M", "--objective", objective)
    figure = {"time": "seconds", "money": "usd", "energy": "kwh", "memory": "peak_bytes"}[objective]
    best = found["search"]["best"][figure]["value"]
    assert best == min(one[figure]["value"] for one in found["search"]["front"])
    machines = {one["machine"] for one in found["search"]["front"]}
    assert found["run"]["machine"]["name"] == found["search"]["best"]["machine"]
    assert machines <= {"1xa100-sxm-80gb", "1xh100-sxm-80gb"}


def test_machines_do_the_same_work(capsys):
    found = searched(capsys, "plan", "--search", "--on", "1xA100,4xH100", "--model", "curb-4m",
                     "--tokens", "10M", "--top", "20")
    rows = [found["search"]["best"], *found["search"]["runners_up"], *found["search"]["front"]]
    assert len({one["recipe"]["global_batch"] for one in rows}) == 1
    assert "machine" in {up["differs"] for up in found["search"]["runners_up"]}


def test_fields_of_the_file_are_kept(capsys, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[model]\npreset = "curb-4m"\n[machine]\nname = "4xA100"\n[train]\n'
                    'tokens = "10M"\n[recipe]\ntp = 2\nprecision = "bf16"\n')
    found = searched(capsys, "plan", str(file), "--search")
    assert found["search"]["kept"] == ["tp", "precision"]
    for one in (found["search"]["best"], *found["search"]["front"]):
        assert (one["recipe"]["tp"], one["recipe"]["precision"]) == (2, "bf16")
    assert main(["plan", str(file), "--search"]) == 0
    assert "kept as given: tp, precision" in capsys.readouterr().out


def test_top_bounds_the_runners_up_and_optimisers_are_tried_when_asked(capsys):
    few = searched(capsys, *SMALL, "--top", "2")
    more = searched(capsys, *SMALL, "--optimisers")
    assert len(few["search"]["runners_up"]) == 2
    assert more["search"]["priced"] == 4 * few["search"]["priced"]


def test_here_is_searched_without_offload(capsys, monkeypatch):
    monkeypatch.setattr(plan, "this_machine", lambda _names: CPU)
    found = searched(capsys, "plan", "--search", "--model", "curb-1m", "--tokens", "1M")
    assert found["search"]["best"]["runs_here"]
    assert {one["recipe"]["offload"] for one in found["search"]["front"]} == {"none"}


@pytest.mark.parametrize(("options", "said"), [
    (["--on", "8xH100"], "a search of recipes needs a whole model"),
    (["--on", "8xH100,4xH10O", "--model", "curb-4m"], "'H100'"),
    (["--on", "8xH100", "--model", "curb-4m", "--top", "0"], "nearest: 1"),
    (["--on", "8xH100", "--model", "curb-4m", "--objective", "fame"], "invalid choice"),
    (["--on", "1xT4", "--model", "llama-3-70b"], "nothing fits: the leanest recipe needs")])
def test_bad_input_is_one_clear_error(capsys, tmp_path, options, said):
    out = tmp_path / "out.toml"
    try:
        ended = main(["plan", "--search", *options, "--write", str(out)])
    except SystemExit as error:
        ended = error.code
    error = " ".join(capsys.readouterr().err.split())
    assert ended == 2 and said in error and " help: " in error and "Traceback" not in error
    assert not out.exists()


def test_several_machines_without_a_search_are_refused(capsys):
    assert main(["plan", "--on", "8xH100,4xH100", "--model", "curb-4m"]) == 2
    assert "--search" in capsys.readouterr().err
