"""The picture of trends: two panels that say what they show, whatever is missing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from curbcut.report.pictures import canvas
from report.trend_sample import NOTHING, outlook, point, reach

pytest.importorskip("matplotlib")

from curbcut.report.pictures import trend


def said(found, tmp_path):
    path = tmp_path / "a.svg"
    trend.draw(found, path)
    return [" ".join("".join(each.itertext()).split()) for each in ET.parse(path).iter(
        "{http://www.w3.org/2000/svg}text")]


def test_both_panels_say_their_title_axes_and_interval(tmp_path):
    found = said(outlook(), tmp_path)
    whole = " ".join(found)
    for words in ("Cost of training the largest models", "dollars of December 2023", "times a year",
                  "95% interval", "6 models", "Who can train what in 2026", "budget, US dollars",
                  "parameters", "C = 120 P²", "2030, extrapolated", "2023"):
        assert words in whole, words
    assert "2023, extrapolated" not in whole


def test_the_same_outlook_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        trend.draw(outlook(), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_without_a_line_there_is_no_growth_to_read(tmp_path):
    found = outlook()
    first = replace(found.frontier[0], line=None)
    whole = " ".join(said(replace(found, frontier=(first, *found.frontier[1:])), tmp_path))
    assert "times a year" not in whole and "Cost of training" in whole


def test_budgets_that_were_asked_for_are_named_and_others_are_not(tmp_path):
    asked = outlook(reaches=(reach(500.0), NOTHING), asked=True)
    found = said(asked, tmp_path)
    assert "500M" in found and "1.00B" not in found
    assert "1.00B" in said(outlook(), tmp_path)


def test_a_map_on_which_nothing_is_paid_for_is_not_drawn_as_zero(tmp_path):
    found = outlook()
    curves = (found.curves[0], (NOTHING,), (NOTHING,))
    whole = " ".join(said(replace(found, curves=curves), tmp_path))
    assert "extrapolated" not in whole and "Who can train what" in whole


def test_known_models_are_named_where_the_facts_have_them(tmp_path):
    found = outlook()
    named = replace(point(3), name="GPT-4")
    first = replace(found.frontier[0], points=(*found.frontier[0].points[:3], named))
    bought = replace(found.again[0], name="PaLM (540B)")
    whole = said(replace(found, frontier=(first, *found.frontier[1:]), again=(bought,)), tmp_path)
    assert "GPT-4" in whole and "PaLM (2010)" in whole
    assert not any(text.startswith("Model ") for text in whole), "others stay dots"


def test_a_map_of_a_year_ahead_says_by_what_it_is_made(tmp_path):
    ahead = outlook(year=2030.0)
    curves = (ahead.curves[2], ahead.curves[0])
    whole = " ".join(said(replace(ahead, curves=curves), tmp_path))
    assert "Who can train what in 2030 (extrapolated)" in whole


# --- what all pictures share ----------------------------------------------------------------------

@pytest.mark.parametrize(("value", "unit", "said"), [
    (60.0, "seconds", "1 min"), (5400.0, "seconds", "1.5 h"), (86400.0, "seconds", "1 d"),
    (3650 * 86400.0, "seconds", "3,650 d"), (0.001, "seconds", "1 ms"), (1e4, "usd", "$10k"),
    (2e9, "count", "2 B"), (1e-3, "kgco2e", "1 gCO2e")])
def test_ticks_are_round_in_the_larger_unit(value, unit, said):
    assert canvas._tick(value, unit, "USD") == said


@pytest.mark.parametrize(("unit", "currency", "said"), [
    ("usd", "USD", "US dollars"), ("usd", "EUR", "EUR"), ("kwh", "USD", "energy"),
    ("kgco2e", "USD", "carbon"), ("litres", "USD", "water"), ("nats", "USD", "nats")])
def test_axes_are_named_in_words(unit, currency, said):
    assert canvas.named(unit, currency) == said


def test_money_alone_is_drawn_in_its_currency():
    assert canvas.drawn("usd", "USD") == canvas.drawn("kwh", "EUR") == 1.0
    assert canvas.drawn("usd", "EUR") * 1.0 < 1.0
