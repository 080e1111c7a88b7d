from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts import embodied, hours
from curbcut.accounts.carbon import GRID_SPREAD, carbon, intensity, market, write
from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError, UnknownName
from curbcut.facts import embodied as facts
from curbcut.facts import grid
from curbcut.spec import Estimate, Place, measured
from tiny import tiny_machine

HOUR = measured(3600.0, "a clock")
KWH = measured(2.0, "a meter")
GPUS = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", accelerators_per_node=8,
                    memory_bytes=80 * 2**30)


def sheet_of(place, kwh=KWH, seconds=HOUR, machine=GPUS):
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("kwh.facility", kwh, "kwh")
    write(sheet, machine, place)
    return sheet


@pytest.fixture
def profile(own_home):
    """A grid that is clean by night: 100 g from 22 to 6, else 400."""
    folder = own_home / "facts"
    folder.mkdir()
    rows = [f"FRA,{hour},{100 if hour >= 22 or hour < 6 else 400},meter,2026" for hour in range(24)]
    (folder / "grid_hours.csv").write_text(
        "\n".join(["zone,hour,gco2e_per_kwh,source,date", *rows]) + "\n")
    return folder


def test_operational_carbon_is_energy_times_the_grid():
    found = carbon(GPUS, Place(zone="FRA"), HOUR, KWH)
    assert found["operational"].value == pytest.approx(
        2.0 * grid.intensity("FRA").gco2e_per_kwh / 1000)
    assert found["operational"].low < found["operational"].value < found["operational"].high
    assert found["total"].value == pytest.approx(
        found["operational"].value + found["embodied"].value)


def test_an_unknown_zone_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'France'"):
        carbon(GPUS, Place(zone="Frannce"), HOUR, KWH)


def test_the_interval_spans_sources_and_years():
    found = intensity(Place(zone="Japan"))
    published = [one.gco2e_per_kwh / 1000 for one in grid.figures("JPN")]
    assert len(published) == 3
    assert all(found.contains(one) for one in published)
    alone = intensity(Place(zone="FRA"))
    assert alone.high == pytest.approx(alone.value * GRID_SPREAD)


def test_a_year_takes_its_own_figure_and_else_says_which():
    newest, older = intensity(Place(zone="USA")), intensity(Place(zone="USA", year=2022))
    assert (newest.value, older.value) == (0.3695, 0.380)
    assert "2022: 380 g/kWh" in older.source and "nearest" not in older.source
    assert "2023: 369.5 g/kWh, nearest known to 2030" in intensity(
        Place(zone="USA", year=2030)).source


def test_a_zone_of_one_year_says_so_when_another_is_asked():
    assert "2022: 561.2 g/kWh, nearest known to 2010" in intensity(
        Place(zone="ABW", year=2010)).source
    assert "nearest" not in intensity(Place(zone="ABW", year=2022)).source
    undated = intensity(Place(zone="gcp:europe-west9", year=2023))
    assert undated.value == intensity(Place(zone="gcp:europe-west9")).value
    assert "nearest known to 2023" in undated.source


def test_without_a_contract_the_market_figure_is_unknown_and_says_what_to_set():
    found = carbon(GPUS, Place(), HOUR, KWH)
    assert found["market"].value is None
    assert "place.market_gco2e_per_kwh" in found["market"].source


def test_a_contract_stands_beside_the_place_and_never_in_the_total():
    green = carbon(GPUS, Place(zone="POL", market_gco2e_per_kwh=0.0), HOUR, KWH)
    assert green["market"].value == 0.0
    assert green["total"].value == carbon(GPUS, Place(zone="POL"), HOUR, KWH)["total"].value
    assert market(Place(market_gco2e_per_kwh=50.0)).value == 0.05
    assert carbon(GPUS, Place(market_gco2e_per_kwh=50.0), HOUR, KWH)["market"].value == 0.1


