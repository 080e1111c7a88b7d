"""Nobody gets past the door by how a request is written: S7, S9, S10 of the matrix."""

from __future__ import annotations

import re
import sys
from urllib.parse import quote

import pytest

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/metrics", "/openapi.json",
         "/admin/keys", "/tokenize")
SPELLINGS = ("{}", "/{}", "//{}", "/.{}", "/x/..{}", "/health/..{}", "/health/../..{}", "{};a=b",
             "{}%00", "{}/", "{}?health", "/health;{}", "/health%2f..{}", "/%2e%2e{}", "{}#/health",
             "http://health{}", "http://health/health/..{}", "*{}", "/health\\..{}", "/ping{}")
LEADING = ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "Forwarded: for=127.0.0.1",
           "X-Forwarded-Prefix: /health", "X-Original-URL: /health", "X-Rewrite-URL: /health",
           "X-HTTP-Method-Override: GET", "Authorization: Bearer ", "Authorization: Basic YTpi",
           "Authorization: bearer null", "Cookie: Authorization=Bearer x", "X-API-Key: x",
           "Authorization : Bearer x", "Host: localhost", "Proxy-Authorization: Bearer x")


def statuses(answer):
    """The status of each answer in what came back."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_no_spelling_of_a_path_needs_no_key(target):
    raw = []
    for path in PATHS:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "BREW"):
            for spelling in SPELLINGS if method in ("GET", "POST") else SPELLINGS[:1]:
                raw.append(f"{method} {spelling.format(path)} HTTP/1.1\r\nHost: x/v1?\r\n"
                           "Connection: close\r\nContent-Length: 0\r\n\r\n")
    for one in raw:
        got = statuses(target.say(one.encode()))
        assert len(got) == 1 and got[0] in (400, 401), (one, got)


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_no_header_stands_for_a_key(target, version):
    for header in LEADING:
        got = statuses(target.say(f"GET /v1/models {version}\r\nHost: x\r\n{header}\r\n"
                                  "Connection: close\r\n\r\n".encode()))
        assert len(got) == 1 and got[0] in (400, 401), (header, got)


def test_a_good_key_beside_a_bad_one_is_no_key(target):
    good = f"Authorization: Bearer {target.secret}\r\n"
    for headers in (good + "Authorization: Bearer x\r\n", "Authorization: Bearer x\r\n" + good,
                    good + good, good.replace("Bearer", "Bearer x,Bearer"),
                    good.replace("\r\n", ",Bearer x\r\n"), good.replace("\r\n", "\r\n x\r\n")):
        got = statuses(target.say(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{headers}"
                                  "Connection: close\r\n\r\n".encode()))
        assert len(got) == 1 and got[0] in (400, 401), (headers, got)
    assert target.http.get("/v1/models", headers={
        "Authorization": f"bEARER   {target.secret}"}).status_code == 200


def test_a_request_hidden_in_another_has_no_key_of_its_own(target):
    """Two lengths of one body: what a proxy took for the body is never asked with its key."""
    hidden = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {target.secret}\r\n").encode()
    for lengths in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                    b"Content-Length: 5\r\nContent-Length: 50\r\n",
                    b"Transfer-Encoding: chunked, identity\r\n",
                    b"Transfer-Encoding: xchunked\r\n", b"Content-Length: +5\r\n",
                    b"Transfer-Encoding : chunked\r\n", b"Content-Length: 0x5\r\n"):
        answer = target.say(head + lengths + b"\r\n0\r\n\r\n" + hidden, patience=0.3)
        assert 200 not in statuses(answer) and b'"object":"list"' not in answer, lengths


def test_requests_behind_one_another_are_asked_for_keys_each(target):
    good = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.secret}\r\n\r\n"
    bad = "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(target.say((good + bad).encode())) == [200, 401]


def test_no_other_protocol_is_a_way_in(target):
    upgrade = ("GET /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {}\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    for protocol in ("websocket", "h2c", "TLS/1.0"):
        got = statuses(target.say(upgrade.format(protocol).encode(), patience=0.3))
        assert got and got[0] in (400, 401, 403, 404), (protocol, got)
    assert 200 not in statuses(target.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", patience=0.3))


def test_heads_have_a_largest_size(target):
    for head in ("X: " + "a" * 300_000, "\r\n".join(f"X-{i}: a" for i in range(30_000)),
                 "Authorization: Bearer " + "a" * 200_000):
        got = statuses(target.say(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{head}\r\n"
                                  "Connection: close\r\n\r\n".encode()))
        assert set(got) <= {400, 401, 431}, got
    assert target.http.get("/health").status_code == 200


NAMES = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fetc", "/etc/passwd",
         "C:\\windows", "tiny\0", "tiny/../tiny", "./tiny", "tiny/", "ｔｉｎｙ", "tіny", "TINY",
         "tiny\u202e", "file:///etc/passwd", "http://169.254.169.254/", "a" * 10_000, "~root",
         "tiny:../../x", "tiny:\0", "..", ".", "", " tiny", "tiny\n", "${HOME}", "{{7*7}}")


@pytest.fixture
def opened(monkeypatch):
    """Files and addresses that anything in this process opens or looks for by name."""
    seen, listening = [], [True]

    def watch(event, arguments):
        if listening[0] and event in ("open", "os.listdir", "os.scandir", "socket.connect",
                                      "socket.getaddrinfo", "urllib.Request"):
            seen.append(str(arguments))

    sys.addaudithook(watch)  # stays for good, and says nothing after the test
    yield seen
    listening[0] = False


def test_a_models_name_is_never_a_path(target, opened):
    for name in NAMES:
        answer = target.post(model=name)
        assert answer.status_code in (400, 404), (name, answer.text)
        once = quote(name, safe="")
        for spelt in (once, quote(once, safe=""), name.replace("/", "%2F")):
            if spelt and spelt.isascii() and spelt.isprintable() and " " not in spelt:
                got = statuses(target.say(
                    f"GET /v1/models/{spelt} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"Authorization: Bearer {target.secret}\r\n\r\n".encode()))
                # a line end behind a path is no part of it
                assert got in ([400], [404]) or (name == "tiny\n" and got == [200]), (spelt, got)
    assert [one for one in opened if any(bad in one for bad in (
        "passwd", "windows", "169.254", "%2f", "a" * 100))] == []


URLS = ("http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "ftp://example.org/x",
        "http://localhost:1/", "data:image/png;base64,AAAA", "gopher://127.0.0.1:25/_x")


def test_what_stands_behind_an_address_is_never_fetched(target, opened):
    for url in URLS:
        for part in ({"type": "image_url", "image_url": {"url": url}},
                     {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
                     {"type": "file", "file": {"file_id": url}},
                     {"type": "input_image", "image_url": url}):
            messages = [{"role": "user", "content": [part, {"type": "text", "text": "a"}]}]
            answer = target.post("/v1/chat/completions", messages=messages, prompt=None)
            assert answer.status_code == 400, answer.text
            answer = target.post("/v1/responses", input=messages, prompt=None)
            assert answer.status_code == 400, answer.text
    assert [one for one in opened if "169.254" in one or "passwd" in one
            or "example.org" in one] == []


def test_the_server_stands_after_all_that(target):
    assert target.post().status_code == 200
    target.at_rest()
