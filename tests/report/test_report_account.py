from __future__ import annotations

import csv
import io

import pytest

from curbcut.report import account as report
from curbcut.report.formats import written
from curbcut.report.tables import plain_console
from curbcut.spec import Account, Draft, Estimate, given, modelled, unknown

RUN = {
    "name": "tiny",
    "model": {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_size": 16, "ffn": 128,
              "vocab": 512},
    "machine": {"name": "here", "accelerator": "EPYC", "kind": "cpu", "memory_bytes": 2**32,
                "cores": 2, "memory_bytes_per_second": {}, "peak_flops": {}},
    "recipe": {"sequence_tokens": 128, "micro_batch": 4, "global_batch": 8, "precision": "bf16",
               "learning_rate": 1e-3},
    "train": {"tokens": 100_000},
}
PROMISED = Account(
    seconds={"total": modelled(240.0, 1.25, "roofline"), "steps": modelled(200.0, 1.1, "roofline")},
    tokens={"trained": given(100_000, "run.toml")},
    memory_bytes={"peak": modelled(2.0**31, 1.5, "sum of parts")},
    kwh={"device": modelled(0.004, 2.0, "watts x time")},
    usd={"total": modelled(10.0, 2.0, "sum")},
    loss={"bits_per_byte": modelled(1.8, 1.1, "scaling law")})


def resolved(**changes):
    draft = Draft().with_raw(RUN, "run.toml")
    values = {key.replace("__", "."): value for key, value in changes.items()}
    return draft.with_values(values, "plan", override=True).complete()


def plan(account=PROMISED, run=None, width=100, **options):
    out = io.StringIO()
    console = plain_console(out)
    console.width = width
    report.print_plan(run or resolved(), account, console=console, **options)
    return out.getvalue()


def row(text, *words):
    (line,) = [line for line in text.splitlines() if line.split()[:len(words)] == list(words)]
    return line


def test_a_plan_says_value_interval_basis_and_source():
    text = plan(width=160)
    line = row(text, "time", "total")
    for word in ("4.00 min", "3.20 .. 5.00", "modelled"):
        assert word in line
    assert row(text.partition("Where these figures come from")[2], "time").split() == [
        "time", "roofline"]


def test_a_plan_says_what_is_run_and_who_chose_it():
    said = {title: (what, why) for title, what, why in
            report.headline(resolved(recipe__micro_batch=2))}
    assert said["text"] == ("100 k tokens of python-stdlib", "run.toml; default")
    assert said["machine"] == ("here: EPYC, 2 cores", "run.toml")
    assert said["steps"] == ("98 of 8 x 128 tokens, in micro-batches of 2", "run.toml; plan")
    assert said["numbers"][0] == "bf16"
    assert "adamw at 0.00100, wsd schedule" in said["learning"]
    assert "steps 98 of 8 x 128 tokens" in " ".join(plan().split())


@pytest.mark.parametrize(("peak", "said"), [
    (Estimate(2.0**31, 2.0**30, 2.0**32), "yes"),
    (Estimate(2.0**31, 2.0**30, 2.0**33), "perhaps"),
    (Estimate(2.0**33, 2.0**32, 2.0**34), "no"), (unknown("x"), None), (None, None),
])
def test_memory_fits_or_not(peak, said):
    assert report.fit(peak, 2**32) == said


def test_a_plan_says_that_it_fits():
    assert "yes, 50%" in row(plan(), "fits", "in", "4.00", "GiB")
    assert "fits" not in plan(Account(seconds=PROMISED.seconds))


def test_what_is_not_known_is_one_closing_line_and_never_zero():
    text = plan(Account(kwh={"device": unknown("no power is known for this machine")},
                        usd={"staff": unknown("staff not included: nobody said")}))
    said = " ".join(text.split())
    assert "not known: energy device (no power is known for this machine); staff (nobody said)" \
        in said
    assert not any(line.startswith("energy") for line in text.splitlines())


def test_a_forecast_says_its_energy_once():
    energy = {"device": modelled(0.004, 2.0, "watts x time")}
    assert "(model)" not in plan(Account(kwh=energy, kwh_modelled=energy))
    other = {"device": modelled(0.005, 2.0, "watts x time")}
    assert "(model)" in plan(Account(kwh=energy, kwh_modelled=other))