def test_hours_without_a_profile_take_the_years_mean_and_say_so():
    found = intensity(Place(zone="FRA", hours="22-6"))
    assert found.value == intensity(Place(zone="FRA")).value
    assert "no profile of hours" in found.source


def test_a_profile_gives_the_mean_of_the_hours(profile):
    assert intensity(Place(zone="FRA", hours="22-6")).value == pytest.approx(0.1)
    assert intensity(Place(zone="FRA", hours="4-8")).value == pytest.approx(0.25)
    assert intensity(Place(zone="FRA")).value == pytest.approx(0.3)
    night = carbon(GPUS, Place(zone="FRA", hours="22-6"), HOUR, KWH)["operational"]
    assert night.value == pytest.approx(0.2) and "hours 22-6" in night.source


def test_the_best_window_its_saving_and_its_delay(profile):
    found = hours.best_window(Place(zone="France"), 8)
    assert found.hours == "22-6" and found.stretch == 3.0
    assert found.saving == pytest.approx(1 - 100 / 300)
    assert hours.stretch(Place(hours=found.hours)) == found.stretch
    everywhen = hours.best_window(Place(zone="France"), 24)
    assert (everywhen.saving, everywhen.stretch) == (pytest.approx(0.0), 1.0)
    assert hours.best_window(Place(zone="DEU"), 8) is None
    with pytest.raises(InputError):
        hours.best_window(Place(zone="France"), 25)


def test_a_wider_window_never_saves_more(profile):
    savings = [hours.best_window(Place(zone="FRA"), count).saving for count in range(1, 25)]
    assert all(one >= other - 1e-12 for one, other in pairwise(savings))


@pytest.mark.parametrize(("text", "expected"), [
    ("22-6", [22, 23, 0, 1, 2, 3, 4, 5]), ("9-17", list(range(9, 17))), ("", list(range(24))),
    ("0-24", list(range(24))), ("5-5", [*range(5, 24), *range(5)]), ("24-1", [0])])
def test_hours_of_a_day(text, expected):
    assert hours.of_day(text) == expected


@pytest.mark.parametrize("text", ["night", "22", "22-30", "22-6-8", "-6"])
def test_hours_that_are_none_say_how_to_write_them(text):
    with pytest.raises(InputError, match="22-6"):
        carbon(GPUS, Place(hours=text), HOUR, KWH)


def test_a_profile_with_a_gap_is_refused(profile):
    lines = (profile / "grid_hours.csv").read_text().splitlines()
    (profile / "grid_hours.csv").write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(InputError, match="has no hour 21"):
        intensity(Place(zone="FRA", hours="1-2"))


def test_embodied_carbon_is_chip_and_server_over_life_and_use():
    chip, server = facts.accelerator_range("h100-sxm-80gb"), facts.server_range()
    found = carbon(GPUS, Place(), HOUR, KWH)["embodied"]
    life = known("embodied_lifetime_years").value * known("embodied_utilisation").value
    assert found.value == pytest.approx(8 * (chip.mid + server.mid) / 8766 / life)
    assert found.low < found.value / 1.5 and found.high > 1.5 * found.value


def test_eight_places_make_a_servers_published_kilograms():
    """5,700 kg an 8-GPU server without its GPUs (EcoLogits), 2,500 kg (BLOOM)."""
    found = facts.server_range()
    assert found.low < 2500 / 8 < found.mid < 5700 / 8 < found.high


def test_the_low_end_is_never_above_acts_die_and_memory():
    a100 = tiny_machine(kind="gpu", accelerator="a100-sxm-80gb", memory_bytes=80 * 2**30)
    floor, found = embodied.act_kg("a100-sxm-80gb", 80 * 2**30), embodied.accelerator_kg(a100)
    assert 20.3 < floor.value < 30
    assert found.low == floor.value < facts.accelerator_range("a100-sxm-80gb").low
    assert "ACT" in found.source


