"""Access at the command line: what is set stands in the ledger, and is shown as it stands."""

import json
import os
import time

import pytest

from curbcut.cli import keys
from curbcut.cli.main import main
from curbcut.ledger import access, audit, budgets, licences, open_ledger
from curbcut.ledger.prices import prices


@pytest.fixture
def call(capsys, tmp_path):
    def made(*arguments):
        code = main([*map(str, arguments), "--runs", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out, said.err
    return made


@pytest.fixture
def good(call):
    def made(*arguments):
        code, out, err = call(*arguments)
        assert code == 0, err
        return out
    return made


@pytest.fixture
def bad(call):
    def made(*arguments):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), (code, out)
        assert "help:" in err
        return err
    return made


@pytest.fixture
def ledger(tmp_path, good):
    good("access", "organisation", "add", "lab")
    good("access", "project", "add", "thesis", "--organisation", "lab")
    good("keys", "add", "ann", "--project", "thesis")
    with open_ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same as of `ledger`, once for all who change nothing."""
    folder = tmp_path_factory.mktemp("runs")
    with open_ledger(folder / "ledger.sqlite") as opened:
        access.create_organisation(opened, "lab", actor="test")
        access.create_project(opened, "thesis", "lab", actor="test")
        access.issue_key(opened, "ann", project="thesis", actor="test")
        yield folder, opened


def test_the_tree_and_its_end(ledger, good):
    told = json.loads(good("access", "show", "--json"))
    assert [one["name"] for one in told["organisations"]] == ["default", "lab"]
    assert told["organisations"][1]["projects"][0]["name"] == "thesis"
    assert [one["name"] for one in told["keys"]] == ["ann"]
    good("access", "project", "archive", "thesis")
    assert access.kept_keys(ledger)[0].revoked is not None
    assert "revoked" in good("keys", "list")


def test_limits_change_one_by_one(ledger, good):
    scope = access.scope_of_key(ledger, "ann")
    good("access", "limit", "set", "key:ann", "--models", "tiny,base", "--requests-a-minute", "60")
    out = good("access", "limit", "set", "key:ann", "--weight", "3", "--tokens-a-minute", "10k")
    assert access.allowances(ledger)[scope] == access.Allowance(
        models=("tiny", "base"), requests_a_minute=60, tokens_a_minute=10_000, weight=3)
    assert f"{scope} (ann)" in out and "tiny, base" in out
    good("access", "limit", "set", "key:ann", "--models", "any", "--requests-a-minute", "any")
    assert access.allowances(ledger)[scope].models is None
    [row] = json.loads(good("access", "limit", "list", "--json"))
    assert (row["scope"], row["tokens_a_minute"]) == (scope, 10_000)


def test_budgets(ledger, good):
    good("access", "budget", "set", "project:thesis", "5 USD", "--period", "month")
    good("access", "budget", "set", "project:thesis", "2 kWh")
    assert [(one.unit, one.period, one.amount) for one in budgets.budgets(ledger)] == [
        ("millijoules", "all", 7_200_000_000), ("nanousd", "month", 5 * 10**9)]
    text = good("access", "budget", "list")
    assert "$5.00" in text and "a month" in text and "2.00 kWh" in text
    assert good("access", "budget", "list", "--format", "csv").splitlines()[1] == (
        "project:thesis,kwh,2.0,0.0,0.0,2.0,all")
    good("access", "budget", "end", "project:thesis", "usd", "--period", "month")
    assert [one.unit for one in budgets.budgets(ledger)] == ["millijoules"]


def test_prices(ledger, good):
    good("access", "price", "set", "tiny", "--prompt", "0.2 USD", "--output", "0.6 USD",
         "--cached", "0.1 USD", "--output-energy", "0.5 kWh", "--source", "the board")
    price = prices(ledger)["tiny"]
    assert (price.prompt_nanousd, price.cached_nanousd) == (200_000_000, 100_000_000)
    assert (price.prompt_millijoules, price.output_millijoules) == (None, 1_800_000_000)
    [row] = json.loads(good("access", "price", "list", "--json"))
    assert (row["output_usd"], row["output_kwh"], row["prompt_kwh"]) == (0.6, 0.5, None)
    assert "unknown" in good("access", "price", "list")


def test_a_text_stands_before_keys_until_it_is_accepted(ledger, good, bad, tmp_path):
    (tmp_path / "terms.txt").write_text("Use it for good.\n")
    good("access", "licence", "set", "project:thesis", tmp_path / "terms.txt")
    err = bad("keys", "add", "bob", "--project", "thesis")
    [text] = licences.licences(ledger)
    assert "access licence show project:thesis" in err
    assert f"--accept-licence {text.hash[:12]}" in err
    assert "Use it for good." in good("access", "licence", "show", "project:thesis")
    good("keys", "add", "bob", "--project", "thesis", "--accept-licence", text.hash[:12],
         "--told", "institution=a school")
    [one] = licences.acceptances(ledger)
    assert (one.hash, one.told) == (text.hash, {"institution": "a school"})
    good("keys", "accept", "ann", "--accept-licence", text.hash, "--json")
    assert len(licences.acceptances(ledger)) == 2
    good("access", "licence", "end", "project:thesis")
    good("keys", "add", "cleo", "--project", "thesis")


def test_keys_rotate_and_expire(ledger, good, call):
    made = json.loads(good("keys", "rotate", "ann", "--grace", "1 h", "--json"))
    caller = access.verify(ledger, made["secret"])
    assert (caller.key, caller.project) == ("ann", "thesis")
    assert sum(key.revoked is None for key in access.kept_keys(ledger)) == 2
    secret = json.loads(good("keys", "add", "guest", "--expires", "1 h", "--owner", "Guest",
                             "--json"))["secret"]
    found = access.verify(ledger, secret)
    assert found.owner == "Guest" and 3500 < found.expires - time.time() <= 3600
    assert secret not in good("keys", "list") + good("access", "show", "--json")


@pytest.mark.parametrize(("arguments", "words"), [
    (("keys", "add", "x", "--role", "usr"), "did you mean 'user'"),
    (("keys", "add", "x", "--project", "thesi"), "did you mean 'thesis'"),
    (("keys", "add", "x", "--expires", "yesterday"), "'yesterday' is no time"),
    (("keys", "add", "x", "--expires", "2020-01-01"), "past"),
    (("keys", "add", "x", "--told", "school"), "--told"),
    (("keys", "add", "x", "--owner", "a\nb"), "printable"),
    (("keys", "add", "x", "--accept-licence", "0" * 64), "text (by its hash)"),
    (("keys", "rotate", "anne"), "did you mean 'ann'"),
    (("keys", "rotate", "ann", "--grace", "-1 h"), "at least 0"),
    (("access", "organisation", "add", "lab"), "already"),
    (("access", "organisation", "add", "The Lab"), "cannot name"),
    (("access", "project", "add", "new", "--organisation", "lob"), "did you mean 'lab'"),
    (("access", "limit", "set", "key:ann"), "says no limit"),
    (("access", "limit", "set", "key:ann", "--weight", "0"), "weight"),
    (("access", "limit", "set", "key:ann", "--concurrency", "1.5"), "whole"),
    (("access", "limit", "set", "key:ann", "--models", "Qwen/Qwen3"), "cannot name a model"),
    (("access", "limit", "set", "ann", "--weight", "2"), "key:ann"),
    (("access", "budget", "set", "project:thesis", "5"), "does not say of what"),
    (("access", "budget", "set", "project:thesis", "5 USD", "--period", "year"), "period"),
    (("access", "budget", "end", "project:thesis", "usd"), "unknown budget"),
    (("access", "price", "set", "tiny", "--prompt", "1 USD", "--output", "free"), "--output"),
    (("access", "price", "set", "tiny", "--prompt", "1 USD", "--output", "1 USD", "--cached",
      "2 USD"), "--cached"),
    (("access", "licence", "set", "project:thesis", "/nowhere.txt"), "/nowhere.txt"),
    (("access", "licence", "show", "project:thesis"), "scope with a text"),
    (("access", "show", "--format", "cvs"), "csv")])
def test_what_cannot_be_says_why_and_changes_nothing(prepared, capsys, arguments, words):
    folder, ledger = prepared
    before = audit.verify(ledger)
    code = main([*arguments, "--runs", str(folder)])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert words in said.err and "help:" in said.err
    assert audit.verify(ledger) == before


def test_a_word_that_is_none_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as left:
        main(["access", "bugdet"])
    assert left.value.code == 2 and "did you mean budget?" in capsys.readouterr().err


def test_where_there_is_no_ledger_reading_makes_none(bad, tmp_path):
    assert "no ledger here yet" in bad("access", "show")
    assert not (tmp_path / "ledger.sqlite").exists()


def test_who_has_no_name_is_told_by_number(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert keys.actor() == f"cli:{os.getuid()}"


def test_money_of_another_currency_says_its_rate(good):
    told = good("access", "budget", "set", "project:default", "5 EUR")
    assert "kept in dollars: 1 EUR is 1." in told
    assert "kept in" not in good("access", "budget", "set", "project:default", "5 USD")
    json.loads(good("access", "budget", "set", "project:default", "5 EUR", "--json"))
