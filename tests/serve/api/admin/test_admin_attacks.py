"""Who may not manage access, and what nobody may send: refused, with nothing changed."""

import json
import re
import string
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from curbcut.errors import CurbcutError, InputError
from curbcut.ledger import access, audit, budgets
from curbcut.ledger.prices import prices
from curbcut.serve.api.admin.act import PLACES
from curbcut.serve.api.admin.acts import ACTS
from curbcut.serve.api.published import document

FILLED = {"name": "the-user", "project": "default", "scope": "project:default", "model": "tiny",
          "unit": "usd", "period": "month", "text_scope": "project:default"}


def filled(act, **other):
    return act.path.format(**FILLED | other)


def ask(client, act, **body):
    if act.has_body:
        return client.request(act.method, filled(act), json=body)
    return client.request(act.method, filled(act))


def error(answer, status):
    assert answer.status_code == status, answer.text
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"} and body["message"]
    return body


def rows(ledger):
    return len(audit.entries(ledger))


@pytest.mark.parametrize("role", ["", "user", "operator", "auditor"])
def test_nobody_does_more_than_the_role_says(of, ledger, role):
    client, before = of(role), rows(ledger)
    for act in ACTS:
        if role in act.may:
            assert ask(client, act).status_code in (200, 404), act
        elif role:
            assert error(ask(client, act), 403)["code"] == "role_not_allowed"
        else:
            error(ask(client, act), 401)
    assert rows(ledger) == before


def test_roles_are_as_they_are_told(of):
    """What the table of acts says, said once more, so that a slip in it is seen."""
    writing = {act.path for act in ACTS if act.method != "GET"}
    assert all(act.may == {"admin"} for act in ACTS if act.method != "GET") and len(writing) > 8
    for act in ACTS:
        assert "user" not in act.may and "admin" in act.may
        if "usage" in act.path or "audit" in act.path:
            assert act.may == {"admin", "auditor"}


def test_a_user_cannot_raise_its_own_quota(of, ledger, secrets):
    mine = access.scope_of_key(ledger, "the-user")
    budgets.set_budget(ledger, mine, "nanousd", 10**9, actor="test")
    client = of("user")
    for path, body in (
            (f"/admin/budgets/{mine}/usd/all", {"amount": 1e6}),
            (f"/admin/allowances/{mine}", {"requests_a_minute": None}),
            ("/admin/prices/tiny", {"prompt_usd": 0, "output_usd": 0})):
        error(client.put(path, json=body), 403)
    error(client.delete(f"/admin/budgets/{mine}/usd/all"), 403)
    error(client.post("/admin/keys", json={"name": "mine", "role": "admin"}), 403)
    error(client.post("/admin/keys/the-user/rotate", json={}), 403)
    assert [one.amount for one in budgets.budgets(ledger)] == [10**9]
    assert len(access.kept_keys(ledger)) == 4 and not access.allowances(ledger)


@pytest.mark.parametrize("path", [
    "//admin/keys", "/admin/keys/", "/ADMIN/keys", "/v1/admin/keys", "/admin/keys;role=admin",
    "/admin//keys", "/x/../admin/keys", "/admin/%6beys", "/%61dmin/keys", "/admin/keys%2f",
    "/admin/./keys"])
def test_no_spelling_of_a_path_goes_round_the_door(of, door, path):
    with TestClient(door, raise_server_exceptions=False) as stranger:
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "localhost"},
                        {"X-Original-URL": "/health"}, {"Authorization": "Bearer ck-00000000-x"}):
            error(stranger.get(path, headers=headers), 401)
    assert of("user").get(path).status_code in (403, 404)


def test_a_key_that_was_ended_manages_nothing_from_that_moment(of, admin, ledger):
    assert admin.get("/admin/keys").status_code == 200  # the door knows it now, for a while
    access.revoke_key(ledger, "the-admin", actor="test")
    before = rows(ledger)
    error(admin.post("/admin/organisations", json={"name": "lab"}), 401)
    assert rows(ledger) == before


def test_the_secret_of_another_ledger_opens_nothing(door, tmp_path):
    from curbcut.ledger import open_ledger

    with open_ledger(tmp_path / "other.sqlite") as other:
        secret = access.issue_key(other, "the-admin", actor="test", role="admin")
    client = TestClient(door, headers={"Authorization": f"Bearer {secret}"})
    error(client.get("/admin/keys"), 401)


