"""The JSON of `curbcut plan --search`: its keys, and what its figures owe each other."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math

import pytest

from curbcut.cli.main import main
from curbcut.errors import InputError
from curbcut.plan import space
from curbcut.plan.offers import OBJECTIVES, RunnerUp
from curbcut.plan.recipes import NothingFits
from curbcut.plan.search_draft import search_draft
from curbcut.report import search as report
from curbcut.spec import checks, codec
from curbcut.spec.draft import Draft
from curbcut.train import refusals

DENSE = ("--model", "qwen3-0.6b", "--on", "4xA100", "--tokens", "50M")
SPARSE = ("--model", "qwen3-30b-a3b", "--on", "16xH100", "--tokens", "1B")
SEVERAL = ("--model", "curb-4m", "--on", "1xA100,2xH100,1xH200", "--tokens", "10M")
FIGURES = ("step_seconds", "peak_bytes", "seconds", "usd", "kwh")
ONE = {"machine", "recipe", "groups_seconds", "runs_here", "priced_only_for", *FIGURES}
CASES = {"dense": DENSE, "sparse": SPARSE, "several": SEVERAL}
OF = {"time": "seconds", "money": "usd", "energy": "kwh", "memory": "peak_bytes"}


@functools.cache
def printed(case, objective="time"):
    """What the command prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        assert main(["plan", "--search", *CASES[case], "--objective", objective, "--json"]) == 0
    return json.loads(said.getvalue())


def every(found):
    """Best, runners-up and front."""
    return [found["best"], *found["runners_up"], *found["front"]]


def value(one, figure):
    return one[figure]["value"]


def costs(one):
    """Counts of which less is better."""
    return tuple(value(one, figure) for figure in OF.values())


@pytest.mark.parametrize("case", sorted(CASES))
def test_it_has_exactly_these_keys(case):
    found = printed(case)
    assert set(found) == {"search", "run", "origins", "forecast"}
    assert set(found["search"]) == {"objective", "priced", "fit", "kept", "left_out", "best",
                                    "best_that_runs", "runners_up", "front"}
    for one in [found["search"]["best"], *found["search"]["front"]]:
        assert set(one) == ONE
    for one in found["search"]["runners_up"]:
        assert set(one) == ONE | {"differs", "lost_by_seconds", "over_bytes", "why"}
    assert found["search"]["priced"] >= found["search"]["fit"] >= len(found["search"]["front"]) > 0


@pytest.mark.parametrize(("case", "objective"), [
    ("sparse", "time"), ("sparse", "memory"),
    *((case, objective) for case in ("dense", "several") for objective in OBJECTIVES)])
def test_the_best_is_on_the_front_and_has_least_of_what_was_asked(case, objective):
    found = printed(case, objective)["search"]
    assert found["objective"] == objective
    assert found["best"] in found["front"]
    figure = OF[objective]
    assert value(found["best"], figure) == min(value(one, figure) for one in found["front"])


