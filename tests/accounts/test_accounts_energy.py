from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts.energy import (
    USUAL,
    device_watts,
    drawn_share,
    energy,
    host_watts,
    idle,
    idle_watts,
    pue,
    write,
)
from curbcut.accounts.sheet import Sheet
from curbcut.facts.constants import constant
from curbcut.physics import power, power_cap
from curbcut.spec import Estimate, Place, measured
from tiny import tiny_machine, tiny_run

HOUR = measured(3600.0, "a clock")
GPU = {"kind": "gpu", "accelerator": "h100-sxm-80gb", "accelerators_per_node": 8}


def test_an_hour_at_ten_watts_is_ten_watt_hours():
    found = energy(tiny_machine(), Place(pue=1.5), HOUR)
    assert found["device"].value == pytest.approx(0.010)
    assert (found["device"].low, found["device"].high) == pytest.approx((0.005, 0.020))
    assert found["facility"].value == pytest.approx(0.015)


def test_a_cpu_machine_is_its_own_node():
    found = energy(tiny_machine(), Place(), HOUR)
    assert found["node"].value == found["device"].value == found["facility"].value


def test_gpus_are_fed_by_a_host():
    machine = tiny_machine(**GPU, watts={"max": 700.0})
    share = constant("power_fraction_training").value
    assert device_watts(machine).value == pytest.approx(8 * 700 * share)
    assert host_watts(machine).value == 8 * constant("host_watts_per_accelerator").value
    found = energy(machine, Place(), HOUR)
    assert found["node"].value > found["device"].value


def test_a_cpu_without_figures_is_priced_by_core_and_memory():
    watts = device_watts(tiny_machine(watts={}, cores=4))
    cores = 4 * constant("vcpu_watts_max").value
    memory = 4 * 2**30 / 1e9 * constant("memory_watts_per_gb").value
    assert watts.value == pytest.approx(cores + memory)
    assert watts.low < watts.value < watts.high


def test_unknown_power_stays_unknown_and_is_never_zero():
    found = energy(tiny_machine(**GPU, watts={}), Place(), HOUR)
    assert all(estimate.value is None for estimate in found.values())


def test_unknown_time_stays_unknown():
    found = energy(tiny_machine(), Place(), Estimate(None))
    assert found["facility"].value is None


@settings(max_examples=50)
@given(seconds=st.floats(1e-3, 1e7), spread=st.floats(1, 4), pue=st.floats(0.5, 2.5),
       gpu=st.booleans(), typical=st.floats(1, 1000))
def test_boundaries_are_nested(seconds, spread, pue, gpu, typical):
    machine = tiny_machine(**(GPU if gpu else {}), watts={"typical": typical, "low": typical / 2,
                                                         "high": 2 * typical})
    time = Estimate(seconds, seconds / spread, seconds * spread)
    found = energy(machine, Place(pue=pue), time)
    for end in ("low", "value", "high"):
        device, node, facility = (getattr(found[b], end) for b in ("device", "node", "facility"))
        assert device <= node <= facility


@pytest.mark.parametrize("name", ["pue_data_centre", "pue_hyperscaler"])
def test_a_pue_that_a_plan_sets_has_the_interval_of_its_constant(name):
    known = constant(name)
    found = pue(Place(pue=known.value))
    assert (found.value, found.low, found.high) == (known.value, known.low, known.high)
    assert found.basis == "default" and name in found.source


@pytest.mark.parametrize(("stated", "value"), [(1.3, 1.3), (1.0, 1.0), (0.5, 1.0)])
def test_a_pue_of_ones_own_is_exact_and_never_below_1(stated, value):
    found = pue(Place(pue=stated))
    assert (found.low, found.value, found.high, found.basis) == (value, value, value, "given")