def test_without_keys_there_is_nobody_who_manages(ledger):
    from curbcut.serve.api.admin.acts import routes
    from curbcut.serve.api.app import build
    from curbcut.serve.api.uses import Uses
    from curbcut.serve.gateway.limits import Limits

    uses = Uses(None)
    app = build(object(), verify=None, limits=Limits(), uses=uses, more=routes(ledger))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        error(client.get("/admin/keys"), 401)
        error(client.post("/admin/keys", json={"name": "mine", "role": "admin"}), 401)
    uses.close()
    assert len(access.kept_keys(ledger)) == 4


def test_bodies_of_those_who_may_not_are_not_read(of):
    def never():
        raise AssertionError("the body was read")
        yield b""

    sent = of("user").post("/admin/keys", content=never(),
                           headers={"content-type": "application/json"})
    error(sent, 403)


def test_bodies_have_their_limits(admin):
    as_json = {"content-type": "application/json"}
    large = json.dumps({"name": "a", "owner": "x" * 1_000_001}).encode()
    error(admin.post("/admin/keys", content=large, headers=as_json), 413)
    error(admin.post("/admin/keys", content=b"{}", headers={"content-type": "text/plain"}), 415)
    error(admin.post("/admin/keys", content=b"[" * 10_000, headers=as_json), 400)
    error(admin.post("/admin/keys", content=b'{"name":"a","name":"b"}', headers=as_json), 400)
    error(admin.post("/admin/keys", content=b'{"name":"\\ud800"}', headers=as_json), 400)
    error(admin.put("/admin/prices/tiny", content=b'{"prompt_usd":NaN}', headers=as_json), 400)


@pytest.mark.parametrize(("body", "param"), [
    ({"name": "a", "rol": "admin"}, "rol"), ({"name": "a", "role": "root"}, "role"),
    ({"name": "A"}, "name"), ({"name": "../../etc"}, "name"), ({"name": ""}, "name"),
    ({"name": 7}, "name"), ({"name": "a" * 65}, "name"), ({}, "name"),
    ({"name": "a", "owner": "two\nlines"}, "owner"), ({"name": "a", "owner": "\0"}, "owner"),
    ({"name": "a", "expires": "soon"}, "expires"), ({"name": "a", "expires": 1.5}, "expires"),
    ({"name": "a", "expires": 10**18}, "expires"), ({"name": "a", "accepted": ["x"]}, "accepted"),
    ({"name": "a", "told": {"why": 3}}, "told"), ({"name": "a", "secret": "ck-mine"}, "secret")])
def test_what_no_key_can_be_made_of(admin, ledger, body, param):
    before = rows(ledger)
    assert error(admin.post("/admin/keys", json=body), 400)["param"] == param
    assert rows(ledger) == before


def test_a_refusal_says_what_where_and_the_mend(admin):
    said = error(admin.post("/admin/keys", json={"name": "a", "project": "defaul"}), 404)
    assert said["code"] == "not_found" and said["param"] == "projects"
    assert said["message"] == "projects: unknown project 'defaul' (did you mean 'default'?)"
    said = error(admin.post("/admin/organisations", json={"name": "default"}), 400)
    assert "there is an organisation 'default' already" in said["message"]


@pytest.mark.parametrize(("unit", "amount"), [
    ("usd", -1), ("usd", "5"), ("usd", True), ("usd", None), ("usd", 1e12), ("usd", 1e-12),
    ("tokens", 1.5), ("kwh", 1e15)])
def test_amounts_that_are_none(admin, ledger, unit, amount):
    place = f"/admin/budgets/project:default/{unit}/all"
    assert error(admin.put(place, json={"amount": amount}), 400)["param"] == "amount"
    assert not budgets.budgets(ledger)


@pytest.mark.parametrize(("said", "param"), [
    ({"prompt_usd": 1}, "output_usd"), ({"prompt_usd": -1, "output_usd": 1}, "prompt_usd"),
    ({"prompt_usd": 1, "output_usd": 1, "cached_usd": 2}, "cached_usd"),
    ({"prompt_usd": 1, "output_usd": 1, "source": "a\nb"}, "source"),
    ({"prompt_usd": 1, "output_usd": 1, "basis": "measured"}, "basis")])
def test_prices_that_are_none(admin, ledger, said, param):
    assert error(admin.put("/admin/prices/tiny", json=said), 400)["param"] == param
    assert not prices(ledger)


@pytest.mark.parametrize(("path", "status"), [
    ("/admin/budgets/project:nobody/usd/all", 404), ("/admin/budgets/user:ann/usd/all", 404),
    ("/admin/budgets/project:default/gold/all", 404), ("/admin/budgets/project:default/usd/x", 404),
    ("/admin/budgets/key:nobody/usd/all", 404), ("/admin/budgets/project:a%00b/usd/all", 404),
    ("/admin/budgets/..%2f..%2fetc/usd/all", 404)])
