import pytest

from curbcut.errors import UnknownName
from curbcut.facts import accelerators, fab, grid, table, water


@pytest.mark.parametrize(("asked", "taken"), [(3, 3), (4, 5), (5, 5), (6, 7), (7, 7), (12, 14),
                                              (16, 14), (28, 28), (65, 28)])
def test_a_process_takes_the_nearest_that_act_has(asked, taken):
    assert fab.fab(asked).process_nm == taken


def test_finer_processes_take_more_energy_and_less_abatement_more_gas():
    found = [fab.fab(nm) for nm in (28, 14, 10, 7, 5, 3)]
    energies = [one.kwh_per_cm2 for one in found]
    assert energies == sorted(energies)
    assert all(0 < one.gas_kg_per_cm2_low < one.gas_kg_per_cm2_high < 1 for one in found)


def test_dies_are_of_known_accelerators_and_sane():
    for row in table.rows("dies", ("accelerator",)):
        assert accelerators.accelerator(row.text("accelerator")).id == row.text("accelerator")
    assert fab.die("A100").die_mm2 == 826 and fab.die("H100").process_nm == 4
    assert fab.die("TPU v5p") is None
    with pytest.raises(UnknownName):
        fab.die("abacus")


def test_own_die_counts(own_facts):
    (own_facts / "dies.csv").write_text(
        "accelerator,die_mm2,process_nm,source,date\ntpu-v5p,600,5,photo,2026\n")
    assert fab.die("TPU v5p").die_mm2 == 600


def test_water_of_each_zone_is_of_a_zone_that_the_grid_has():
    for row in table.rows("water", ("scope", "zone")):
        if row.text("scope") == "grid":
            assert grid.figures(row.text("zone"))[0].zone == row.text("zone")
            assert 1 < row.number("litres_per_kwh") < 20


def test_water_where_it_is_known():
    assert water.of_grid("USA").value == 3.14 and water.of_grid("US-TX").zone == "USA"
    assert water.of_grid("Aruba") is None
    assert water.of_site(cooled=False).value == 0 < water.of_site(cooled=True).low