@pytest.mark.parametrize("case", sorted(CASES))
def test_nothing_on_the_front_is_beaten_by_another(case):
    front = printed(case)["search"]["front"]
    for place, one in enumerate(front):
        for other in front[:place] + front[place + 1:]:
            mine, theirs = costs(one), costs(other)
            better = [b <= a * (1 - 1e-12) for a, b in zip(mine, theirs, strict=True)]
            worse = [b > a * (1 + 1e-12) for a, b in zip(mine, theirs, strict=True)]
            assert any(worse) or not any(better)
    steps = [value(one, "step_seconds") for one in front]
    assert steps == sorted(steps)


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_runner_up_is_slower_or_does_not_fit_and_says_why(case):
    found = printed(case)["search"]
    fastest = value(found["best"], "step_seconds")
    for up in found["runners_up"]:
        assert up["over_bytes"] > 0 or value(up, "step_seconds") >= fastest * (1 - 1e-9)
        assert (up["differs"] == "memory") == (up["over_bytes"] > 0)
        assert up["why"] and all(up["why"])
        assert sum(up["lost_by_seconds"].values()) == pytest.approx(
            value(up, "step_seconds") - fastest, abs=1e-6 * fastest)
    names = [up["differs"] for up in found["runners_up"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_runner_up_differs_in_what_it_is_named_for(case):
    found = printed(case)["search"]
    best = found["best"]
    for up in found["runners_up"]:
        if up["differs"] == "machine":
            assert up["machine"] != best["machine"]
        elif up["differs"] in best["recipe"]:
            assert up["recipe"][up["differs"]] != best["recipe"][up["differs"]]
        else:
            assert up["recipe"] != best["recipe"]


@pytest.mark.parametrize("case", sorted(CASES))
def test_figures_of_the_job_are_those_of_its_steps(case):
    found = printed(case)
    tokens = found["run"]["train"]["tokens"]
    for one in every(found["search"]):
        recipe = one["recipe"]
        steps = math.ceil(tokens / (recipe["global_batch"] * recipe["sequence_tokens"]))
        assert value(one, "seconds") == pytest.approx(steps * value(one, "step_seconds"), rel=1e-9)
        for figure in FIGURES:
            assert one[figure]["low"] <= value(one, figure) <= one[figure]["high"]
            assert value(one, figure) > 0 and one[figure]["source"]
        assert sum(one["groups_seconds"].values()) == pytest.approx(value(one, "step_seconds"))
        assert (one["priced_only_for"] is None) == one["runs_here"]


@pytest.mark.parametrize("case", sorted(CASES))
def test_all_do_the_same_work_in_ways_that_are_valid(case):
    found = printed(case)["search"]
    first = found["best"]["recipe"]
    for one in every(found):
        for name in ("global_batch", "sequence_tokens", "optimiser"):
            assert one["recipe"][name] == first[name]
        ranks = math.prod(one["recipe"][name] for name in checks.DEGREES)
        assert one["machine"].startswith(f"{ranks}x")
        assert one["recipe"]["global_batch"] % (
            one["recipe"]["micro_batch"] * one["recipe"]["dp_shard"]
            * one["recipe"]["dp_replicate"]) == 0


def test_the_run_is_the_best_and_the_forecast_is_of_it():
    found = printed("dense")
    best = found["search"]["best"]
    assert found["run"]["machine"]["name"] == best["machine"]
    for name in space.FIELDS:
        assert found["run"]["recipe"][name] == best["recipe"][name]
        assert found["origins"][f"recipe.{name}"].startswith("plan: least time of ")
    steps = found["forecast"]["seconds"]["steps"]
    assert steps["value"] == pytest.approx(value(best, "seconds"), rel=1e-6)


def drafted(*, recipe=None, **tables):
    raw = {"model": {"preset": "curb-4m"}, "machine": {"name": "2xA100"},
           "train": {"tokens": "10M"}} | tables
    return Draft().with_raw(raw | ({"recipe": recipe} if recipe else {}), "test")


@pytest.fixture(scope="module")
def whole():
    return search_draft(drafted(), top=30)


def test_each_recipe_passes_the_checks(whole):
    found = whole.found
    for one in (found.best, *(up.priced for up in found.runners_up), *found.front):
        checks.recipe(one.offer.space.shape, one.recipe, one.offer.machine)


def test_only_what_fits_is_on_the_front(whole):
    for one in whole.found.front:
        assert one.over_bytes == 0
        assert one.peak_bytes.value <= one.offer.pricer.room_bytes
    for up in whole.found.runners_up:
        assert up.priced.over_bytes == pytest.approx(
            max(0, up.priced.peak_bytes.value - up.priced.offer.pricer.room_bytes))


def test_money_and_energy_are_those_of_the_seconds(whole):
    best = whole.found.best
    for steps in (1, 7, 1000):
        assert best.usd(steps).value == pytest.approx(
            steps * best.seconds.value * best.offer.usd.value)
        assert best.kwh(steps).value == pytest.approx(
            steps * best.seconds.value * best.offer.kwh.value)
    assert best.offer.rate("time") == best.offer.rate("memory") == 1.0
    assert best.offer.rate("money") == best.offer.usd.value
    assert best.offer.rate("energy") == best.offer.kwh.value


def test_nothing_is_lost_against_oneself(whole):
    best = whole.found.best
    same = RunnerUp("tp", best)
    assert set(same.lost_by(best)) == set(best.groups)
    assert not any(same.lost_by(best).values())
    assert report.reasons(same, best) == ["as good: the first of equals was taken"]
    assert report.differences(best, best) == "the same"


def test_what_was_lost_is_sorted_by_its_size(whole):
    for up in whole.found.runners_up:
        sizes = [abs(more) for more in up.lost_by(whole.found.best).values()]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("recipe", [
    {"recompute": "full"}, {"dp_shard": 1, "dp_replicate": 2}, {"micro_batch": 2},
    {"precision": "fp32", "offload": "none"}, {"tp": 2, "sequence_parallel": True}])
def test_fields_that_are_given_are_kept_by_all(recipe):
    searched = search_draft(drafted(recipe=recipe), top=30)
    assert set(searched.kept) == set(recipe)
    for one in (searched.found.best, *searched.found.front,
                *(up.priced for up in searched.found.runners_up)):
        assert {name: getattr(one.recipe, name) for name in recipe} == recipe
    free = search_draft(drafted(), top=1).found
    assert searched.found.priced < free.priced
    assert searched.found.best.seconds.value >= free.best.seconds.value * (1 - 1e-9)


def test_a_batch_that_is_given_is_everybodys(whole):
    searched = search_draft(drafted(recipe={"global_batch": 48}), top=10)
    assert {one.recipe.global_batch for one in searched.found.front} == {48}
    assert "global_batch" not in searched.kept


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_byte(whole, threads):
    again = search_draft(drafted(), top=30, threads=threads)
    assert json.dumps(report.as_plain(again)) == json.dumps(report.as_plain(whole))


@pytest.mark.parametrize(("tables", "said"), [
    ({"model": {"layers": 4}}, "whole model"), ({"machine": {"name": "0xA100"}}, ""),
    ({"machine": {"name": "3xA100"}, "recipe": {"tp": 2}}, "does not multiply"),
    ({"recipe": {"precision": "nvfp4"}}, "no known rate"),
    ({"recipe": {"ep": 2}}, "needs a model with experts"),
    ({"recipe": {"pp": 2, "pipeline": "1f1b", "virtual_stages": 2}}, "interleaved"),
    ({"recipe": {"learning_rate": float("nan")}}, "")])
def test_what_cannot_be_searched_is_one_error_with_a_mend(tables, said):
    with pytest.raises(InputError) as caught:
        search_draft(drafted(**tables))
    assert said in str(caught.value) and caught.value.mend


def test_what_fits_nowhere_says_what_the_leanest_needs():
    with pytest.raises(NothingFits) as caught:
        search_draft(drafted(model={"preset": "llama-3-70b"}, machine={"name": "1xT4"}))
    nearest = caught.value.nearest
    assert nearest.over_bytes > 0
    assert "nothing fits" in caught.value.what and caught.value.where == "1xt4"


def test_the_best_that_runs_is_held_to_what_training_knows():
    searched = search_draft(drafted(machine={"name": "1xB200"}), only=refusals.TRAINED)
    one = report.runs(searched)
    assert one is not None and report.standing(one) == report.RUNS_HERE
    for name, known in refusals.TRAINED.items():
        assert getattr(one.recipe, name) in known
    assert one.seconds.value >= searched.found.best.seconds.value
    assert search_draft(drafted(machine={"name": "1xB200"})).running is None


def test_a_price_that_nobody_knows_is_null_and_cannot_decide(capsys):
    arguments = ["plan", "--search", "--model", "curb-4m", "--on", "1xT4,1xA100", "--tokens", "10M",
                 "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)["search"]
    for one in every(found):
        assert (value(one, "usd") is None) == (one["machine"] == "1xt4")
        assert value(one, "seconds") > 0
    assert main([*arguments, "--objective", "money"]) == 2
    assert "the money of 1xt4 is not known" in capsys.readouterr().err


def test_the_plain_form_survives_json(whole):
    plain = report.as_plain(whole)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["best"]["recipe"] == codec.plain(whole.found.best.recipe)
