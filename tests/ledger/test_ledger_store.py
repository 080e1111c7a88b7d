from __future__ import annotations

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import kept_pairs, open_ledger, usage
from curbcut.spec import Account
from ledger.samples import forecast, make_run, measurement


def test_an_account_comes_back_as_it_went_in(ledger):
    ledger.record_run(make_run())
    ledger.record_account("tiny", "train", "forecast", forecast())
    ledger.record_account("tiny", "train", "measured", measurement())
    assert ledger.account("tiny", "train", "forecast") == forecast()
    assert ledger.account("tiny", "train", "measured") == measurement()
    assert ledger.account("tiny", "serve", "measured") is None
    assert ledger.account("other", "train", "measured") is None


def test_null_is_null_in_the_table_itself(ledger):
    ledger.record_run(make_run())
    ledger.record_account("tiny", "train", "measured", measurement())
    with ledger.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT value, low, high FROM figures WHERE section = 'kwh'").all()
    assert found == [(None, None, None)]


def test_an_account_without_figures_is_still_an_account(ledger):
    ledger.record_run(make_run())
    ledger.record_account("tiny", "serve", "measured", Account())
    assert ledger.account("tiny", "serve", "measured") == Account()


def test_the_newest_account_is_the_one_given(ledger):
    ledger.record_run(make_run())
    for seconds in (1.0, 2.0, 3.0):
        ledger.record_account("tiny", "train", "measured", measurement(seconds))
    assert ledger.account("tiny", "train", "measured") == measurement(3.0)


def test_a_run_comes_back_with_who_set_each_value(ledger):
    resolved = make_run(seed=7)
    ledger.record_run(resolved)
    assert ledger.resolved("tiny") == resolved
    assert ledger.resolved("other") is None


def test_an_account_belongs_to_the_run_that_was_executed_not_to_its_name(ledger):
    ledger.record_run(make_run())
    ledger.record_account("tiny", "train", "forecast", forecast(100.0))
    ledger.record_run(make_run(recipe__micro_batch=2))
    assert ledger.account("tiny", "train", "forecast") is None
    ledger.record_account("tiny", "train", "forecast", forecast(200.0))
    assert ledger.account("tiny", "train", "forecast") == forecast(200.0)
    ledger.record_run(make_run())
    assert ledger.account("tiny", "train", "forecast") == forecast(100.0)


def test_the_same_run_is_one_run_whether_a_number_is_whole_or_not(ledger):
    ledger.record_run(make_run(recipe__weight_decay=0.0))
    ledger.record_account("tiny", "train", "forecast", forecast())
    ledger.record_run(make_run(recipe__weight_decay=0))
    assert ledger.account("tiny", "train", "forecast") == forecast()


def test_an_account_of_an_unknown_run_is_refused_with_the_nearest_name(ledger):
    ledger.record_run(make_run())
    with pytest.raises(UnknownName, match="'tiny'"):
        ledger.record_account("tinny", "train", "forecast", forecast())


def test_runs_are_listed_with_the_accounts_they_have(ledger):
    ledger.record_run(make_run())
    ledger.record_run(make_run(name="later", machine__accelerator="H100"))
    ledger.record_account("tiny", "train", "forecast", forecast())
    ledger.record_account("tiny", "serve", "measured", measurement())
    later, tiny = ledger.runs()
    assert (later.name, later.accelerator, later.accounts) == ("later", "H100", ())
    assert tiny.accounts == (("serve", "measured"), ("train", "forecast"))
    assert ledger.steps("tiny") == ["train", "serve"]


def fill_pairs(ledger):
    ledger.record_run(make_run())
    ledger.record_account("tiny", "train", "forecast", forecast(1.0))
    ledger.record_account("tiny", "train", "forecast", forecast(2.0))
    ledger.record_account("tiny", "train", "measured", measurement(3.0))
    ledger.record_account("tiny", "train", "measured", measurement(4.0), finished=False)
    ledger.record_run(make_run(name="only-planned"))
    ledger.record_account("only-planned", "train", "forecast", forecast())
    ledger.record_run(make_run(name="big", machine__accelerator="H100"))
    ledger.record_account("big", "train", "forecast", forecast(5.0))
    ledger.record_account("big", "train", "measured", measurement(6.0))


def seconds_of(pair):
    return [account.get("seconds", "total").value for account in pair[1:]]


def test_pairs_are_the_newest_of_finished_runs(ledger):
    fill_pairs(ledger)
    big, tiny = ledger.pairs()
    assert (big[0]["name"], seconds_of(big)) == ("big", [5.0, 6.0])
    assert (tiny[0]["name"], seconds_of(tiny)) == ("tiny", [2.0, 3.0])
    assert tiny[0]["recipe"]["micro_batch"] == 4
    assert tiny[2] == measurement(3.0)
    assert [pair[0]["name"] for pair in ledger.pairs(machine="H100")] == ["big"]
    assert [pair[0]["name"] for pair in ledger.pairs(machine="here")] == ["big", "tiny"]
    assert ledger.pairs(step="serve") == []


def test_pairs_read_without_sqlalchemy_are_the_same(file_ledger, tmp_path):
    fill_pairs(file_ledger)
    path = tmp_path / "ledger.sqlite"
    assert kept_pairs(path) == file_ledger.pairs()
    assert kept_pairs(path, machine="EPYC") == file_ledger.pairs(machine="EPYC")
    file_ledger.close()
    assert len(kept_pairs(path)) == 2
    assert kept_pairs(tmp_path / "none.sqlite") == []
    assert not (tmp_path / "none.sqlite").exists()


def test_uses_add_up_by_key_and_model(ledger):
    for key in ("ann", "ann", None):
        ledger.record_use(key, "tiny", prompt_tokens=10, output_tokens=5, seconds=0.5)
    nobody, ann = usage.used(ledger)
    assert (nobody.key, nobody.requests) == (None, 1)
    assert (ann.key, ann.model, ann.requests) == ("ann", "tiny", 2)
    assert (ann.prompt_tokens, ann.output_tokens, ann.seconds) == (20, 10, 1.0)


def test_it_stays_after_closing(tmp_path):
    path = tmp_path / "deep" / "ledger.sqlite"
    with open_ledger(path) as first:
        first.record_run(make_run())
    with open_ledger(str(path), create=False) as second:
        assert [run.name for run in second.runs()] == ["tiny"]


def test_a_ledger_that_is_not_there_is_not_made_by_a_reader(tmp_path):
    with pytest.raises(InputError, match="no ledger here yet"):
        open_ledger(tmp_path / "ledger.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []
