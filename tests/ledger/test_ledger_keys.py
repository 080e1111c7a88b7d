from __future__ import annotations

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import access, keys


def test_a_key_opens_only_with_its_whole_secret(ledger):
    secret = access.issue_key(ledger, "ann", actor="test")
    other = access.issue_key(ledger, "bob", actor="test")
    assert access.verify(ledger, secret).key == "ann"
    assert access.verify(ledger, other).key == "bob"
    assert access.verify(ledger, secret[:-1]) is None
    flipped = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    assert access.verify(ledger, flipped) is None
    assert access.verify(ledger, secret[:11] + other[11:]) is None


@pytest.mark.parametrize("junk", ["", "ck-", "ck-00000000-" + "a" * 43, "é" * 55, "\udcff",
                                  "\0", "x" * 10**6, None, 7, b"ck-00000000-" + b"a" * 43])
def test_whatever_a_stranger_sends_is_no_key(ledger, junk):
    assert access.verify(ledger, junk) is None


def test_the_secret_is_nowhere_in_the_files(file_ledger, tmp_path):
    secret = access.issue_key(file_ledger, "ann", actor="test")
    random_part = secret.split("-", 2)[2].encode()
    for path in tmp_path.iterdir():
        assert random_part not in path.read_bytes()


def test_two_keys_share_neither_salt_nor_hash(ledger):
    access.issue_key(ledger, "ann", actor="test")
    access.issue_key(ledger, "bob", actor="test")
    with ledger.reading() as connection:
        rows = connection.exec_driver_sql("SELECT salt, hash FROM keys").all()
    assert len({salt for salt, _ in rows}) == len({hash_ for _, hash_ in rows}) == 2


def test_a_revoked_key_opens_nothing_and_its_name_can_be_given_anew(ledger):
    old = access.issue_key(ledger, "ann", actor="test")
    with pytest.raises(InputError, match="already"):
        access.issue_key(ledger, "ann", actor="test")
    access.revoke_key(ledger, "ann", actor="test")
    assert access.verify(ledger, old) is None
    new = access.issue_key(ledger, "ann", actor="test")
    assert access.verify(ledger, old) is None
    assert access.verify(ledger, new).key == "ann"
    assert [key.revoked is None for key in access.kept_keys(ledger)] == [False, True]


def test_revoking_what_is_not_there_names_the_nearest(ledger):
    access.issue_key(ledger, "annabel", actor="test")
    with pytest.raises(UnknownName, match="annabel"):
        access.revoke_key(ledger, "anabel", actor="test")


@pytest.mark.parametrize("name", ["", "Ann", "a b", "../x", "a" * 65, "-a", "é"])
def test_a_name_that_is_no_name_is_refused(ledger, name):
    with pytest.raises(InputError):
        access.issue_key(ledger, name, actor="test")


def test_a_secret_shows_its_id_and_hashes_under_its_salt():
    id_, secret = keys.new_secret()
    assert keys.id_of(secret) == id_
    kept = keys.hashed(secret, "00" * 16)
    assert keys.answers(secret, "00" * 16, kept)
    assert not keys.answers(secret, "01" * 16, kept)