@pytest.mark.parametrize("width", [80, 100])
def test_a_plan_fits_and_says_its_sources_below_each_once(width):
    long = "a source that goes on and on " * 5
    account = Account(**{**vars(PROMISED), "watts": {"device": modelled(5.0, 2.0, "watts")},
                         "kgco2e": {"total": modelled(1.0, 2.0, long.strip())}})
    text = plan(account, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    below = " ".join(text.partition("Where these figures come from")[2].split())
    assert "energy watts x time money" not in below and "energy watts x time" in below
    assert "watts;" not in below and long.strip() in below
    assert "run.toml" not in below


def test_a_plan_in_euro_says_the_rate():
    text = plan(run=resolved(place__currency="EUR"))
    assert "EUR" in row(text, "money", "total")
    assert "1 EUR = " in text
    assert "EUR" not in plan()


def test_notes_are_printed():
    assert "corrected by 3 runs" in plan(notes=["corrected by 3 runs"])


def test_an_exact_zero_has_no_row_and_csv_has_all():
    account = Account(watts={"device": modelled(15.0, 2.0, "rated"), "host": given(0.0, "a CPU")},
                      kwh={"node": unknown("nobody knows")})
    assert "host power" not in plan(account) and "device power" in plan(account)
    found = {line["key"]: line for line in csv_of(account)}
    assert (found["watts.host"]["value"], found["watts.host"]["unit"]) == ("0.0", "watts")
    assert (found["kwh.node"]["value"], found["kwh.node"]["source"]) == ("", "nobody knows")
    device = found["watts.device"]
    assert (float(device["value_low"]), float(device["value_high"])) == (7.5, 30.0)


def csv_of(account):
    text = written(report.plan_tables(resolved(), account, "csv"), "csv")
    return list(csv.DictReader(io.StringIO(text.partition("\nForecast\n")[2])))


def test_ways_to_pay_are_a_block_with_clear_names():
    ways = {"on_demand": modelled(100.0, 2.0, "price book"),
            "epoch_amortised": modelled(50.0, 2.0, "Epoch"), "spot": unknown("no price")}
    block = plan(Account(usd_ways=ways), width=80).partition("Ways to pay for this run")[2]
    assert "$100.00" in row(block, "rent", "on", "demand")
    assert "$50.00" in row(block, "Epoch:", "hardware", "written", "off", "+", "energy")
    assert "not known: rent spot (no price)" in block


def test_ways_that_nobody_can_know_are_one_short_clause():
    ways = {kind: unknown("no rent of EPYC; set a price") for kind in (
        "on_demand", "reserved_1y", "spot", "epoch_cloud")}
    ways["academic"] = modelled(0.1, 2.0, "energy")
    staff = unknown("staff not included: nobody said how many people (place.staff_fte)")
    account = Account(usd={"staff": staff}, usd_ways={**ways, "with_staff": staff})
    text = " ".join(plan(account).split())
    assert "Ways to pay" not in text
    assert ("not known: staff (nobody said how many people: place.staff_fte); "
            "4 ways to pay (no rent of EPYC: set a price)") in text


def test_a_source_is_said_once_and_what_is_none_not_at_all():
    account = Account(
        usd={"rent": modelled(2.0, 2.0, "price book"),
             "total": modelled(2.0, 2.0, "rent; staff not included"),
             "project": modelled(4.0, 2.0, "this run x multiplier")},
        kgco2e={"total": modelled(1.0, 2.0, "grid; grid"),
                "project": modelled(2.0, 2.0, "this run x multiplier")})
    below = " ".join(plan(account).partition("Where these figures come from")[2].split())
    assert below == "money price book; this run x multiplier carbon grid"


@pytest.mark.parametrize(("section", "kind", "label"), [
    ("joules_per_token", "training", "a token trained"), ("kgco2e", "market", "market-based"),
    ("usd", "development", "experiments and failures"), ("kwh", "project", "whole project")])
def test_new_figures_have_words(section, kind, label):
    assert label in plan(Account(**{section: {kind: modelled(2.0, 2.0, "x")}}))


def test_markdown_has_the_run_its_figures_and_their_sources():
    text = written(report.plan_tables(resolved(), PROMISED, "markdown"), "markdown")
    for words in ("### Run", "| run | tiny | chosen by |", "### Forecast",
                  "| time | total | 4.00 min | 3.20 .. 5.00 | modelled |",
                  "### Where these figures come from"):
        assert words in text
