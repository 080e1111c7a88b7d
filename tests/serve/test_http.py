"""What OpenAI's client does not show: raw shapes, refusals, and clients that go away."""

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from callers import known
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.server import serving

ASK = {"model": "tiny", "prompt": "abc", "max_tokens": 4, "temperature": 0}


@pytest.fixture
def http(session):
    with httpx.Client(base_url=session.url, timeout=30) as client:
        yield client


def error(answer, status, kind="invalid_request_error"):
    assert answer.status_code == status
    body = answer.json()["error"]
    assert body["type"] == kind and body["message"] and set(body) == {
        "message", "type", "param", "code"}
    return body


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come to be"
        time.sleep(0.01)


def test_health(http):
    assert http.get("/health").json() == {"status": "ok"}


def test_stream_on_the_wire(http):
    with http.stream("POST", "/v1/completions", json=ASK | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        raw = "".join(answer.iter_text())
    events = raw.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(e.removeprefix("data: ")) for e in events[:-2]]
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] in ("stop", "length")
    assert len({c["id"] for c in chunks}) == 1 and all("usage" not in c for c in chunks)


def test_refusals_have_openai_s_shape(http):
    assert error(http.post("/v1/completions", content=b"{", headers={
        "content-type": "application/json"}), 400)["code"] == "invalid_json"
    assert error(http.post("/v1/completions", json={}), 400)["param"] == "prompt"
    assert error(http.post("/v1/chat/completions", json={"model": "tiny"}), 400)[
        "param"] == "messages"
    assert error(http.post("/v1/completions", json=ASK | {"model": "no"}), 404)["param"] == "model"
    assert error(http.get("/v1/nothing"), 404)["code"] == "unknown_url"
    error(http.get("/v1/completions"), 405)
    error(http.post("/v1/completions", content=json.dumps(ASK)), 415)
    error(http.post("/v1/completions", content=gzip.compress(b" " * 10**6), headers={
        "content-type": "application/json", "content-encoding": "gzip"}), 415)
    error(http.get("/v1/models/other"), 404)


def test_a_page_of_another_site_is_refused(http):
    error(http.post("/v1/completions", json=ASK, headers={"Origin": "https://evil.example"}), 403)
    error(http.get("/v1/models", headers={"Host": "evil.example"}), 403)


def test_large_bodies_are_refused_unread(http):
    declared = http.post("/v1/completions", content=b" " * 1_000_001,
                         headers={"content-type": "application/json"})
    assert error(declared, 413)["code"] == "body_too_large"

    def chunks():
        for _ in range(30):
            yield b" " * 50_000

    error(http.post("/v1/completions", content=chunks(),
                    headers={"content-type": "application/json"}), 413)


def test_keys_once_there_are_keys_and_uses_are_told(folder):
    uses = []
    good = {"Authorization": "Bearer k-1"}
    verify = known({"k-1": "ann"})
    with serving(folder, name="mine", verify=verify, on_use=uses.append) as session, \
            httpx.Client(base_url=session.url) as client:
        for headers in ({}, {"Authorization": "Bearer k-2"}):
            for answer in (client.get("/v1/models", headers=headers),
                           client.get("/metrics", headers=headers),
                           client.get("//v1/models", headers=headers),
                           client.get("/nothing", headers=headers),
                           client.post("/v1/completions", content=b"{", headers=headers)):
                error(answer, 401, "authentication_error")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status_code == 200
        answer = client.post("/v1/completions", json=ASK | {"model": "mine"}, headers=good)
        assert answer.status_code == 200
        elsewhere = good | {"Origin": "https://a.example"}
        assert client.get("/v1/models", headers=elsewhere).status_code == 200
    [use] = uses
    assert (use.key, use.model, use.prompt_tokens) == ("ann", "mine", 2)
    assert (use.cached_tokens, use.adapter) == (0, "") and 0 < use.ttft_seconds <= use.seconds
    assert use.output_tokens == answer.json()["usage"]["completion_tokens"]
    assert use.seconds > 0 and use.finish == answer.json()["choices"][0]["finish_reason"]


def test_a_use_that_cannot_be_recorded_harms_no_answer(folder, caplog):
    def broken(use):
        raise OSError("disk full")

    with serving(folder, on_use=broken) as session:
        assert httpx.post(f"{session.url}/v1/completions", json=ASK).status_code == 200
    assert "disk full" in caplog.text


def test_a_full_queue_says_come_again(folder):
    with serving(folder, max_batch=1, limits=Limits(queue=1)) as session:
        ask = ASK | {"max_tokens": 120, "temperature": 2}

        def post(seed):
            return httpx.post(f"{session.url}/v1/completions", json=ask | {"seed": seed},
                              timeout=60)

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(post, range(12)))
        assert {a.status_code for a in answers} == {200, 429}
        refused = next(a for a in answers if a.status_code == 429)
        error(refused, 429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1
        assert session.stats().refused == sum(a.status_code == 429 for a in answers)


def test_an_engine_that_fails_is_a_500_or_an_error_event(folder, monkeypatch):
    from curbcut.serve.engine.runner import TorchRunner

    def broken(self, *pieces):
        raise RuntimeError("no")

    monkeypatch.setattr(TorchRunner, "run", broken)
    with serving(folder) as session:
        error(httpx.post(f"{session.url}/v1/completions", json=ASK), 500, "server_error")
        streamed = httpx.post(f"{session.url}/v1/completions", json=ASK | {"stream": True})
        assert json.loads(streamed.text.removeprefix("data: "))["error"]["type"] == "server_error"


def test_leaving_the_block_lets_running_answers_end(folder):
    answers = []
    with serving(folder) as session:
        asking = threading.Thread(target=lambda: answers.append(httpx.post(
            f"{session.url}/v1/completions", json=ASK | {"max_tokens": 100}, timeout=60)))
        asking.start()
        until(lambda: session.stats().requests == 1)
    asking.join(30)
    assert answers[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{session.url}/health")
