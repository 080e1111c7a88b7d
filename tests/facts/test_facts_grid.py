import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.facts import grid


def test_intensities_lie_in_a_sane_range():
    for zone in grid.zones():
        assert 0 <= zone.gco2e_per_kwh <= 1400, zone
        assert zone.year is None or 2009 <= zone.year <= 2026, zone


def test_world_is_sourced():
    world = grid.intensity("world")
    assert (world.gco2e_per_kwh, world.year) == (481, 2023)
    assert "Ember" in world.source


@pytest.mark.parametrize(("given", "zone"), [
    ("FRA", "FRA"), ("fra", "FRA"), ("France", "FRA"), ("fr", "FRA"), (" france ", "FRA"),
    ("UK", "GBR"), ("united_states", "USA"), ("US", "USA"), ("Türkiye", "TUR"), ("Réunion", "REU"),
    ("California", "US-CA"), ("us-ca", "US-CA"), ("Quebec", "CA-QC"), ("Québec", "CA-QC"),
    ("CN-GD", "CN-GD"), ("SE3", "SE3"), ("aws:eu-west-3", "aws:eu-west-3"),
    ("AWS eu-west-3", "aws:eu-west-3"), ("eu-west-3", "aws:eu-west-3"),
    ("europe-west9", "gcp:europe-west9"), ("us-east-1", "aws:us-east-1"),
    ("us-east1", "gcp:us-east1"), ("World", "world"), ("GLOBAL", "world"),
])
def test_lookup_is_forgiving(given, zone):
    assert grid.intensity(given).zone == zone


def test_a_country_goes_before_a_state_of_the_same_name():
    assert grid.intensity("Georgia").kind == "country"
    assert grid.intensity("US-GA").name == "Georgia"


def test_every_code_finds_its_own_zone():
    assert all(zone in grid.figures(zone.zone) for zone in grid.zones())
    assert all(grid.intensity(zone.zone).name == zone.name for zone in grid.zones())


def test_place_matters_as_much_as_it_should():
    assert grid.intensity("POL").gco2e_per_kwh > 10 * grid.intensity("SWE").gco2e_per_kwh


def test_year_that_no_source_states_is_none():
    assert grid.intensity("gcp:europe-west9").year is None


@pytest.mark.parametrize(("given", "near"), [("Frannce", "France"), ("eu-wst-3", "eu-west-3")])
def test_unknown_zone_offers_the_nearest(given, near):
    with pytest.raises(UnknownName) as caught:
        grid.intensity(given, where="run.toml")
    assert near in str(caught.value)


def test_own_zone_is_added(own_facts):
    (own_facts / "grid.csv").write_text(
        "zone,aliases,gco2e_per_kwh,source,date\nroof,my roof|solar,40,inverter,2026\n")
    assert grid.intensity("My Roof").gco2e_per_kwh == 40


def test_the_newest_year_is_taken_and_of_one_year_the_last_source():
    years = [(one.year, one.gco2e_per_kwh) for one in grid.figures("USA")]
    assert years == [(2022, 380), (2023, 369), (2023, 369.5)]
    assert grid.intensity("USA").gco2e_per_kwh == 369.5
    assert grid.intensity("USA", 2022).gco2e_per_kwh == 380


@pytest.mark.parametrize(("year", "nearest"), [(1990, 2022), (2022, 2022), (2023, 2023),
                                               (2050, 2023)])
def test_a_year_that_no_source_has_takes_the_nearest(year, nearest):
    assert grid.intensity("India", year).year == nearest


@pytest.mark.parametrize("year", [0, 1990, 2022, 2026])
def test_a_zone_of_one_year_has_it_whatever_is_asked(year):
    [only] = grid.figures("ABW")
    assert grid.intensity("ABW", year) == only
    [undated] = grid.figures("gcp:europe-west9")
    assert undated.year is None and grid.intensity("gcp:europe-west9", year) == undated


def test_own_row_of_a_year_is_a_further_year(own_facts):
    (own_facts / "grid.csv").write_text(
        "zone,gco2e_per_kwh,year,source,date\nFRA,21,2025,operator,2026\n")
    assert grid.intensity("France").gco2e_per_kwh == 21
    assert grid.intensity("France", 2022).gco2e_per_kwh == 56


def test_own_row_without_a_year_stands_in_place_of_ours(own_facts):
    (own_facts / "grid.csv").write_text("zone,gco2e_per_kwh,source,date\nusa,12,meter,2019\n")
    [only] = grid.figures("United States")
    assert (only.gco2e_per_kwh, only.zone, only.kind) == (12, "USA", "country")


@pytest.mark.parametrize(("zone", "country"), [
    ("US-CA", "USA"), ("SE3", "SWE"), ("CN-GD", "CHN"), ("CA-QC", "CAN"), ("aws:us-west-2", "USA"),
    ("gcp:europe-west2", "GBR"), ("gcp:asia-northeast3", "KOR"), ("gcp:us-central1", "USA")])
def test_the_country_that_a_zone_lies_in(zone, country):
    assert grid.within(zone) == [zone, country]


@pytest.mark.parametrize("zone", ["FRA", "world", "aws:eu-west-3"])
def test_where_no_country_can_be_told_there_is_the_zone_alone(zone):
    assert grid.within(zone) == [zone]


def test_hours_are_a_persons_own(own_facts):
    assert grid.hours("FRA") == {}
    with pytest.raises(UnknownName):
        grid.hours("Atlantis")


@pytest.mark.parametrize(("rows", "says"), [
    ("fra,24,5,me,2026", "hour is 24"), ("fra,x,5,me,2026", "hour is 'x'"),
    ("fra,0,5,me,2026", "has no hour 1")])
def test_a_profile_that_cannot_be_read_says_so(own_facts, rows, says):
    (own_facts / "grid_hours.csv").write_text(
        f"zone,hour,gco2e_per_kwh,source,date\n{rows}\n")
    with pytest.raises(InputError, match=says):
        grid.hours("FRA")
