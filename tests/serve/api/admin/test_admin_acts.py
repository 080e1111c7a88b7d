"""What an admin does over HTTP, and that the ledger then says so."""

import hashlib
import time

import pytest

from curbcut.ledger import access, audit, budgets, holds
from curbcut.ledger.amounts import Amount
from curbcut.ledger.prices import Price, prices


def ok(answer, status=200):
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_an_organisation_its_project_and_a_key(admin, ledger):
    ok(admin.post("/admin/organisations", json={"name": "lab"}), 201)
    ok(admin.post("/admin/projects", json={"name": "thesis", "organisation": "lab"}), 201)
    made = ok(admin.post("/admin/keys", json={
        "name": "ann", "project": "thesis", "owner": "Ann Ünal", "role": "user"}), 201)
    caller = access.verify(ledger, made["secret"])
    assert (caller.key, caller.key_id, caller.organisation) == ("ann", made["id"], "lab")
    assert {"name": "lab"} in ok(admin.get("/admin/organisations"))["data"]
    assert [one["name"] for one in ok(admin.get("/admin/projects"))["data"]] == [
        "default", "thesis"]
    [key] = ok(admin.get("/admin/keys", params={"project": "thesis"}))["data"]
    assert (key["name"], key["state"], key["owner"]) == ("ann", "live", "Ann Ünal")
    assert made["secret"] not in admin.get("/admin/keys").text
    assert made["secret"] not in admin.get("/admin/audit").text
    ok(admin.delete("/admin/projects/thesis"))
    assert access.verify(ledger, made["secret"]) is None


def test_every_change_names_who_made_it(admin, ledger):
    ok(admin.post("/admin/organisations", json={"name": "lab"}), 201)
    [mine] = [key for key in access.kept_keys(ledger) if key.role == "admin"]
    newest = audit.entries(ledger)[-1]
    assert newest.actor == f"the-admin/{mine.id}" and newest.subject == "organisation:lab"


def test_rotate_and_revoke(admin, ledger):
    old = ok(admin.post("/admin/keys", json={"name": "bob"}), 201)["secret"]
    new = ok(admin.post("/admin/keys/bob/rotate", json={"grace_seconds": 60}), 201)["secret"]
    assert access.verify(ledger, old).key.startswith("bob.")
    assert access.verify(ledger, new).key == "bob"
    newest = ok(admin.post("/admin/keys/bob/rotate", json={}), 201)["secret"]
    assert access.verify(ledger, new) is None
    ok(admin.delete("/admin/keys/bob"))
    assert access.verify(ledger, newest) is None
    assert admin.delete("/admin/keys/bob").status_code == 404


def test_a_key_that_ends_says_when(admin):
    ends = int(time.time()) + 3600
    ok(admin.post("/admin/keys", json={"name": "guest", "expires": ends}), 201)
    [key] = [key for key in ok(admin.get("/admin/keys"))["data"] if key["name"] == "guest"]
    assert key["expires"] == ends
    past = admin.post("/admin/keys", json={"name": "late", "expires": 1_600_000_000})
    assert past.status_code == 400 and past.json()["error"]["param"] == "expires"


def test_a_key_s_limits_and_budgets_go_by_its_name_and_outlive_its_rotation(admin, ledger):
    first = ok(admin.put("/admin/budgets/key:the-user/usd/all", json={"amount": 1}))["scope"]
    made = ok(admin.post("/admin/keys/the-user/rotate", json={}), 201)
    ok(admin.put(f"/admin/allowances/key:{made['id']}", json={"concurrency": 1}))
    ok(admin.put("/admin/budgets/key:the-user/usd/all", json={"amount": 2}))
    caller = access.verify(ledger, made["secret"])
    assert caller.scopes[-1] == first and caller.allowances[first].concurrency == 1
    [row] = ok(admin.get("/admin/budgets"))["data"]
    assert (row["scope"], row["amount"]) == (first, 2)
    assert {key["scope"] for key in ok(admin.get("/admin/keys"))["data"]
            if key["name"].startswith("the-user")} == {first}
    ok(admin.delete("/admin/budgets/key:the-user/usd/all"))


def test_limits_replace_those_before(admin, ledger):
    said = {"models": ["tiny"], "requests_a_minute": 60, "concurrency": 2, "weight": 3}
    ok(admin.put("/admin/allowances/project:default", json=said))
    [row] = ok(admin.get("/admin/allowances"))["data"]
    assert row == {"scope": "project:default", "tokens_a_minute": None, **said}
    ok(admin.put("/admin/allowances/project:default", json={}))
    assert access.allowances(ledger)["project:default"] == access.Allowance()


