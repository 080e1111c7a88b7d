"""What the page of models and keys says, and that its trail finds a tampered row."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from access_samples import BY, MODELS, filled
from curbcut.ledger import FILE_NAME, access
from curbcut.ledger import schema as tables


@pytest.fixture
def ledger(runs):
    made = filled(runs / FILE_NAME, uses=120)
    yield made
    made.close()


def test_without_a_ledger_the_page_says_so(ask):
    assert ask("/api/access") == {"cursor": "", "missing": True}
    assert ask("/api/access/audit") == {"missing": True, "entries": []}
    assert ask("/api/budget") == {"cursor": "", "missing": True}


def test_sums_are_those_of_the_uses(ask, ledger):
    found = ask("/api/access", span="all")
    with ledger.reading() as connection:
        rows = [dict(row._mapping) for row in connection.execute(sa.select(tables.uses))]
    for group, column, name in (
            ("models", "model", "model"), ("projects", "project", "name"),
            ("organisations", "organisation", "name"), ("keys", "key_id", "id")):
        assert sum(one["requests"] for one in found[group]) == len(rows)
        for one in found[group]:
            mine = [row for row in rows if row[column] == one[name]]
            known = [row for row in mine if row["millijoules"] is not None]
            assert one["requests"] == len(mine)
            assert one["unmetered"] == len(mine) - len(known)
            tokens = sum(row["output_tokens"] for row in known)
            if tokens:
                joules = sum(row["millijoules"] for row in known) / 1000
                assert one["joules_per_token"] == pytest.approx(joules / tokens)
                assert one["usd_per_million"] * sum(
                    row["output_tokens"] for row in mine) == pytest.approx(
                    1e6 * one["charged_usd"])
            else:
                assert one["joules_per_token"] is None


def test_what_was_not_used_is_not_known(ask, ledger):
    boss = next(one for one in ask("/api/access")["keys"] if one["name"] == "boss")
    assert boss["requests"] == 0
    assert (boss["kwh"], boss["charged_usd"], boss["joules_per_token"]) == (None, None, None)


def test_limits_prices_and_states_are_told_and_no_secret_is(ask, ledger):
    secret = access.issue_key(ledger, "fresh", project="thesis", actor=BY)
    found = ask("/api/access")
    thesis = next(one for one in found["projects"] if one["name"] == "thesis")
    assert thesis["allowance"]["requests_a_minute"] == 60 and len(thesis["budgets"]) == 2
    assert {one["model"] for one in found["models"]} == set(MODELS)
    assert found["models"][0]["price"]["output_usd"] == 0.08
    states = {one["name"]: one["state"] for one in found["keys"]}
    assert states["guest"] == "revoked" and states["fresh"] == "live"
    text = json.dumps(found)
    assert secret not in text and secret.split("-", 2)[2] not in text
    with ledger.reading() as connection:
        for row in connection.execute(sa.select(tables.keys.c.hash, tables.keys.c.salt)):
            assert row.hash not in text and row.salt not in text


def test_nothing_is_told_twice(ask, ledger):
    first = ask("/api/access")
    again = ask("/api/access", after=first["cursor"])
    assert again == {"cursor": first["cursor"], "same": True}
    access.create_project(ledger, "later", actor=BY)
    assert "projects" in ask("/api/access", after=first["cursor"])
    assert "projects" in ask("/api/access", after=first["cursor"], span="all")


def test_an_unknown_span_is_refused(ask, ledger):
    assert "span" in ask("/api/access", 404, span="aeon")["error"]["what"]


def test_a_span_leaves_out_what_was_before(ask, ledger):
    day = sum(one["requests"] for one in ask("/api/access", span="day")["models"])
    assert 0 < day < 120


def test_the_trail_is_told_newest_first_and_in_pages(ask, ledger):
    for i in range(60):
        access.create_project(ledger, f"p{i}", actor=BY)
    first = ask("/api/access/audit")
    assert [one["sequence"] for one in first["entries"]] == list(range(
        first["verdict"]["rows"], first["verdict"]["rows"] - 50, -1))
    rest = ask("/api/access/audit", before=first["entries"][-1]["sequence"])
    assert rest["entries"][0]["sequence"] == first["entries"][-1]["sequence"] - 1
    assert rest["entries"][-1]["sequence"] == 1
    assert ask("/api/access/audit", before=1)["entries"] == []
    for wrong in ("x", "-1", "1e9", "9" * 40, "²"):
        assert ask("/api/access/audit", 400, before=wrong)["error"]["where"] == "before"


def test_a_tampered_row_is_found(ask, ledger, pages):
    assert ask("/api/access/audit")["verdict"]["fault"] == ""
    with ledger.writing() as connection:
        for name in connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = "
                                               "'trigger' AND tbl_name = 'audit'")).all():
            connection.execute(sa.text(f"DROP TRIGGER {name}"))
        connection.execute(sa.update(tables.audit).where(tables.audit.c.sequence == 3)
                           .values(actor="nobody"))
    access.create_project(ledger, "after", actor=BY)
    assert "row 3" in ask("/api/access/audit")["verdict"]["fault"]


def test_servers_that_live_are_counted(ask, ledger):
    from curbcut.ledger import holds

    server = holds.open_server(ledger)
    assert ask("/api/access")["servers"] == {"alive": 1, "held": 0}
    holds.close_server(ledger, server)
    # The same stamp, so the same words, until something is used or changed.
    access.create_project(ledger, "x", actor=BY)
    assert ask("/api/access")["servers"]["alive"] == 0


