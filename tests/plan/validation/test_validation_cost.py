from __future__ import annotations

import csv

import pytest

from curbcut.accounts.epoch import three
from curbcut.errors import InputError
from curbcut.facts import epoch
from curbcut.plan.validation.cost import validate_cost
from curbcut.plan.validation.cost_epoch import TOLERANCE
from curbcut.plan.validation.outcome import Regime

REGIME = Regime()


@pytest.fixture
def table(tmp_path):
    def made(rows):
        path = tmp_path / "table.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    return made


def results(**changes):
    """The published results in the columns of Epoch's own file."""
    found = []
    for name, one in epoch.results().items():
        row = {"system": name}
        for way, column in (("amortised", "capex_energy"), ("acquisition", "hardware_acquisition"),
                            ("cloud", "cloud")):
            row[f"{column}_usd"] = one.usd[way] or ""
            row[f"{column}_2023usd"] = one.usd_2023[way] or ""
        found.append(row | changes.get(name, {}))
    return found


def inputs(name, **changes):
    one = epoch.model(name)
    plain = {
        "System": one.name, "Publication date": one.published.isoformat(),
        "Organization": ",".join(one.organisations), "Training hardware": ",".join(one.hardware),
        "Training compute (FLOP)": one.compute_flops or "",
        "Training time (hours)": one.hours or "", "Hardware quantity": one.quantity or "",
        "Hardware utilization": one.utilisation or "",
        "Training chip-hours": one.chip_hours or "", "Base model": one.base_model}
    return plain | changes


def test_epochs_results_are_reproduced_row_by_row(table):
    found = validate_cost(table(results()), REGIME)
    assert (found.kind, found.table) == ("cost", "epoch results")
    counts = {name: (one["rows"], one["reproduced"]) for name, one in
              found.more["reproduced"].items()}
    assert counts == {"amortised": (45, 45), "acquisition": (37, 37), "cloud": (40, 40),
                      "amortised, 2023 USD": (45, 45), "acquisition, 2023 USD": (37, 37),
                      "cloud, 2023 USD": (40, 40)}
    assert all(one["max_relative_error"] < TOLERANCE for one in found.more["reproduced"].values())


def test_a_value_that_is_not_theirs_is_counted_as_not_reproduced(table):
    wrong = {"GPT-4": {"capex_energy_usd": 1.01 * epoch.results()["GPT-4"].usd["amortised"]}}
    found = validate_cost(table(results(**wrong)), REGIME).more["reproduced"]["amortised"]
    assert (found["rows"], found["reproduced"]) == (45, 44)
    assert found["max_relative_error"] == pytest.approx(1 - 1 / 1.01)


def test_an_unknown_model_is_left_out_with_its_name(table):
    rows = [{**results()[0], "system": "GPT-9"}]
    part = validate_cost(table(rows), REGIME).parts["amortised"]
    assert not part.predictions
    assert "unknown model 'GPT-9'" in part.unexpressed[0].reason


def test_a_value_where_our_method_gives_none_is_left_out_with_the_reason(table):
    rows = [{**results()[0], "system": "Claude 2"}]
    part = validate_cost(table(rows), REGIME).parts["cloud"]
    assert "no single kind of chip" in part.unexpressed[0].reason


def test_inputs_are_priced_and_held_to_the_published_results(table):
    found = validate_cost(table([inputs("GPT-4"), inputs("PaLM 2"), inputs("Claude 2")]), REGIME)
    assert found.table == "epoch inputs"
    assert found.more["reproduced"]["amortised"]["reproduced"] == 2
    assert found.more["reproduced"]["acquisition"]["rows"] == 1
    assert {one.id for one in found.parts["cloud"].unexpressed} == {"Claude 2"}


def test_inputs_that_differ_give_another_cost(table):
    twice = 2 * epoch.model("GPT-4").chip_hours
    found = validate_cost(table([inputs("GPT-4", **{"Training chip-hours": twice})]), REGIME)
    [one] = found.parts["cloud"].predictions
    assert one.predicted == pytest.approx(2 * one.measured)


@pytest.mark.parametrize("changes, reason", [
    ({"Publication date": "in May"}, "Publication date is 'in May'"),
    ({"Training compute (FLOP)": "lots"}, "no number"),
    ({"Training compute (FLOP)": "1e400"}, "beyond anything"),
    ({"Training hardware": "Abacus"}, "unknown chip 'Abacus'"),
    ({"Publication date": "1999-05-01", "System": "Earlier"}, "no producer price of 1999-05"),
])
def test_an_input_that_cannot_be_read_is_left_out_with_the_reason(table, changes, reason):
    found = validate_cost(table([inputs("GPT-4", **changes)]), REGIME)
    assert reason in found.parts["amortised"].unexpressed[0].reason


