from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.accounts import development
from curbcut.accounts.development import ledger_ratio, multiplier, own_ratio, write
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.facts.constants import constant
from curbcut.ledger import Training
from curbcut.spec import Estimate, measured

RUN = Training("a", True, 100.0, 100.0)
RETRIED = Training("b", True, 100.0, 150.0)
FAILED = Training("c", False, 0.0, 80.0)


def sheet_of(**figures):
    sheet = Sheet()
    for key, value in figures.items():
        sheet.leaf(key.replace("__", "."), Estimate(value))
    return sheet


def test_the_default_is_the_literatures_with_its_interval():
    found, published = multiplier(), constant("development_multiplier")
    assert (found.value, found.low, found.high) == (published.value, published.low, published.high)
    assert (found.low, found.high) == (1.5, 5.6)


def test_what_is_stated_goes_before_the_ledger_and_the_ledger_before_the_literature():
    own = Estimate(1.7, 1.3, 2.2, "measured", "own ledger")
    assert multiplier(3.0, own).value == 3.0 and multiplier(3.0, own).basis == "given"
    assert multiplier(0.0, own) is own
    with pytest.raises(InputError, match=r"0\.5 x"):
        multiplier(0.5)


def test_own_ratio_counts_what_was_lost_and_says_how_many_runs():
    found = own_ratio([RUN, RUN, RETRIED, FAILED, FAILED])
    assert found.value == pytest.approx(510 / 300)
    assert found.low < found.value < found.high
    assert "5 trainings, 3 of them finished" in found.source and found.basis == "measured"


@pytest.mark.parametrize("few", [[], [RUN] * 4, [RUN, RUN, FAILED, FAILED, FAILED]])
def test_few_runs_say_nothing(few):
    assert own_ratio(few) is None


def test_a_project_where_all_went_well_has_a_ratio_of_one():
    found = own_ratio([RUN] * 6)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 4), st.booleans()), min_size=5,
                max_size=30))
def test_ratio_is_at_least_one_and_one_more_failure_never_lowers_it(runs):
    trainings = [Training(str(i), done, seconds if done else 0.0, seconds * lost)
                 for i, (seconds, lost, done) in enumerate(runs)]
    found = own_ratio(trainings)
    if found is None:
        return
    assert 1 <= found.low <= found.value <= found.high
    assert own_ratio([*trainings, FAILED]).value >= found.value


def test_the_same_ledger_gives_the_same_interval():
    runs = [RUN, RETRIED, FAILED, RUN, RETRIED]
    assert own_ratio(runs) == own_ratio(runs)


def test_no_ledger_no_ratio_and_none_is_made(tmp_path):
    assert ledger_ratio(tmp_path / "runs" / "ledger.sqlite") is None
    assert not list(tmp_path.iterdir())


def test_money_energy_and_carbon_take_the_same_multiplier():
    sheet = sheet_of(usd__total=100.0, kwh__facility=40.0, kgco2e__total=8.0)
    write(sheet, multiplier(2.5))
    found = sheet.account()
    assert found.usd["project"].value == 250.0 and found.usd["development"].value == 150.0
    assert found.kwh["project"].value == 100.0 and found.kgco2e["project"].value == 20.0


def test_the_interval_of_the_literature_reaches_all_three():
    sheet = sheet_of(usd__total=100.0, kwh__facility=40.0, kgco2e__total=8.0)
    write(sheet, multiplier())
    found = sheet.account()
    for one, run in ((found.usd, 100), (found.kwh, 40), (found.kgco2e, 8)):
        assert (one["project"].low, one["project"].high) == pytest.approx((1.5 * run, 5.6 * run))


def test_what_is_absent_is_left_out_and_what_is_unknown_stays_unknown():
    sheet = sheet_of(kwh__facility=40.0)
    sheet.leaf("usd.total", Estimate(None, source="no price"))
    write(sheet, multiplier())
    assert "kgco2e.project" not in sheet
    assert sheet.value("usd.project") is None
    assert sheet["usd.project"].estimate.source == "no price"
    assert sheet.value("kwh.project") == pytest.approx(88.0)


def test_a_multiplier_that_stands_on_the_sheet_already_is_kept():
    sheet = sheet_of(usd__total=100.0)
    sheet.leaf(development.KEY, measured(4.0, "another line"))
    write(sheet, multiplier())
    assert sheet.value("usd.project") == 400.0


def test_the_way_of_a_plan_opens_no_ledger_and_no_numpy():
    code = ("import sys, curbcut.accounts.development, curbcut.accounts.carbon\n"
            "print([m for m in ('sqlite3', 'numpy', 'sqlalchemy', 'curbcut.ledger')"
            " if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
