from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.plan import rules
from curbcut.plan.backwards.question import (
    PATIENCE_SECONDS,
    SECONDS_A,
    Question,
    of_limits,
    parse_traffic,
)
from curbcut.spec.estimate import given
from curbcut.spec.nouns import Limits, ServeJob
from curbcut.units import Money


def test_limits_become_dollars_kwh_kilograms_and_seconds():
    found = of_limits(Limits(money=Money(100, "USD"), kwh=3.0, kgco2e=2.0, seconds=60.0))
    assert found.limits == {"usd": 100.0, "kwh": 3.0, "kgco2e": 2.0, "seconds": 60.0}
    assert not found.assumed
    assert found.planned("usd") == pytest.approx(100 * rules.LIMIT_MARGIN)
    assert found.planned("nothing") == float("inf")


def test_euros_are_more_dollars():
    assert of_limits(Limits(money=Money(100, "EUR"))).limits["usd"] > 100


def test_time_that_nobody_limits_is_assumed_and_said():
    found = of_limits(Limits(kwh=3.0))
    assert found.limits["seconds"] == PATIENCE_SECONDS
    assert found.assumed == {"seconds"}


def test_a_project_leaves_a_run_its_share_of_all_but_time():
    found = of_limits(Limits(money=Money(100, "USD"), kwh=3.0, seconds=60.0),
                      multiplier=given(2.0, "test"))
    assert found.limits == {"usd": 50.0, "kwh": 1.5, "seconds": 60.0}


def test_nothing_to_spend_is_refused_unless_a_loss_is_wanted():
    with pytest.raises(InputError, match="--budget"):
        of_limits(Limits(), text_bytes=1e9)
    assert of_limits(Limits(), loss=0.9).limits == {"seconds": PATIENCE_SECONDS}


@pytest.mark.parametrize(("text", "each"), [
    ("2e9tok/month", 2e9 / SECONDS_A["month"]), ("500 tok/s", 500.0),
    ("3M tokens/day", 3e6 / 86400), ("1k/hours", 1000 / 3600), ("1B tok / Year", 1e9 / 31557600)])
def test_traffic_as_people_write_it(text, each):
    found = parse_traffic(text, ServeJob())
    assert found.tokens_per_second == pytest.approx(each)
    assert found.job.months == 12
    assert found.tokens == pytest.approx(each * 31557600)


def test_months_that_a_file_says_are_kept():
    job = replace(ServeJob(), months=3.0)
    assert parse_traffic("1e6tok/day", job).tokens == pytest.approx(1e6 * 365.25 / 4)


@pytest.mark.parametrize(("text", "error", "said"), [
    ("2e9tok", InputError, "2e9tok/month"), ("2e9tok/moth", UnknownName, "month"),
    ("many/month", InputError, "quantity"), ("0tok/month", InputError, "greater than 0"),
    ("-5/day", InputError, "greater than 0"), ("nan/day", InputError, "finite"),
    ("3 kg/day", InputError, "unit"), ("/day", InputError, "quantity")])
def test_traffic_that_cannot_be(text, error, said):
    with pytest.raises(error) as caught:
        parse_traffic(text, ServeJob())
    assert said in str(caught.value) and "--serve" in str(caught.value)


def test_a_question_without_a_multiplier_is_of_this_run():
    assert Question({"usd": 1.0}).multiplier.value == 1.0
