"""Published energy is told apart by how it came about, reproduced so, and modelled beside it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.cli.main import main
from curbcut.errors import InputError
from curbcut.plan.validation import energy
from curbcut.plan.validation import energy_published as published
from curbcut.plan.validation.cells import Cells
from curbcut.plan.validation.outcome import Regime, validate
from plan.validation import tables

COLUMNS = ("kind", "name", "hardware", "quantity", "basis", "energy", "energy_unit", "tco2e",
           "g_per_kwh", "pue", "method", "source", "status", "note")
ROW = dict.fromkeys(COLUMNS, "") | {
    "kind": "train", "name": "Llama 9 7B", "hardware": "H100-80GB", "quantity": "1e6 GPU-h",
    "basis": "estimate", "energy": "700", "energy_unit": "MWh", "method": "GPU-h x TDP",
    "source": "a card", "status": "read"}
MEASURED = ROW | {"name": "System 11B", "hardware": "10,000x V100", "quantity": "14.8 days",
                  "basis": "measured", "energy": "1287", "pue": "1.1", "method": "330 W"}
INFERENCE = ROW | {"kind": "inference", "name": "Llama-3.1-8B-Instruct lm-arena-chat",
                   "hardware": "1x H100 bfloat16", "quantity": "avg batch 8.0",
                   "basis": "measured", "energy": "0.45", "energy_unit": "J/output token",
                   "method": "486 W GPU"}
RUN = {"model": "Llama 2 13B", "date": "2023-07", "params_total": "1.302e+10",
       "params_active": "1.302e+10", "tokens": "2e+12", "gpu": "A100-80", "n_gpus": "",
       "wall_hours": "", "gpu_hours": "368640", "layout": "", "tok_s_gpu_reported": "",
       "energy_mwh_reported": "147.5", "power_w_per_gpu_reported": "400", "pue": "",
       "sources": "read"}


def rows(*changes, base=ROW):
    return published.of_energy([base | change for change in changes])


def judged(change, base=ROW):
    found, left = rows(change, base=base)
    assert not left
    return energy.judge(found[0])


def outcome(tmp_path, lines, columns=COLUMNS):
    return validate("energy", tables.write(tmp_path / "e.csv", lines, list(columns)), Regime())


@pytest.mark.parametrize(("quantity", "hardware", "hours"), [
    ("1.46e+06 GPU-h", "H100-80GB", 1.46e6), ("1,082,990 GPU-h", "384x A100-80GB", 1082990),
    ("3.552M GPU hours", "V100", 3.552e6), ("460k H100-hours", "H100", 460e3),
    ("2.788M H800 GPU hours", "H800", 2.788e6), ("14.8 days", "10,000x V100", 3.552e6),
    ("1024 chips x 1366 h", "TPUv4", 1398784), ("920 hours", "4096x TPUv3", 3768320),
    ("512 TPUv3 for 3 weeks", "", 512 * 504), ("3T tokens", "H100", None), ("", "H100", None),
    ("21 days", "A100", None), ("1 prompt", "TPU", None), ("0 GPU-h", "H100", None),
    ("664k TPU-h", "TPUv3", 664e3), ("920 h", "TPUv3 x4096", 3768320), ("3.9M", "H100", 3.9e6),
    ("54,000", "A100", 54e3), ("2048 GPUs x 21 d", "A100", 2048 * 504),
    ("2048 × 21 days", "A100", 2048 * 504)])
def test_accelerator_hours_are_read_as_people_write_them(quantity, hardware, hours):
    found = published._hours(Cells({"quantity": quantity, "hardware": hardware,
                                    "method": "GPU-h x TDP"}))
    assert found == (None if hours is None else pytest.approx(hours))


def test_a_bare_figure_is_hours_only_where_the_method_multiplies_them():
    cells = Cells({"quantity": "3.9M", "hardware": "H100", "basis": "measured", "method": "nvml"})
    assert published._hours(cells) is None
    cells = Cells({"quantity": "3.9M", "hardware": "H100", "method": "GPU-hours x 700 W"})
    assert published._hours(cells) == pytest.approx(3.9e6)
    assert cells.assumed == ["quantity 3.9M read as accelerator-hours"]


@pytest.mark.parametrize(("value", "unit", "kwh"), [
    ("1", "MWh", 1e3), ("12.3", "GWh", 12.3e6), ("500", "kWh", 500), ("3.6", "MJ", 1),
    ("2", "Wh", 0.002), ("1", "TWh", 1e9)])
def test_energy_is_read_in_any_unit(value, unit, kwh):
    assert rows({"energy": value, "energy_unit": unit})[0][0].kwh == pytest.approx(kwh)


def test_carbon_over_its_intensity_is_an_energy_and_says_so():
    found, _ = rows({"energy": "", "tco2e": "280", "g_per_kwh": "400"})
    assert found[0].kwh == pytest.approx(700e3)
    assert found[0].cells.assumed == ["energy from tCO2e over g/kWh"]


@pytest.mark.parametrize(("change", "reason"), [
    ({"energy": "", "tco2e": "20"}, "only tCO2e"),
    ({"energy": "", "tco2e": "11", "g_per_kwh": "57", "name": "B (embodied)"},
     "more than that"), ({"energy": "much"}, "no energy published"),
    ({"energy_unit": "Wh/prompt"}, "of how much work"), ({"energy_unit": "BTU"}, "no unit we know"),
    ({"hardware": "Abacus"}, "not in the facts"), ({"hardware": ""}, "no accelerator"),
    ({"hardware": "A100/H100"}, "names 2 kinds"), ({"quantity": "1e300 GPU-h"}, "beyond anything"),
    ({"name": "B (idle)", "quantity": ""}, "without the hours")])
def test_a_row_that_cannot_be_expressed_says_why(change, reason):
    found, left = rows(change)
    assert not found and reason in left[0].reason


def test_a_row_without_hours_and_tokens_says_so(tmp_path):
    found = outcome(tmp_path, [MEASURED | {"quantity": ""}])
    assert "no accelerator-hours" in found.parts[""].unexpressed[0].reason


@pytest.mark.parametrize(("change", "way"), [
    ({}, "rated"), ({"method": "GPU-h x 700 W x PUE 1.1", "pue": "1.1"}, "rated"),
    ({"method": "GPU-h x TDP (0.7 kW)"}, "rated"), ({"method": "", "basis": "measured"},
                                                    "measured"),
    ({"method": "518 W", "basis": ""}, "measured"), ({"name": "A (idle)"}, "idle"),
    ({"basis": "measured idle nodes", "method": ""}, "idle")])
def test_how_a_figure_came_about_decides_what_it_is_held_against(change, way):
    assert rows(change)[0][0].way == way


@pytest.mark.parametrize(("change", "boundary"), [
    ({"basis": "measured GPU power logging", "method": ""}, "device"),
    ({"hardware": "V100 (server share)", "basis": "", "method": "330 W"}, "node"),
    ({"hardware": "V100", "basis": "", "method": "330 W"}, "node"),
    ({"basis": "measured, x1.74 for all other equipment", "method": ""}, "all equipment"),
    ({"basis": "measured", "method": "", "energy": "500"}, "device")])
def test_a_power_above_the_rated_one_holds_more_than_the_accelerator(change, boundary):
    assert rows(change)[0][0].boundary == boundary


def test_hours_times_rated_power_is_reproduced_exactly_and_modelled_below_it():
    found = judged({})
    assert found.reproduced == pytest.approx(found.of.kwh, rel=1e-9)
    assert 0.6 < found.modelled.value / found.of.kwh < 0.9
    assert found.modelled.low < found.modelled.value < found.modelled.high


def test_a_stated_pue_is_in_the_method_only_where_the_figure_holds_it():
    with_pue = judged({"energy": "770", "pue": "1.1"})
    assert with_pue.reproduced == pytest.approx(770e3)
    without = judged({"energy": "700", "pue": "1.1"})
    assert without.reproduced == pytest.approx(700e3)
    assert with_pue.modelled.value == pytest.approx(1.1 * without.modelled.value)


def test_a_measured_system_power_is_modelled_at_the_facility():
    found = judged({}, MEASURED)
    assert found.of.boundary == "node" and found.part == ""
    assert found.reproduced == pytest.approx(1289.4e3, rel=1e-3)
    assert found.modelled.value == pytest.approx(found.of.kwh, rel=0.15)


def test_idle_energy_takes_the_hours_of_its_run():
    lines = [ROW | {"name": "B 176B (GPU)"},
             ROW | {"name": "B 176B (idle)", "hardware": "a cluster", "quantity": "",
                    "basis": "measured idle", "energy": "250"}]
    found, left = published.of_energy(lines)
    assert not left and found[1].hours == 1e6 and found[1].machine == found[0].machine
    one = energy.judge(found[1])
    assert one.part == "idle" and one.reproduced is None
    assert one.modelled.value < 0.5 * energy.judge(found[0]).of.kwh
    assert published.of_energy(lines[::-1])[0][0].hours == 1e6, "in any order of the rows"


def test_system_power_of_a_tpu_says_that_its_hosts_were_seen():
    one = judged({"hardware": "4096x TPUv3", "quantity": "920 h", "method": "283 W",
                  "basis": "measured", "pue": "1.08", "energy": "1151"})
    assert one.reproduced == pytest.approx(920 * 4096 * 0.283 * 1.08, rel=1e-9)
    assert energy.OWN_HOSTS in one.of.cells.assumed
    assert energy.OWN_HOSTS not in judged({}).of.cells.assumed


AS_PUBLISHED = [
    # name, hardware, quantity, method, energy, unit, pue: hours x power of papers and cards
    ("Gopher 280B", "TPUv3 x4096", "920 h", "283 W per chip", "1.151", "GWh", "1.08"),
    ("T5-11B", "512x TPUv3", "20 days", "310 W/chip measured", "85.7", "MWh", "1.12"),
    ("Meena", "1024x TPUv3", "30 days", "289 W", "232", "MWh", "1.09"),
    ("GLaM", "1024x TPUv4", "1366 h", "326 W, system", "456", "MWh", ""),
    ("Llama 2 7B", "A100-80GB", "184320 GPU-h", "GPU-h x TDP", "73728", "kWh", ""),
    ("Llama 2 70B", "A100-80GB", "1,720,320 GPU-h", "GPU-h x TDP", "688.1", "MWh", ""),
    ("Llama 3.1 405B", "H100-80GB", "3.084e+07 GPU-h", "GPU-h x TDP", "21588", "MWh", ""),
    ("Llama 4 Scout", "H100-80GB", "5.0M GPU-h", "GPU-h x TDP", "3.5", "GWh", ""),
    ("V3", "H800", "2.788M GPU-h", "GPU-h x TDP", "1951.6", "MWh", ""),
    ("In joules", "H100", "54,000 GPU-h", "GPU-h x TDP", "1.3608e11", "J", ""),
]


@pytest.mark.parametrize("row", AS_PUBLISHED, ids=lambda row: row[0])
def test_hours_times_power_are_reproduced_in_any_spelling(row):
    names = ("name", "hardware", "quantity", "method", "energy", "energy_unit", "pue")
    one = judged(dict(zip(names, row, strict=True)) | {
        "basis": "estimate" if "TDP" in row[3] else "measured"})
    assert one.reproduced == pytest.approx(one.of.kwh, rel=energy.EXACT)
    low, high = one.modelled.low, one.modelled.high
    assert 0 < low < one.modelled.value < high


def test_tokens_stand_in_for_hours_that_nobody_published():
    found = judged({"name": "Small 1B", "quantity": "3T tokens", "basis": "measured power",
                    "method": "", "energy": "30"})
    assert found.of.hours is None
    assert found.modelled.high / found.modelled.low > 3
    assert any("dp" in text for text in found.of.cells.assumed)


def test_figures_from_memory_are_scored_apart(tmp_path):
    found = outcome(tmp_path, [
        ROW, MEASURED, MEASURED | {"status": "from memory, unverified", "energy": "9999"}])
    assert {name: len(part.predictions) for name, part in found.parts.items()} == {
        "": 1, "measured from memory": 1, "rated": 1}
    assert found.parts[""].score.median_abs_pct_error < 15


def test_rated_rows_are_summed_up_with_the_reason(tmp_path):
    rated = outcome(tmp_path, [ROW, ROW | {"energy": "500"}]).more["rated_power"]
    assert (rated["rows"], rated["reproduced"]) == (2, 1)
    assert rated["least_ratio"] <= rated["median_ratio"] <= rated["most_ratio"]
    assert "upper bound" in rated["why"]


def runs(*changes):
    return published.of_runs([RUN | change for change in changes])


def test_a_run_at_its_rated_power_is_rated_and_one_below_is_measured():
    (rated, measured), _ = runs({}, {"power_w_per_gpu_reported": "290",
                                     "energy_mwh_reported": "107"})
    assert (rated.way, measured.way) == ("rated", "measured")
    assert energy.judge(rated).reproduced == pytest.approx(147.456e3)
    assert energy.judge(measured).modelled.value == pytest.approx(107e3, rel=0.15)


def test_power_alone_is_an_energy_too():
    (one,), _ = runs({"energy_mwh_reported": "", "power_w_per_gpu_reported": "280"})
    assert one.kwh == pytest.approx(368640 * 0.28)
    assert "energy from the published power" in one.cells.assumed


def test_energy_that_the_sources_have_from_memory_is_marked():
    for sources, memory in (("tokens read; MWh from memory", True),
                            ("MWh read; exact params from memory", False),
                            ("1830 h, 43.92 MWh from memory; the rest read", True)):
        assert runs({"sources": sources})[0][0].from_memory is memory


def test_hours_that_tokens_do_not_explain_draw_the_usual_share():
    (explained, more), _ = runs({}, {"tokens": "1e10"})
    usual, other = energy.judge(more), energy.judge(explained)
    assert any("usual draw" in text for text in more.cells.assumed)
    assert usual.modelled.value == pytest.approx(0.74 * 147.456e3, rel=1e-3)
    assert not any("usual draw" in text for text in other.of.cells.assumed)


def test_tokens_follow_from_a_rate_and_hours():
    (one,), _ = runs({"tokens": "", "tok_s_gpu_reported": "1500"})
    energy.judge(one)
    assert "tokens from tokens a second and accelerator" in one.cells.assumed


def test_runs_without_energy_say_so(tmp_path):
    found = outcome(tmp_path, [RUN, RUN | {"energy_mwh_reported": "",
                                           "power_w_per_gpu_reported": ""}], RUN)
    assert found.table == "runs"
    assert found.parts[""].unexpressed[0].reason == "no energy and no power published"


def test_a_table_of_no_energy_is_refused(tmp_path):
    with pytest.raises(InputError, match="no table of energy"):
        outcome(tmp_path, [{"a": "1"}], ["a"])


def test_energy_has_no_calibrated_regime(tmp_path):
    path = tables.write(tmp_path / "e.csv", [ROW], list(COLUMNS))
    with pytest.raises(InputError, match="no calibrated regime"):
        validate("energy", path, Regime(calibrate=3))


def test_inference_rows_stand_beside_training(tmp_path):
    found = outcome(tmp_path, [MEASURED, INFERENCE])
    assert len(found.parts["inference"].predictions) == 1
    one = found.parts["inference"].predictions[0]
    assert 0.2 < one.predicted < 1.0 and one.measured == 0.45


def test_rows_are_shown_one_by_one(tmp_path, capsys):
    path = tables.write(tmp_path / "e.csv", [ROW, MEASURED], list(COLUMNS))
    assert main(["validate", "energy", str(path)]) == 0
    said = capsys.readouterr().out
    assert "System 11B" in said and "1 of 1 reproduced within 1%" in said
    assert main(["validate", "energy", str(path), "--json", "--rows",
                 str(tmp_path / "o.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in told["lines"]] == ["Llama 9 7B", "System 11B"]
    assert told["rated"]["rows"] == 1 and told["rows"] == 1
    assert "modelled" in (tmp_path / "o.csv").read_text()


def test_an_accelerator_of_unknown_power_is_left_out_by_name(tmp_path):
    found = outcome(tmp_path, [ROW | {"hardware": "Trainium1", "method": "measured"}])
    assert "no power of" in found.parts[""].unexpressed[0].reason


@settings(max_examples=40, deadline=None)
@given(cells=st.fixed_dictionaries({name: st.sampled_from(
    ["", "1e9", "7e10", "A100", "TPUv4", "-5", "0", "nan", "1e308", "1.1", "400", "from memory"])
    for name in RUN if name != "layout"}))
def test_any_run_is_judged_or_says_why(cells):
    found, left = published.of_runs([cells | {"params_total": ""}])
    assert len(found) + len(left) == 1
    for one in found:
        try:
            value = energy.judge(one).modelled.value
        except (energy.CannotExpress, InputError):
            continue
        assert value is not None and value > 0


@settings(max_examples=50, deadline=None)
@given(cells=st.fixed_dictionaries({name: st.sampled_from(
    ["", "1e6 GPU-h", "3 days", "8x H100", "TPUv3", "700 W", "measured", "idle", "1.1", "MWh",
     "GWh", "-5", "0", "nan", "1e308", "x" * 30, "TDP"]) for name in COLUMNS}))
def test_any_row_is_judged_or_says_why(cells):
    found, left = published.of_energy([cells])
    assert len(found) + len(left) == 1
    for one in found:
        try:
            value = energy.judge(one).modelled.value
        except (energy.CannotExpress, InputError):
            continue
        assert value is None or value > 0
