from __future__ import annotations

import math
import os
import shutil
import time

import pytest

from curbcut.errors import DamagedFile, InputError, UnknownName
from curbcut.ledger import access, audit, budgets, open_ledger, pepper
from curbcut.ledger.access import Allowance
from curbcut.ledger.prices import MOST, Price, prices, set_price
from ledger.accounts import caller

PRICE = Price(model="tiny", prompt_nanousd=100, cached_nanousd=10, output_nanousd=400)


@pytest.fixture
def lab(ledger):
    """A ledger with an organisation of two projects."""
    access.create_organisation(ledger, "lab", actor="boss")
    for name in ("thesis", "course"):
        access.create_project(ledger, name, "lab", actor="boss")
    return ledger


def test_a_key_knows_where_it_stands_and_what_it_may(lab):
    access.set_allowance(lab, "organisation:lab", Allowance(requests_a_minute=9), actor="boss")
    access.set_allowance(lab, "project:thesis", Allowance(models=("tiny",), weight=3.0),
                         actor="boss")
    ann = caller(lab, project="thesis", owner="Ann Lee")
    assert ann.scopes == ("organisation:lab", "project:thesis", f"key:{ann.key_id}")
    assert ann.allowances == {"organisation:lab": Allowance(requests_a_minute=9),
                              "project:thesis": Allowance(models=("tiny",), weight=3.0)}
    assert (ann.role, ann.owner) == ("user", "Ann Lee")
    assert caller(lab, "bob", project="course").allowances.keys() == {"organisation:lab"}
    assert access.organisations(lab) == ["default", "lab"]
    assert {one.name: one.organisation for one in access.projects(lab)} == {
        "course": "lab", "default": "default", "thesis": "lab"}


def test_names_are_unique_and_places_must_be_there(lab):
    for again in (lambda: access.create_organisation(lab, "lab", actor="boss"),
                  lambda: access.create_project(lab, "thesis", actor="boss")):
        with pytest.raises(InputError, match="already"):
            again()
    with pytest.raises(UnknownName, match="lab"):
        access.create_project(lab, "x", "lap", actor="boss")
    with pytest.raises(UnknownName, match="thesis"):
        access.issue_key(lab, "ann", project="theses", actor="boss")
    with pytest.raises(UnknownName, match="auditor"):
        access.issue_key(lab, "ann", role="auditr", actor="boss")


def test_an_archived_project_opens_to_nobody(lab):
    secret = access.issue_key(lab, "ann", project="thesis", actor="boss")
    access.archive_project(lab, "thesis", actor="boss")
    assert access.verify(lab, secret) is None
    with pytest.raises(UnknownName):
        access.issue_key(lab, "bob", project="thesis", actor="boss")
    assert access.kept_keys(lab)[0].revoked is not None


def test_a_key_ends_when_it_expires(ledger, monkeypatch):
    now = time.time()
    secret = access.issue_key(ledger, "ann", expires=now + 60, actor="boss")
    assert access.verify(ledger, secret).expires == now + 60
    monkeypatch.setattr(access.time, "time", lambda: now + 60)
    assert access.verify(ledger, secret) is None


@pytest.mark.parametrize("expires", [math.nan, math.inf, 0.0, -1.0])
def test_a_key_cannot_end_at_no_time(ledger, expires):
    with pytest.raises(InputError, match="time"):
        access.issue_key(ledger, "ann", expires=expires, actor="boss")


def test_a_rotated_key_opens_with_the_old_secret_for_the_grace_only(ledger, monkeypatch):
    old = access.issue_key(ledger, "ann", owner="Ann", actor="boss")
    new = access.rotate_key(ledger, "ann", grace_seconds=60, actor="boss")
    assert access.verify(ledger, new).key == "ann"
    assert access.verify(ledger, old).owner == access.verify(ledger, new).owner == "Ann"
    now = time.time()
    monkeypatch.setattr(access.time, "time", lambda: now + 61)
    assert access.verify(ledger, old) is None and access.verify(ledger, new) is not None
    newest = access.rotate_key(ledger, "ann", actor="boss")
    assert access.verify(ledger, new) is None and access.verify(ledger, newest) is not None
    first = access.kept_keys(ledger)[0].id
    assert [key.line for key in access.kept_keys(ledger)] == ["", first, first]
    with pytest.raises(InputError, match="grace"):
        access.rotate_key(ledger, "ann", grace_seconds=math.nan, actor="boss")