def test_a_chip_without_a_published_figure_has_acts_low_end_and_says_so():
    mi300x = tiny_machine(kind="gpu", accelerator="mi300x", memory_bytes=192 * 2**30)
    found = embodied.accelerator_kg(mi300x)
    assert "no figure for mi300x" in found.source
    assert found.low <= embodied.act_kg("mi300x", 192 * 2**30).value
    assert embodied.act_kg("tpu-v5p", 2**30).value is None


def test_an_accelerator_nobody_knows_has_no_embodied_carbon_and_the_total_says_so():
    found = carbon(tiny_machine(kind="gpu", accelerator="abacus"), Place(), HOUR, KWH)
    assert found["embodied"].value is None
    assert found["total"].value == found["operational"].value
    assert found["total"].source.startswith("operational only")


def test_a_cpu_machine_has_its_cores_and_memory_and_no_more_than_is_known():
    big = tiny_machine(cores=64, host_memory_bytes=512 * 2**30)
    found, small = embodied.processor_kg(big), embodied.processor_kg(tiny_machine())
    assert 0 < small.value < found.value and small.high > 46
    assert "without board" in found.source
    blind = carbon(tiny_machine(cores=0), Place(), HOUR, KWH)
    assert blind["embodied"].value is None and blind["total"].known


def test_unknown_energy_leaves_operational_and_total_unknown():
    found = carbon(GPUS, Place(), HOUR, Estimate(None, source="no power is known"))
    assert found["operational"].value is None and found["total"].value is None
    assert found["embodied"].known


@settings(max_examples=40)
@given(st.floats(0.0, 1e6), st.floats(1.0, 5.0))
def test_more_energy_is_never_less_carbon(kwh, factor):
    less, more = (carbon(GPUS, Place(zone="DEU"), HOUR, measured(one, "meter"))["total"]
                  for one in (kwh, kwh * factor))
    for end in ("value", "low", "high"):  # sums of squares round in their last place
        assert getattr(less, end) <= getattr(more, end) * (1 + 1e-12)


@settings(max_examples=40)
@given(st.floats(1.0, 10.0), st.floats(1.0, 3.0), st.floats(0.1, 1.0))
def test_embodied_falls_with_lifetime_and_use_and_grows_with_time(years, longer, use):
    one = embodied.share_kg(100.0, 8, 3600.0, years, use)
    assert embodied.share_kg(100.0, 8, 3600.0, years * longer, use) <= one
    assert embodied.share_kg(100.0, 8, 3600.0, years, min(1.0, use * longer)) <= one
    assert embodied.share_kg(100.0, 8, 3600.0 * longer, years, use) >= one


@settings(max_examples=30)
@given(st.floats(50, 1200), st.sampled_from([28, 16, 12, 8, 7, 5, 4, 3]))
def test_a_larger_die_is_never_lighter(mm2, nm):
    found = embodied.die_kg(mm2, nm)
    assert found.low < found.value < found.high
    assert embodied.die_kg(mm2 * 1.1, nm).value > found.value


def test_first_order_and_sampled_intervals_agree():
    sheet = sheet_of(Place(zone="USA", pue=1.2), kwh=Estimate(1000.0, 700.0, 1300.0))
    quick, drawn = sheet.estimates(), sheet.sampled_estimates(20_000)
    for key in ("kgco2e.operational", "kgco2e.embodied", "kgco2e.total", "litres.water"):
        assert quick[key].low == pytest.approx(drawn[key].low, rel=0.3), key
        assert quick[key].high == pytest.approx(drawn[key].high, rel=0.3), key


def test_figures_stand_on_the_sheet_with_their_sources():
    sheet = sheet_of(Place(zone="USA"))
    names = {figure.key for figure in sheet.leaves("kgco2e.total")}
    assert {"kwh.facility", "grid.kgco2e_per_kwh", "embodied.accelerator",
            "embodied.lifetime_years"} <= names
    assert all(figure.estimate.source for figure in sheet.leaves("kgco2e.total"))
