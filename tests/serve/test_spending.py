"""Money, joules and carbon as metrics: only what is known has a line."""

import pytest

from callers import caller
from curbcut.ledger.budgets import Budget
from curbcut.ledger.holds import Taken
from curbcut.serve.metering.shares import Sum, Where
from curbcut.serve.metrics import Metrics
from exposed import parsed

ANN = caller("ann", project="thesis", organisation="lab")
WHERE = Where({("m", "requests"): Sum(4_000, 5_000, 2e-3, 1.0),
               ("", "idle"): Sum(1_000, 1_000, 5e-4, 9.0),
               ("", "correction"): Sum(-200, -10, -1e-4, 0.0)},
              Sum(4_800, 5_990, 2.4e-3, 10.0), Sum(0, 0, 0.0, 0.0), "measured")


def taken(**given):
    return Taken(**{"prompt_tokens": 30, "output_tokens": 10, "cached_tokens": 20,
                    "nanousd": 2_000_000} | given)


def test_what_a_key_took_is_added_up():
    metrics = Metrics()
    for _ in range(2):
        metrics.settled(ANN, "m", taken(millijoules=1500, cost_nanousd=500_000))
    found = parsed(metrics.text({}))
    who = (("key", "ann"), ("model", "m"), ("organisation", "lab"), ("project", "thesis"))
    assert found["curbcut_tokens_total", who[0], ("kind", "prompt"), *who[1:]] == 60
    assert found["curbcut_tokens_total", who[0], ("kind", "cached"), *who[1:]] == 40
    assert found["curbcut_charged_usd_total", *who] == 0.004
    assert found["curbcut_cost_usd_total", *who] == 0.001
    assert found["curbcut_request_joules_total", *who] == 3.0
    assert found["curbcut_joules_per_answer_token", ("model", "m")] == 0.15
    assert found["curbcut_usd_per_million_answer_tokens", ("model", "m"),
                 ("what", "charged")] == pytest.approx(200)


def test_what_is_not_known_has_no_line_and_spoils_no_ratio():
    metrics = Metrics()
    metrics.settled(ANN, "m", taken())
    names = {key[0] for key in parsed(metrics.text({}))}
    assert names == {"curbcut_tokens_total", "curbcut_charged_usd_total",
                     "curbcut_usd_per_million_answer_tokens"}
    metrics.settled(ANN, "m", taken(millijoules=1500))
    found = parsed(metrics.text({}))
    assert found["curbcut_joules_per_answer_token", ("model", "m")] == 0.15


def test_where_it_went_and_what_the_counter_said_beyond_it():
    metrics = Metrics(where=lambda: WHERE)
    metrics.settled(ANN, "m:adapter", taken(millijoules=4000))
    found = parsed(metrics.text({}))
    by = ("basis", "measured")
    assert found["curbcut_metered_joules_total", by, ("kind", "requests"), ("model", "m")] == 4
    assert found["curbcut_metered_joules_total", by, ("kind", "idle"), ("model", "")] == 1
    assert found["curbcut_metering_correction_joules", by] == -0.2
    assert found["curbcut_metered_gco2e_total", by, ("kind", "idle"), ("model", "")] == 0.5
    # 0.4 J an answer token, at 0.5 g a joule
    assert found["curbcut_gco2e_per_million_answer_tokens", ("model", "m:adapter")] == (
        pytest.approx(0.4 * 0.5 * 1e6))


def test_an_unknown_energy_is_no_line():
    where = Where({("", "idle"): Sum(None, None, None, 9.0)}, Sum(None, None, None, 9.0),
                  Sum(None, None, None, 0.0), "")
    assert Metrics(where=lambda: where).text({}) == ""


def test_budgets_stand_in_units_that_people_use():
    budgets = [Budget(scope="project:thesis", unit=unit, period="month", amount=amount,
                      spent=amount // 4, held=amount // 4)
               for unit, amount in (("tokens", 400), ("nanousd", 8 * 10**9),
                                    ("millijoules", 7_200_000_000))]
    found = parsed(Metrics(budgets=lambda: budgets).text({}))
    left = {unit: found["curbcut_budget_left", ("period", "month"), ("scope", "project:thesis"),
                        ("unit", unit)] for unit in ("tokens", "usd", "kwh")}
    assert left == {"tokens": 200, "usd": 4.0, "kwh": 1.0}