@pytest.mark.parametrize(("unit", "amount", "whole"), [
    ("usd", 2.5, 2_500_000_000), ("kwh", 0.001, 3_600_000), ("tokens", 1000, 1000)])
def test_budgets_are_set_shown_and_ended(admin, ledger, unit, amount, whole):
    place = f"/admin/budgets/organisation:default/{unit}/month"
    shown = ok(admin.put(place, json={"amount": amount}))
    assert (shown["amount"], shown["left"], shown["spent"]) == (amount, amount, 0)
    [kept] = budgets.budgets(ledger)
    assert (kept.amount, kept.period) == (whole, "month")
    server = holds.open_server(ledger)
    holds.hold(ledger, server, holds.Wanted(
        scopes=("organisation:default",), project="default", organisation="default", model="tiny",
        most=Amount(tokens=whole // 4, nanousd=whole // 4, millijoules=whole // 4)))
    [row] = ok(admin.get("/admin/budgets"))["data"]
    assert row["held"] == pytest.approx(amount / 4) and row["left"] == pytest.approx(0.75 * amount)
    assert ok(admin.delete(place))["ended"] and not budgets.budgets(ledger)
    assert admin.delete(place).status_code == 404


def test_prices(admin, ledger):
    said = {"prompt_usd": 0.2, "output_usd": 0.6, "output_kwh": 0.5, "source": "the board, May"}
    shown = ok(admin.put("/admin/prices/tiny", json=said))
    assert shown["cached_usd"] == 0.2 and shown["prompt_kwh"] is None
    assert prices(ledger)["tiny"] == Price(
        model="tiny", prompt_nanousd=200_000_000, cached_nanousd=200_000_000,
        output_nanousd=600_000_000, output_millijoules=1_800_000_000, source="the board, May")
    assert ok(admin.get("/admin/prices"))["data"] == [shown]


def test_a_text_is_accepted_before_a_key(admin, ledger):
    text = "Use it for good."
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert ok(admin.put("/admin/licences/project:default", json={"text": text}))["hash"] == digest
    refused = admin.post("/admin/keys", json={"name": "ann"})
    assert refused.status_code == 400 and digest[:12] in refused.json()["error"]["message"]
    assert "ann" not in [key.name for key in access.kept_keys(ledger)]
    assert ok(admin.get("/admin/licences/project:default"))["text"] == text
    ok(admin.post("/admin/keys", json={"name": "ann", "accepted": [digest],
                                       "told": {"institution": "a school"}}), 201)
    [row] = ok(admin.get("/admin/acceptances"))["data"]
    assert row["hash"] == digest and row["told"] == {"institution": "a school"}
    newer = ok(admin.put("/admin/licences/project:default", json={"text": text + " Really."}))
    ok(admin.post("/admin/keys/ann/accept", json={"accepted": [newer["hash"]]}))
    assert len(ok(admin.get("/admin/acceptances"))["data"]) == 2
    ok(admin.delete("/admin/licences/project:default"))
    assert ok(admin.get("/admin/licences"))["data"] == []
    assert len(ok(admin.get("/admin/licences", params={"ended": "true"}))["data"]) == 2
    ok(admin.post("/admin/keys", json={"name": "bob"}), 201)


def test_usage_is_grouped_as_asked(admin, ledger):
    ledger.record_use("ann", "tiny", prompt_tokens=10, output_tokens=5, seconds=0.1)
    ledger.record_use("bob", "tiny", prompt_tokens=1, output_tokens=1, seconds=0.1)
    rows = ok(admin.get("/admin/usage"))["data"]
    assert sorted(row["key"] for row in rows) == ["ann", "bob"]
    [row] = ok(admin.get("/admin/usage", params={"by": "model"}))["data"]
    assert (row["requests"], row["prompt_tokens"], row["charged_usd"]) == (2, 11, None)
    assert ok(admin.get("/admin/usage", params={"end": 1000}))["data"] == []


def test_the_audit_chain_by_pages_and_its_verdict(admin, ledger):
    for name in ("a", "b", "c"):
        ok(admin.post("/admin/organisations", json={"name": name}), 201)
    first = ok(admin.get("/admin/audit", params={"limit": 2}))
    assert first["has_more"] and len(first["data"]) == 2
    after = first["data"][-1]["sequence"]
    rest = ok(admin.get("/admin/audit", params={"after": after}))
    assert not rest["has_more"] and rest["data"][0]["sequence"] == after + 1
    verdict = ok(admin.get("/admin/audit/verify"))
    assert verdict["sound"] and verdict["rows"] == rest["data"][-1]["sequence"]
    assert ok(admin.get("/admin/audit/verify", params={"head": verdict["head"]}))["sound"]
    assert not ok(admin.get("/admin/audit/verify", params={"head": "0" * 63 + "1"}))["sound"]