def test_a_capped_draw_is_uncertain_as_measured_caps_are():
    machine, recipe = tiny_machine(**H100), replace(tiny_run().recipe, power_limit=0.6)
    sheet = sheet_of(machine, recipe=recipe)
    leaf = sheet["power.capped_ratio"].estimate
    assert leaf.low < 1 < leaf.high
    assert "power.capped_ratio" in [name for name, _, _ in sheet.influences("watts.device")]
    found = sheet.estimates()["watts.device"]
    assert found.low < found.value < found.high
    free = sheet_of(machine).value("watts.device")
    assert found.value < free and "power.capped_ratio" not in sheet_of(machine)


@settings(max_examples=30)
@given(limit=st.floats(0.3, 1.0))
def test_no_draw_under_a_cap_is_above_that_without_it(limit):
    machine, recipe = tiny_machine(**H100), replace(tiny_run().recipe, power_limit=limit)
    drawn = sheet_of(machine, recipe=recipe).sampled(200)["watts.device"]
    assert drawn.max() <= 8 * 700.0 * 1.3  # the share drawn is log-normal above its 90% interval
    assert drawn.min() > 0


def test_power_that_a_person_states_without_ends_is_given_and_exact():
    machine = tiny_machine(**GPU, watts={"max": 700.0, "typical": 400.0})
    leaf = sheet_of(machine)["power.accelerator"].estimate
    assert leaf.basis == "given" and leaf.low == leaf.high == 400.0


H100 = GPU | {"watts": {"max": 700.0}}
TPU = {"kind": "tpu", "accelerator": "tpu-v3", "watts": {"max": 220.0}}


def sheet_of(machine, place=None, recipe=None, shares=None, **how) -> Sheet:
    sheet = Sheet()
    sheet.leaf("seconds.total", HOUR, "seconds")
    write(sheet, machine, place or Place(pue=1.25), recipe, shares, **how)
    return sheet


def test_every_figure_follows_from_named_leaves():
    sheet = sheet_of(tiny_machine(**H100))
    leaves = {one.key for one in sheet.leaves("kwh.facility")}
    assert leaves == {"seconds.total", "power.rated", "power.share", "power.host", "place.pue"}
    for key in ("watts.device", "watts.host", "kwh.device", "kwh.node", "kwh.facility"):
        assert sheet[key].formula


def test_the_sheet_and_the_old_entry_agree():
    machine = tiny_machine(**H100)
    assert sheet_of(machine).account().kwh == energy(machine, Place(pue=1.25), HOUR)


def test_pue_multiplies_the_node_once():
    sheet = sheet_of(tiny_machine(**H100))
    assert sheet.value("kwh.facility") == pytest.approx(1.25 * sheet.value("kwh.node"))


@pytest.mark.parametrize("pue", [1.0, 1.25, 2.0])
def test_all_equipment_stands_for_the_host_and_is_never_multiplied_by_pue(pue):
    sheet = sheet_of(tiny_machine(**H100), Place(pue=pue), around="all equipment")
    device, ratio = sheet.value("kwh.device"), constant("all_equipment_power_ratio").value
    assert sheet.value("kwh.node") == pytest.approx(device * ratio)
    assert sheet.value("kwh.facility") == pytest.approx(device * max(ratio, pue))
    assert "power.host" not in {one.key for one in sheet.leaves("kwh.facility")}


def test_a_cpu_has_no_other_equipment_than_itself():
    sheet = sheet_of(tiny_machine(), around="all equipment")
    assert sheet.value("kwh.node") == sheet.value("kwh.device")


def test_usual_work_draws_the_usual_share_and_little_work_draws_less():
    machine = tiny_machine(**H100)
    usual = device_watts(machine, shares=USUAL)
    assert usual.value == pytest.approx(device_watts(machine).value)
    light = device_watts(machine, shares=power.Busy(compute=0.02, memory=0.05, link=0.0))
    assert light.value < 0.75 * usual.value
    assert light.low < light.value < light.high and "multipliers 2%" in light.source


@settings(max_examples=40)
@given(compute=st.floats(0, 1), memory=st.floats(0, 1), link=st.floats(0, 1))
def test_accelerators_draw_no_more_than_they_are_rated_for(compute, memory, link):
    machine = tiny_machine(**H100)
    found = device_watts(machine, shares=power.Busy(compute=compute, memory=memory, link=link))
    assert 0 < found.low <= found.value <= found.high <= 8 * 700 * (1 + 1e-9)