def test_places_that_are_none(admin, path, status):
    error(admin.put(path, json={"amount": 1}), status)


@pytest.mark.parametrize("query", [
    "limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "limits=1", "after=-1", "limit=1e2",
    "after=99999999999999999999", "limit=%00", "after=١"])
def test_queries_that_are_none(of, query):
    error(of("auditor").get(f"/admin/audit?{query}"), 400)


def test_a_body_s_field_in_the_query_is_refused(admin, ledger):
    error(admin.post("/admin/keys?role=admin", json={"name": "a"}), 400)
    error(admin.delete("/admin/keys/the-user?force=1"), 400)
    assert access.scope_of_key(ledger, "the-user")


def test_the_last_word_of_two_at_once_is_one_word(admin, ledger):
    """Two make the same key at once: one is told its secret, the other that it is there."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(
        admin.post("/admin/keys", json={"name": "same"}).status_code)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, *[400] * 5]
    assert sum(key.name == "same" for key in access.kept_keys(ledger)) == 1


def test_a_race_that_the_database_settles_is_a_409(admin, monkeypatch):
    def beaten(*_args, **_more):
        raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed"))

    monkeypatch.setattr(access, "create_project", beaten)
    said = error(admin.post("/admin/projects", json={"name": "thesis"}), 409)
    assert said["code"] == "conflict" and "UNIQUE" not in said["message"]


def test_what_is_wrong_with_the_ledger_is_not_told(admin, ledger, monkeypatch, caplog):
    monkeypatch.setenv("CURBCUT_PEPPER", "/nowhere/else")
    said = error(admin.get("/admin/keys"), 503)
    assert "nowhere" not in json.dumps(said) and "/nowhere/else" in caplog.text
    monkeypatch.undo()

    for fault in (CurbcutError("another process held the ledger", where=ledger.where),
                  InputError("the ledger cannot be written", where=ledger.where)):
        def broken(*_args, fault=fault, **_more):
            raise fault

        monkeypatch.setattr(access, "create_organisation", broken)
        said = error(admin.post("/admin/organisations", json={"name": "lab"}), 503)
        assert ledger.where not in json.dumps(said)


def test_every_act_is_published_with_its_fields(of):
    paths = document([], admin=True)["paths"]
    for act in ACTS:
        told = paths[act.path][act.method.lower()]
        assert str(act.status) in told["responses"] and told["security"] == [{"key": []}]
        schema = told.get("requestBody", {}).get("content", {}).get("application/json", {})
        named = schema.get("schema", {}).get("properties", {})
        named = named or {one["name"] for one in told["parameters"] if one["in"] == "query"}
        assert set(named) == set(act.fields)
    assert set(paths) - set(document([])["paths"]) == {act.path for act in ACTS}
    served = of("user").get("/openapi.json").json()["paths"]
    assert "/admin/keys" in served
    operations = [one["operationId"] for path in paths.values() for one in path.values()]
    assert len(set(operations)) == len(operations)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.sampled_from(["default", "ann", "admin", "tiny", "usd", "key"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                 max_size=3), max_leaves=6)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_that_an_admin_sends_is_a_fault_inside(admin, ledger, data):
    act = data.draw(st.sampled_from([act for act in ACTS if "the-admin" not in act.path]))
    names = [*act.fields, "more"]
    body = data.draw(st.dictionaries(st.sampled_from(names), ANY, max_size=len(names)))
    said = st.sampled_from([*FILLED.values(), "key:00c0ffee"]) | st.text(
        string.printable + "é\u202e", min_size=1, max_size=12)
    path = re.sub(r"{\w+}", lambda _: _quoted(data.draw(said)), act.path)
    if act.has_body:
        body = {name: None if isinstance(value, float) and value in (float("inf"), -float("inf"))
                else value for name, value in body.items()}
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except ValueError:
            return
        answer = admin.request(act.method, path, content=content,
                               headers={"content-type": "application/json"})
    else:
        answer = admin.request(act.method, path, params={name: str(value)
                                                         for name, value in body.items()})
    assert answer.status_code < 500, (path, body, answer.text)
    assert answer.headers["content-type"] == "application/json"


def _quoted(text):
    from urllib.parse import quote

    return quote(text.encode("utf-8", "replace"), safe="")


def test_patterns_of_paths_hold_no_more_than_names():
    for name, schema in PLACES.items():
        for bad in ("", "a b", "a/b", "../a", "a\0", "é", "a\n", "A" * 70):
            fits = bad in schema["enum"] if "enum" in schema else re.fullmatch(
                schema["pattern"][1:-1], bad)
            assert not fits, (name, bad)
