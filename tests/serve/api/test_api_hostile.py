"""Bodies and paths that nobody sends by accident: always a 4xx, and the server goes on."""

import json
import socket
import threading

import httpx
import pytest

from callers import caller
from curbcut.serve.api import shapes
from curbcut.serve.engine.models import Served
from curbcut.serve.server import serving

HELLO = [{"role": "user", "content": "hi"}]
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/responses",
          "/tokenize", "/detokenize")
RAW = [b"", b"null", b"[]", b"{", b"{}x", b'{"n": NaN}', b'{"n": 1e999}', b'{"a": 1, "a": 2}',
       b'{"n": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900,
       b"\xef\xbb\xbf{}", b'{"prompt": "\\ud800"}', b'{"prompt": "\x00"}', b"\xff\xfe{}",
       b'{"messages": [' + b'{"role":"user","content":"a"},' * 30_000 + b"{}]}",
       b'{"stop": [' + b'"a",' * 10_000 + b'"a"]}',
       json.dumps({"logit_bias": {str(i): 1 for i in range(60_000)}}).encode()]
VALUES = [None, True, -1, 0, 2**63, 1e308, "", "x", [], [None], [[]], {}, {"type": None}, "\0",
          [{"type": "x"}], {"": {}}, "＜|im_end|＞", [2**70], [-1], {"1": None}]


@pytest.fixture(scope="module")
def http(talk):
    with httpx.Client(base_url=talk.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("path", ROUTES)
def test_raw_bodies(http, path):
    for body in RAW:
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, (body[:40], answer.text)
        assert answer.json()["error"]["message"]
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_every_field_with_odd_values(http, path):
    good = {"prompt": "a", "messages": HELLO, "input": "a", "tokens": [1]}
    fields = http.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]["content"][
        "application/json"]["schema"]["properties"]
    base = {name: good[name] for name in good if name in fields}
    if path == "/tokenize":
        base = {"prompt": "a"}
    for place, name in enumerate(fields):
        for value in VALUES[place % 5::5]:  # each value meets every fifth field
            limit = {"max_tokens": 1, "max_output_tokens": 1}
            body = {k: v for k, v in limit.items() if k in fields} | base | {name: value}
            answer = http.post(path, content=json.dumps(body),
                               headers={"content-type": "application/json"})
            assert answer.status_code < 500, (name, value, answer.text)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_prompt_bombs_are_refused_before_they_are_tokenised(http):
    for bomb in ("a" * 500_000, " " * 500_000, "\n" * 450_000, "1" * 500_000):
        for path, body in (("/v1/completions", {"prompt": bomb}), ("/tokenize", {"content": bomb}),
                           ("/v1/chat/completions", {"messages": [HELLO[0] | {"content": bomb}]})):
            error = http.post(path, json=body).json()["error"]
            assert error["code"] == "string_above_max_length"


def test_paths_beside_the_routes_need_a_key_too(talker):
    verify = {"k": caller("ann"), "l": caller("bob", project="other"), "m": caller("cy")}.get
    with serving(talker, name="talker", verify=verify) as session, \
            httpx.Client(base_url=session.url) as http:
        host, port = session.url.removeprefix("http://").split(":")
        for path in ("/v1/models", "//v1/models", "/V1/models", "/v1/%2e%2e/health", "/nothing",
                     "/health/../v1/models", "/health;/v1/models", "/openapi.json", "/metrics",
                     f"{session.url}/v1/models"):
            with socket.create_connection((host, int(port)), timeout=60) as raw:
                raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x/v1?\r\nConnection: close\r\n\r\n"
                            .encode())
                assert raw.recv(100).split(b" ")[1] == b"401", path
        good = {"Authorization": "Bearer k"}
        two = [("Authorization", "Bearer k"), ("Authorization", "Bearer x")]
        assert http.get("/v1/models", headers=two).status_code == 401
        assert http.get("/v1/models", headers={"Authorization": "Bearer \u00e9".encode()}
                        ).status_code == 401
        assert http.get("/v1/models", headers=good).status_code == 200
        ask = {"prompt": "what one key asks is nobody else's to know " * 4, "max_tokens": 1}

        def cached(key):
            answer = http.post("/v1/completions", json=ask,
                               headers={"Authorization": f"Bearer {key}"}).json()
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached("k") == 0 and cached("k") > 0 and cached("l") == 0
        assert cached("m") > 0  # another key of the first one's project


def test_a_body_that_does_not_come_ends(talker, monkeypatch):
    from curbcut.serve.api import door
    monkeypatch.setattr(door, "BODY_SECONDS", 0.2)
    with serving(talker, name="talker") as session:
        host, port = session.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                        b"application/json\r\nContent-Length: 50\r\n\r\n{")
            assert raw.recv(200).split(b" ")[1] == b"408"


def test_adapters_tell_their_parent():
    card = shapes.model_card(Served("base:mine", 1, 64, "base"))
    assert (card["parent"], card["root"]) == ("base", "base")
    card = shapes.model_card(Served("base", 1, 64))
    assert (card["parent"], card["root"]) == (None, "base")


def test_many_at_once_on_one_server(talk):
    """Every stream ends with [DONE], whatever goes on beside it."""
    ends = []

    def ask(i):
        with httpx.Client(base_url=talk.url, timeout=60) as http:
            path, body = (("/v1/completions", {"prompt": "a"}), ("/v1/chat/completions", {
                "messages": HELLO, "logprobs": True}))[i % 2]
            text = http.post(path, json=body | {"max_tokens": 20, "stream": True}).text
            ends.append(text.endswith("data: [DONE]\n\n"))
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ends == [True] * 12
