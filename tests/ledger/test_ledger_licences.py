from __future__ import annotations

import hashlib

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import access, audit, licences
from curbcut.ledger.access import Allowance
from curbcut.ledger.licences import Unaccepted

TEXT = "You use it for teaching only. Möge es nützen.\n"
HASH = hashlib.sha256(TEXT.encode()).hexdigest()


def issue(ledger, name="ann", **given):
    return access.issue_key(ledger, name, actor="test", **given)


def set_text(ledger, scope="project:default", text=TEXT):
    return licences.set_licence(ledger, scope, text, actor="boss")


def test_no_key_without_the_text_and_the_error_holds_it(ledger):
    assert set_text(ledger).hash == HASH
    with pytest.raises(Unaccepted, match="project:default") as caught:
        issue(ledger)
    assert [one.text for one in caught.value.licences] == [TEXT]
    assert access.kept_keys(ledger) == [] and licences.acceptances(ledger) == []


def test_an_acceptance_is_kept_with_hash_time_and_who_before_the_key(ledger):
    set_text(ledger)
    secret = issue(ledger, owner="Ann Lee", accepted=[HASH[:12].upper()], told={"use": "a thesis"})
    caller = access.verify(ledger, secret)
    [kept] = licences.acceptances(ledger, caller.key_id)
    [key] = access.kept_keys(ledger)
    assert (kept.hash, kept.who, kept.told) == (HASH, "Ann Lee", {"use": "a thesis"})
    assert kept.time <= key.created
    done = [entry.action for entry in audit.entries(ledger)]
    assert done == ["licence.set", "licence.accepted", "key.issued"]


@pytest.mark.parametrize("given", [["0" * 64], [HASH[:11]], [""], ["é" * 12]])
def test_another_hash_accepts_nothing(ledger, given):
    set_text(ledger)
    with pytest.raises(Unaccepted):
        issue(ledger, accepted=given)


def test_a_hash_of_no_text_that_is_due_is_refused(ledger):
    with pytest.raises(UnknownName, match="hash"):
        issue(ledger, accepted=[HASH])


def test_a_new_text_takes_the_place_of_the_old_one_which_stays_to_be_read(ledger):
    set_text(ledger)
    old = access.verify(ledger, issue(ledger, accepted=[HASH]))
    newer = set_text(ledger, text="Other words.")
    with pytest.raises(Unaccepted):
        issue(ledger, "bob", accepted=[HASH])
    assert [one.hash for one in licences.licences(ledger)] == [newer.hash]
    assert {one.hash for one in licences.licences(ledger, ended=True)} == {HASH, newer.hash}
    assert licences.acceptances(ledger, old.key_id)[0].hash == HASH
    assert set_text(ledger).hash == HASH  # and back again
    assert [one.hash for one in licences.licences(ledger)] == [HASH]


def test_an_ended_text_is_asked_for_no_more(ledger):
    set_text(ledger)
    licences.end_licence(ledger, "project:default", actor="boss")
    issue(ledger)
    with pytest.raises(UnknownName, match="text"):
        licences.end_licence(ledger, "project:default", actor="boss")


def test_texts_of_organisation_project_and_the_models_that_can_be_asked_bind(ledger):
    for scope in ("organisation:default", "project:default", "model:tiny", "model:other"):
        set_text(ledger, scope, f"of {scope}")
    assert len(licences.needed(ledger, "default")) == 4
    access.set_allowance(ledger, "project:default", Allowance(models=("tiny:fine", "big")),
                         actor="boss")
    assert [one.scope for one in licences.needed(ledger, "default")] == [
        "model:tiny", "organisation:default", "project:default"]
    assert [one.scope for one in licences.needed(ledger, "default", "auditor")] == [
        "organisation:default", "project:default"]  # who asks no model accepts none's text
    access.create_project(ledger, "thesis", actor="boss")
    assert "project:default" not in [one.scope for one in licences.needed(ledger, "thesis")]


def test_a_text_that_comes_later_closes_its_model_to_the_key_until_it_is_accepted(ledger):
    secret = issue(ledger)
    assert not access.verify(ledger, secret).lacks_licence("tiny")
    late = set_text(ledger, "model:tiny", "late words")
    caller = access.verify(ledger, secret)
    assert caller.lacks_licence("tiny") and caller.lacks_licence("tiny:adapter")
    assert not caller.lacks_licence("big")
    licences.accept(ledger, "ann", [late.hash], actor="boss")
    assert not access.verify(ledger, secret).lacks_licence("tiny")
    with pytest.raises(UnknownName):
        licences.accept(ledger, "ann", [HASH], actor="boss")


def test_a_rotated_key_takes_its_acceptances_along_but_not_texts_that_came_since(ledger):
    set_text(ledger, "model:tiny")
    issue(ledger, accepted=[HASH])
    assert access.verify(ledger, access.rotate_key(ledger, "ann", actor="boss")).unaccepted == ()
    late = set_text(ledger)  # of the project, with the same words: accepted already
    access.rotate_key(ledger, "ann", actor="boss")
    late = set_text(ledger, text="late words")
    with pytest.raises(Unaccepted):
        access.rotate_key(ledger, "ann", actor="boss")
    access.rotate_key(ledger, "ann", actor="boss", accepted=[late.hash])


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "\ud800", "x" * (licences.LONGEST_TEXT + 1)])
def test_what_is_no_text_is_refused(ledger, text):
    with pytest.raises(InputError, match="licence"):
        set_text(ledger, text=text)


@pytest.mark.parametrize("scope", ["project:none", "key:00c0ffee", "model:../x", "model:", "x"])
def test_a_text_of_nothing_is_refused(ledger, scope):
    with pytest.raises(InputError):
        set_text(ledger, scope)


@pytest.mark.parametrize("told", [{"use": "x" * 501}, {"a\0": "b"}, {"use": "\ud800"}])
def test_what_nobody_says_of_themselves_is_refused(ledger, told):
    with pytest.raises(InputError, match="printable"):
        issue(ledger, told=told)
