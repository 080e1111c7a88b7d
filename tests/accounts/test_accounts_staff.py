import csv
import pathlib

import numpy as np
import pytest

from curbcut.accounts import staff
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.spec import Estimate, Place, measured

TABLE = pathlib.Path(__file__).parent / "epoch_development.csv"
STATED = {(row["model"], row["part"]): row for row in csv.DictReader(TABLE.open(encoding="utf-8"))}
MODELS = staff.models()


def _sheet(place):
    sheet = Sheet()
    sheet.leaf("seconds.total", Estimate(8766 * 3600.0 / 2), "seconds")
    staff.write(sheet, place)
    return sheet


def test_nobody_said_how_many_people():
    found = _sheet(Place())["usd.staff"].estimate
    assert found.value is None
    assert "place.staff_fte" in found.source


def test_people_cost_their_time_at_what_was_said():
    sheet = _sheet(Place(staff_fte=3, staff_usd_per_year=100_000))
    assert sheet.value("usd.staff") == pytest.approx(3 * 100_000 / 2)
    assert sheet.estimates()["usd.staff"].basis == "modelled", "the time is"


def test_a_year_of_a_person_is_a_salary_with_overheads():
    sheet = _sheet(Place(staff_fte=1))
    a_year = sheet.estimates()["staff.usd_per_year"]
    assert a_year.value == pytest.approx(192_542 * 1.3229, rel=1e-3)
    assert a_year.low < 200_000 < 300_000 < a_year.high
    assert sheet.value("usd.staff") == pytest.approx(a_year.value / 2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", ["chips", "server", "network"])
def test_hardware_of_the_four_models_is_theirs(model, part):
    found, stated = staff.development(model)[part], STATED[model, part]
    assert np.median(found) == pytest.approx(float(stated["median_usd_2023"]), rel=0.03)
    low, high = np.quantile(found, (0.025, 0.975))
    assert low == pytest.approx(float(stated["low95"]), rel=0.05)
    assert high == pytest.approx(float(stated["high95"]), rel=0.05)


@pytest.mark.parametrize("model, tolerance", [
    ("GPT-3 175B (davinci)", 0.06), ("OPT-175B", 0.16), ("GPT-4", 0.04),
    ("Gemini 1.0 Ultra", 0.03)])
def test_staff_is_theirs_as_near_as_their_one_draw_of_equity_lets_it_be(model, tolerance):
    # The fewer the contributors, the more their median hangs on the one draw: see the next test.
    found = np.median(staff.development(model)["staff"])
    assert found == pytest.approx(float(STATED[model, "staff"]["median_usd_2023"]), rel=tolerance)


def test_equity_drawn_once_moves_the_median_and_narrows_the_interval():
    def medians_and_widths(once):
        drawn = [staff.development("OPT-175B", 4000, seed, equity_once=once)["staff"]
                 for seed in range(12)]
        ends = [np.quantile(one, (0.05, 0.5, 0.95)) for one in drawn]
        return (np.std([np.log(one[1]) for one in ends]),
                np.mean([np.log(one[2] / one[0]) for one in ends]))

    moved_once, width_once = medians_and_widths(True)
    moved, width = medians_and_widths(False)
    assert moved_once > 5 * moved, "one draw of 19 equities decides their median"
    assert width > 1.03 * width_once


def test_the_totals_of_large_models_are_as_stated():
    for model in ("GPT-4", "Gemini 1.0 Ultra", "GPT-3 175B (davinci)"):
        found = np.median(staff.development(model)["total"])
        assert found == pytest.approx(float(STATED[model, "total"]["median_usd_2023"]), rel=0.06)


def test_energy_of_gpt4_is_the_first_approach_there_too():
    found = np.median(staff.development("GPT-4")["energy"])
    assert found == pytest.approx(float(STATED["GPT-4", "energy"]["median_usd_2023"]), rel=0.03)


def test_the_same_seed_gives_the_same_draws():
    one, again = (staff.development("OPT-175B", 100, 7) for _ in range(2))
    assert all(np.array_equal(one[part], again[part]) for part in one)
    assert not np.array_equal(one["staff"], staff.development("OPT-175B", 100, 8)["staff"])


def test_parts_add_up_in_every_draw():
    found = staff.development("OPT-175B", 50)
    total = sum(draws for part, draws in found.items() if part != "total")
    assert np.allclose(total, found["total"])


def test_projects_are_as_long_as_published():
    rng = np.random.default_rng(0)
    for model, months in (("GPT-3 175B (davinci)", 8.3), ("GPT-4", 12), ("Gemini 1.0 Ultra", 12)):
        years = staff._years(staff.epoch_staff.project(model), 20_000, rng)
        assert 12 * np.median(years) == pytest.approx(months, rel=0.04), model


def test_a_model_without_a_project_is_refused():
    with pytest.raises(UnknownName, match="GPT-4"):
        staff.development("GPT4")


def test_measured_time_keeps_the_weaker_basis():
    sheet = Sheet()
    sheet.leaf("seconds.total", measured(3600.0, "a clock"), "seconds")
    staff.write(sheet, Place(staff_fte=1))
    assert sheet.estimates()["usd.staff"].basis == "default"