@pytest.mark.parametrize("wrong", [
    {"weight": 0.0}, {"weight": math.nan}, {"weight": 1001.0}, {"requests_a_minute": -1},
    {"tokens_a_minute": 2**53}, {"concurrency": 1.5}, {"models": ("../x",)}, {"models": ("a\0",)}])
def test_a_limit_that_is_none_is_refused_and_nothing_changes(ledger, wrong):
    with pytest.raises(InputError):
        access.set_allowance(ledger, "project:default", Allowance(**wrong), actor="boss")
    assert access.allowances(ledger) == {} and audit.verify(ledger).rows == 0


@pytest.mark.parametrize("scope", ["project:none", "key:00c0ffee", "user:ann", "", "organisation:"])
def test_a_scope_of_nothing_is_refused(ledger, scope):
    with pytest.raises(UnknownName):
        access.set_allowance(ledger, scope, Allowance(), actor="boss")
    with pytest.raises(UnknownName):
        budgets.set_budget(ledger, scope, "tokens", 1, actor="boss")


@pytest.mark.parametrize(("unit", "amount", "period"), [
    ("euros", 1, "all"), ("tokens", 1, "week"), ("tokens", -1, "all"), ("tokens", 2**62, "all"),
    ("tokens", 0.5, "all")])
def test_a_budget_that_is_none_is_refused(ledger, unit, amount, period):
    with pytest.raises(InputError):
        budgets.set_budget(ledger, "project:default", unit, amount, period=period, actor="boss")
    assert budgets.budgets(ledger) == []


def test_the_newest_price_counts_and_charges_round_up(ledger):
    set_price(ledger, PRICE, actor="boss")
    newer = Price(**{**vars(PRICE), "output_nanousd": 500, "output_millijoules": 7})
    set_price(ledger, newer, actor="boss")
    assert prices(ledger) == {"tiny": newer}
    assert newer.charge(1, 1) == 1 and newer.charge(10**6, 10**6, 10**6) == 510
    assert newer.most(10, 10**6).millijoules == 7


@pytest.mark.parametrize("wrong", [{"model": "../x"}, {"output_nanousd": -1},
                                   {"prompt_nanousd": MOST}, {"prompt_millijoules": -1}])
def test_a_price_that_is_none_is_refused(ledger, wrong):
    with pytest.raises(InputError):
        set_price(ledger, Price(**{**vars(PRICE), **wrong}), actor="boss")
    assert prices(ledger) == {}


def test_a_copied_ledger_opens_nothing_without_the_pepper(file_ledger, file_url, tmp_path):
    secret = access.issue_key(file_ledger, "ann", actor="boss")
    file_ledger.close()
    shutil.copy(file_url, tmp_path / "copy.sqlite")
    with open_ledger(tmp_path / "copy.sqlite") as copy:
        with pytest.raises(InputError, match="pepper"):
            access.verify(copy, secret)
        (tmp_path / "copy.sqlite.pepper").write_bytes(os.urandom(32))
        assert access.verify(copy, secret) is None
    assert (tmp_path / "ledger.sqlite.pepper").stat().st_mode & 0o777 == 0o600


def test_a_pepper_is_made_once_and_a_damaged_one_is_said(tmp_path):
    place = str(tmp_path / "deep" / "ledger.sqlite")
    first = pepper.read(place, create=True)
    assert pepper.read(place, create=True) == first and len(first) == 32
    pepper.place(place).write_bytes(b"short")
    with pytest.raises(DamagedFile):
        pepper.read(place)


def test_a_database_needs_a_place_for_its_pepper(monkeypatch):
    monkeypatch.delenv(pepper.VARIABLE, raising=False)
    with pytest.raises(InputError, match=pepper.VARIABLE):
        pepper.place("postgresql://ann@host/base")


def test_who_waited_to_write_sees_what_was_written_whatever_the_database_says(url):
    if "://" not in url:
        pytest.skip("of PostgreSQL")
    strict = url + "&options=-c%20default_transaction_isolation%3Dserializable"
    with open_ledger(strict) as ledger:
        with ledger.writing() as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == (
                "read committed")
        with ledger.reading() as connection:
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
