from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from curbcut.web.app import build
from curbcut.web.door import Token, cookie_name, host_name

TOKEN = Token("the-secret")
HOST = "127.0.0.1:8090"


@pytest.fixture
def closed(site):
    """The pages behind their link."""
    with TestClient(build(site, TOKEN), base_url=f"http://{HOST}") as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/base.css", "/api/stream", "/nothing",
                                  "//api/runs", "/api/../api/runs", "/?token=", "/?token=wrong",
                                  "/?token=the-secret%00", "/API/runs", "/?TOKEN=the-secret"])
def test_without_the_link_everything_is_closed(closed, path):
    answer = closed.get(path)
    assert answer.status_code == 401
    assert "curbcut ui" in answer.text
    assert "set-cookie" not in answer.headers


def test_the_link_opens_and_leaves_no_secret_in_the_address_or_the_cookie(closed):
    opened = closed.get("/?token=the-secret&x=<1>")
    assert opened.status_code == 200
    assert "the-secret" not in opened.text + opened.headers["set-cookie"]
    assert "url=/?x=%3C1%3E" in opened.text
    for word in ("HttpOnly", "SameSite=strict", "Path=/", "curbcut-8090="):
        assert word in opened.headers["set-cookie"]
    assert closed.get("/api/runs").status_code == 200  # the client kept the cookie


def test_the_link_of_a_page_leads_to_that_page_and_never_elsewhere(closed):
    assert 'url=/runs/a%22b"' in closed.get("/runs/a%22b?token=the-secret").text
    for path in ("//evil.example/x", "///evil.example", "/%2f%2fevil.example"):
        text = closed.get(f"http://{HOST}{path}?token=the-secret").text
        assert 'url=/evil.example' in text
        assert "//" not in text


def test_a_program_may_send_the_secret_itself(closed):
    right = {"Authorization": "Bearer the-secret"}
    assert closed.get("/api/runs", headers=right).status_code == 200
    for wrong in ("Bearer the-secre", "Basic the-secret", "the-secret", "Bearer", "Bearer é",
                  f"Bearer {TOKEN.cookie}"):
        answer = closed.get("/api/runs", headers={"Authorization": wrong.encode()})
        assert answer.status_code == 401, wrong


@pytest.mark.parametrize("cookie", ["curbcut-8090=the-secret", "curbcut-8090=", "curbcut-8090=é",
                                    f"curbcut={TOKEN.cookie}", f"curbcut-8091={TOKEN.cookie}",
                                    "=;;=", "curbcut-8090=" + "a" * 9000])
def test_a_cookie_that_is_another_opens_nothing(closed, cookie):
    assert closed.get("/api/runs", headers={"Cookie": cookie.encode()}).status_code == 401


@pytest.mark.parametrize(("host", "status"), [
    ("localhost:9999", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("192.168.1.7:8090", 200),
    ("a.localhost:1", 200), ("evil.example", 403), ("evil.example:8090", 403), ("", 403),
    ("127.0.0.1.evil.example", 403), ("localhost.evil.example", 403), ("[::1", 200),
    ("LOCALHOST", 200), ("localhost@evil.example", 403)])
def test_only_names_of_this_machine_are_answered(pages, host, status):
    assert pages.get("/api/runs", headers={"Host": host}).status_code == status


def test_two_hosts_are_none(pages):
    answer = pages.get("/api/runs", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert answer.status_code == 403


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 405),  # a program of this machine; nothing here takes a POST
    ({"Origin": f"http://{HOST}"}, 405),
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 405),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Cookie": "a=b"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403)])
def test_what_changes_anything_must_come_from_these_pages(pages, headers, status):
    assert pages.post("/api/runs", headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/", "/api/runs", "/nothing", "/api/runs/none",
                                  "/static/base.css"])
def test_every_answer_has_the_headers_of_safety(closed, pages, path):
    for client in (closed, pages):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers


def test_an_endless_address_is_refused(pages):
    assert pages.get("/api/series?" + "run=a&" * 4000).status_code == 414


@given(st.text())
def test_no_text_but_the_secret_opens(given):
    assert TOKEN.opens(given) == (given == "the-secret")
    assert not TOKEN.keeps(given)


@pytest.mark.parametrize(("host", "name", "cookie"), [
    ("localhost:8080", "localhost", "curbcut-8080"), ("[::1]:8", "::1", "curbcut-8"),
    ("[::1]", "::1", "curbcut"), ("Name", "name", "curbcut"), ("a:b", "a", "curbcut")])
def test_names_and_ports_of_hosts(host, name, cookie):
    assert (host_name(host), cookie_name(host)) == (name, cookie)


def test_each_start_has_a_secret_of_its_own():
    assert len({Token().secret for _ in range(20)}) == 20
    assert len(Token().secret) >= 32