def test_the_later_output_is_compared_in_2023_dollars(table):
    ours = three("GPT-4").cloud.usd_2023
    rows = [{"Model": "GPT-4", "Cloud_Cost": ours * 1.02, "Hardware_Acquisition_Cost": "",
             "Hardware_Capex_Energy_Cost": ""}]
    found = validate_cost(table(rows), REGIME)
    assert found.table == "later epoch results"
    assert found.parts["cloud"].predictions[0].error == pytest.approx(1 / 1.02 - 1)
    assert not found.parts["amortised"].predictions


def run(**changes):
    return {"model": "ours", "gpu": "H100", "gpu_hours": "1000", "wall_hours": "", "n_gpus": "",
            "cost_usd_reported": "2000", "sources": "read: $2.5/GPU-h", "notes": ""} | changes


def test_a_run_is_priced_at_the_rent_that_it_states_and_at_the_book(table):
    found = validate_cost(table([run()]), REGIME)
    [stated] = found.parts["at the stated rent"].predictions
    [book] = found.parts["at the price book"].predictions
    assert (stated.predicted, stated.measured) == (2500, 2000)
    assert "as stated, $2.5" in stated.assumed[0]
    assert book.low95 < book.predicted < book.high95
    assert any("median of" in text for text in book.assumed)


def test_each_run_is_shown_with_both_bases(table):
    [line] = validate_cost(table([run()]), REGIME).more["lines"]
    assert (line["reported"], line["reproduced"], line["unit"]) == (2000, 2500, "USD")
    assert line["low"] < line["modelled"] < line["high"]
    assert line["basis"].startswith("our book: median of")


def test_hours_are_made_of_time_and_accelerators_where_they_are_not_given(table):
    found = validate_cost(table([run(gpu_hours="", wall_hours="10", n_gpus="8")]), REGIME)
    assert found.parts["at the stated rent"].predictions[0].predicted == 80 * 2.5


@pytest.mark.parametrize("changes, part, reason", [
    ({"cost_usd_reported": ""}, "at the price book", "cost not published"),
    ({"sources": "from memory"}, "at the stated rent", "no rent stated"),
    ({"gpu_hours": ""}, "at the price book", "accelerator-hours not published"),
    ({"gpu": "GB300"}, "at the price book", "no rent for gb300"),
])
def test_a_run_that_cannot_be_priced_is_left_out_with_the_reason(table, changes, part, reason):
    found = validate_cost(table([run(**changes)]), REGIME).parts[part]
    assert not found.predictions
    assert reason in found.unexpressed[0].reason


def test_development_costs_are_held_to_medians(table):
    rows = [{"system": "OPT-175B", "component": component, "median_2023usd": usd}
            for component, usd in (("ai_accelerator_chips", 726737), ("energy", 44018),
                                   ("rd_staff_incl_equity", 1082237))]
    rows.append({"system": "GPT-9", "component": "energy", "median_2023usd": 1})
    found = validate_cost(table(rows), REGIME)
    assert found.table == "epoch development"
    [chips] = found.parts["ai_accelerator_chips"].predictions
    assert abs(chips.error) < 0.03 and chips.low95 < chips.low80 < chips.measured < chips.high80
    [people] = found.parts["rd_staff_incl_equity"].predictions
    assert people.low80 < people.measured < people.high80
    assert "unknown project 'GPT-9'" in found.parts["energy"].unexpressed[0].reason


def test_a_component_that_nobody_knows_is_left_out_with_the_known_ones(table):
    found = validate_cost(table([{"system": "OPT-175B", "component": name, "median_2023usd": 1}
                                 for name in ("coffee", "energy")]), REGIME)
    [left] = found.parts["rd_staff_incl_equity"].unexpressed
    assert "component 'coffee'" in left.reason and "cluster_interconnect" in left.reason
    assert len(found.parts["energy"].predictions) == 1


@pytest.mark.parametrize(("stated", "n_gpus", "usd"), [
    ("$2/GPU-h", "8", 2), ("$8/h", "32", 8), ("$24/h node", "8", 3), ("$24/node-hour", "", 3),
    ("$24/hr 8xH100", "", 3), ("about $24 an hour for a node", "16", 3), ("$2 per GPU hour", "", 2),
    ("$24 an hour for 8xH100", "8", 3), ("$10 per machine-hour", "4", 2.5)])
def test_a_rent_of_a_machine_is_shared_by_its_accelerators(table, stated, n_gpus, usd):
    run = {"model": "m", "gpu": "H100", "n_gpus": n_gpus, "wall_hours": "", "gpu_hours": "100",
           "cost_usd_reported": "300", "sources": stated, "notes": ""}
    [found] = validate_cost(table([run]), REGIME).parts["at the stated rent"].predictions
    assert found.predicted == pytest.approx(100 * usd)


def test_a_file_of_something_else_says_what_to_give(table):
    with pytest.raises(InputError, match=r"no columns of a table of costs(.|\n)*capex_energy_usd"):
        validate_cost(table([{"a": 1, "b": 2}]), REGIME)
