from __future__ import annotations

import io
import json

import pytest

from curbcut.plan.offers import RunnerUp
from curbcut.plan.search_draft import search_draft
from curbcut.report import search
from curbcut.report.formats import written
from curbcut.report.tables import plain_console
from curbcut.spec.draft import Draft


@pytest.fixture(scope="module")
def searched():
    draft = Draft().with_raw({"model": {"preset": "qwen3-0.6b"}, "machine": {"name": "2xA100"},
                              "train": {"tokens": "100M"}, "place": {"zone": "FRA"}}, "test")
    return search_draft(draft, ["2xA100", "1xH100"], top=20)


def printed(searched, width=100):
    console = plain_console(io.StringIO())
    console.width = width
    search.print_search(searched, top=6, console=console)
    return console.file.getvalue()


def test_the_whole_job_is_its_steps_times_a_step(searched):
    best, tokens = searched.found.best, searched.resolved.run.train.tokens
    whole = search.total(best, tokens)
    assert whole.seconds.value == pytest.approx(searched.steps * best.seconds.value)
    assert whole.usd.value == pytest.approx(
        whole.seconds.value * best.offer.usd.value)
    assert whole.kwh.value == pytest.approx(whole.seconds.value * best.offer.kwh.value)


def test_why_a_runner_up_lost_names_its_largest_parts(searched):
    best = searched.found.best
    for up in searched.found.runners_up:
        said = search.reasons(up, best)
        assert said
        lost = up.lost_by(best)
        first = next(iter(lost))
        if lost[first]:
            assert any(search.PARTS.get(first, first) in part for part in said)
        if up.priced.over_bytes:
            assert said[0].startswith("does not fit by ")
    same = RunnerUp("tp", best)
    assert search.reasons(same, best) == ["as good: the first of equals was taken"]


def test_another_machine_says_what_it_costs_more_or_less(searched):
    up = next(up for up in searched.found.runners_up if up.differs == "machine")
    said = search.reasons(up, searched.found.best)
    assert said[0].startswith("money ") and said[1].startswith("energy ")


def test_differences_are_the_fields_that_differ(searched):
    best = searched.found.best
    assert search.differences(best, best) == "the same"
    for up in searched.found.runners_up:
        if up.differs in ("precision", "recompute", "offload", "micro_batch"):
            assert f"{up.differs} = " in search.differences(up.priced, best)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_print_fits_and_says_all(searched, width):
    said = printed(searched, width)
    assert max(map(len, said.splitlines())) <= width
    for words in (f"{searched.found.priced:,} recipes priced", "The best", "Runners-up",
                  "The Pareto front", "other ", searched.found.best.offer.machine.name):
        assert words in said


@pytest.mark.parametrize("chosen", ["markdown", "csv"])
def test_other_formats_have_best_recipe_runners_up_and_front(searched, chosen):
    text = written(search.search_tables(searched, chosen, top=6), chosen)
    best = searched.found.best
    for words in ("Its recipe", best.offer.machine.name, f"{best.recipe.micro_batch}",
                  "Runners-up, and why they lost", "The Pareto front"):
        assert words in text
    if chosen == "csv":
        front = text.partition("The Pareto front")[2].splitlines()
        assert front[1].startswith("all_steps_seconds,all_steps_seconds_low,")
        assert len(front) == 2 + len(searched.found.front)
        assert "recipes priced" not in text  # a sentence is no table


def test_the_plain_form_is_json_and_complete(searched):
    plain = json.loads(json.dumps(search.as_plain(searched)))
    assert len(plain["front"]) == len(searched.found.front)
    assert plain["best"]["groups_seconds"].keys() >= {"matmul", "attention", "bubble"}
    assert sum(plain["best"]["groups_seconds"].values()) == pytest.approx(
        plain["best"]["step_seconds"]["value"])
    for up in plain["runners_up"]:
        assert sum(up["lost_by_seconds"].values()) == pytest.approx(
            up["step_seconds"]["value"] - plain["best"]["step_seconds"]["value"], abs=1e-9)


def test_recompute_is_a_part_of_its_own(searched):
    up = next((up for up in searched.found.runners_up if up.priced.recipe.recompute == "full"),
              None)
    one = up.priced if up else next(one for one in searched.found.front
                                    if one.recipe.recompute == "full")
    assert one.groups["recompute"] > 0
    assert sum(one.groups.values()) == pytest.approx(one.seconds.value)