def test_a_stated_typical_power_goes_before_the_model():
    machine = tiny_machine(**GPU, watts={"max": 700.0, "typical": 400.0})
    assert device_watts(machine, shares=USUAL).value == pytest.approx(8 * 400)


def test_a_default_typical_power_does_not():
    share = constant("power_fraction_training").value
    machine = tiny_machine(**GPU, watts={"max": 700.0, "typical": 700.0 * share})
    light = power.Busy(compute=0.02, memory=0.05, link=0.0)
    assert device_watts(machine, shares=light).value < 0.75 * device_watts(machine).value


def test_a_power_limit_lowers_watts_as_its_curve_says():
    machine, recipe = tiny_machine(**H100), tiny_run(recipe={"power_limit": 0.6}).recipe
    free, held = device_watts(machine), device_watts(machine, recipe)
    share = constant("power_fraction_training").value
    kept = power_cap.capped(0.6, share, power_cap.cap_constants("h100-sxm-80gb")).watts
    assert held.value == pytest.approx(free.value * kept) and kept < 0.95
    assert held.value <= 8 * 700 * 0.6 * 1.05
    assert device_watts(machine, tiny_run().recipe).value == free.value


def test_a_power_limit_holds_where_only_typical_power_is_known():
    machine = tiny_machine(**GPU, watts={"typical": 500.0})
    recipe = tiny_run(recipe={"power_limit": 0.6}).recipe
    assert device_watts(machine, recipe).value < 8 * 500
    assert device_watts(tiny_machine(), recipe).value == 10.0


def test_what_is_stated_of_a_tpu_is_its_mean():
    machine = tiny_machine(**TPU)
    assert device_watts(machine).value == 220.0
    assert host_watts(machine).value == constant("host_watts_per_tpu").value
    assert 245 < device_watts(machine).value + host_watts(machine).value < 326


def test_a_machine_at_rest_draws_less_than_at_work_and_never_nothing():
    for machine in (tiny_machine(**H100), tiny_machine(watts={}, cores=4)):
        rest = idle_watts(machine)
        assert 0 < rest.low <= rest.value <= rest.high
        assert rest.value < device_watts(machine).value
    assert idle_watts(tiny_machine(**GPU, watts={"max": 700.0, "idle": 90.0})).value == 8 * 90
    assert idle_watts(tiny_machine(**GPU, watts={})).value is None


def test_a_reservation_that_waits_has_kwh_of_its_own():
    machine = tiny_machine(**H100)
    found = idle(machine, Place(pue=1.2), HOUR)
    node = (idle_watts(machine).value + host_watts(machine).value) / 1000
    assert found["node"].value == pytest.approx(node)
    assert found["facility"].value == pytest.approx(1.2 * node)
    assert found["device"].value < energy(machine, Place(), HOUR)["device"].value


def test_monte_carlo_and_first_order_intervals_agree():
    sheet = sheet_of(tiny_machine(**H100))
    plain, drawn = sheet.estimates(), sheet.sampled_estimates(4000)
    for key in ("kwh.device", "kwh.node", "kwh.facility"):
        assert drawn[key].low == pytest.approx(plain[key].low, rel=0.08)
        assert drawn[key].high == pytest.approx(plain[key].high, rel=0.08)


def test_how_far_a_cap_is_felt_follows_from_the_work():
    machine = tiny_machine(**H100)
    light = power.Busy(compute=0.02, memory=0.05, link=0.0)
    assert drawn_share(machine) == pytest.approx(0.74)
    assert drawn_share(machine, light) < 0.6
    recipe = tiny_run(recipe={"power_limit": 0.6}).recipe
    felt = [power_cap.seconds_factor(recipe, machine, drawn_share(machine, one))
            for one in (light, USUAL)]
    assert felt[0] < felt[1]
    stated = tiny_machine(**GPU, watts={"max": 700.0, "typical": 630.0})
    assert drawn_share(stated, light) == pytest.approx(0.9)
