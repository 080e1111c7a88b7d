from __future__ import annotations

import io
import json

import pytest

from curbcut.plan.levers import price
from curbcut.plan.levers.catalogue import chosen
from curbcut.plan.levers.waterfall import waterfall
from curbcut.report import levers
from curbcut.report.tables import plain_console
from plan.plan_lever_samples import fleet

SOME = ["fp8", "compile", "data-quality", "growth", "lora", "mxfp8", "place"]


@pytest.fixture(scope="module")
def found():
    return waterfall(fleet(), chosen(SOME), price.unit("eur"))


def written(found, chosen="text", width=100, **more):
    out = io.StringIO()
    console = plain_console(out)
    console.width = width
    levers.show_levers([found], chosen, console=console, **more)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_text_fits_the_console_and_names_every_lever(found, width):
    text = written(found, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    for one in found.results:
        assert one.name in text


def test_the_text_says_total_interval_evidence_and_why_not(found):
    text = " ".join(written(found).split())
    assert f"{found.factor:.3g} x less" in text
    assert "EUR" in text and "$" not in text.split("What each sets")[0]
    assert "90% interval" in text and "it may save none" in text
    assert "[throughput: torchtitan" in text and "[end-to-end: nanochat" in text
    assert "no mxfp8 on h100-sxm-80gb" in text
    assert "sets recipe.precision: bf16 -> fp8" in text


def test_evidence_of_levers_that_were_not_taken_is_shown_when_asked(found):
    assert "QLoRA" not in written(found)
    assert "QLoRA" in written(found, evidence=True)


def test_json_holds_every_figure_in_full(found):
    read = json.loads(written(found, "json"))["waterfalls"][0]
    assert read["start"]["value"] == found.start.value
    assert read["factor"] == found.factor
    assert [one["name"] for one in read["results"]] == [one.name for one in found.results]
    first = read["results"][0]
    assert {"value", "low", "high"} <= set(first["marginal"])
    assert first["evidence"][0]["quote"]


def test_csv_has_intervals_and_what_was_set(found):
    text = written(found, "csv")
    head = next(line for line in text.splitlines() if line.startswith("order,lever"))
    assert ("saves_after_the_others_usd,saves_after_the_others_usd_low,"
            "saves_after_the_others_usd_high,whole_after_usd") in head
    assert repr(found.steps[0].marginal.low) in text
    assert "recipe.compile: False -> True" in text
    assert "factor_published" in text


def test_markdown_has_all_three_tables(found):
    text = written(found, "markdown")
    assert text.count("### ") == 3
    assert "| data formats |" in text and "recipe.compile: False -> True |" in text
    assert "| lever |" in text or "| # | lever |" in text


def test_a_run_that_nothing_makes_cheaper_says_so():
    nothing = waterfall(fleet(), chosen(["mxfp8", "place"]), price.unit("usd"))
    text = written(nothing)
    assert "none saves" in text and "1 x less" in text


def test_the_run_the_intervals_and_what_instead_comes_to_are_said(found):
    text = " ".join(written(found).split())
    assert f"The run: {found.of}." in text and "llama-3-8b, 20.0 B tokens" in text
    low, high = found.factor_ends
    assert f"{low:.3g} .. {high:.3g} x less" in text
    assert "comes to" in text


def test_nearly_all_is_not_rounded_to_all():
    most = waterfall(fleet("16xH100", "1T"), chosen(["lora"]), price.unit("usd"))
    assert "> 99.9%" in written(most) and "100.0%" not in written(most)


def test_what_does_not_apply_is_a_list_of_its_own_and_no_reason_is_cut(found):
    text = written(found, width=80)
    assert "Not here" in text and "…" not in text
    for one in found.results:
        if one.order is None:
            assert one.reason in " ".join(text.split())
