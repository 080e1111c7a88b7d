"""A server with keys, a ledger and budgets: what it holds, charges and refuses."""

import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import httpx
import pytest
import sqlalchemy as sa

from curbcut.ledger import access, budgets, holds, open_ledger, schema
from curbcut.ledger.access import Allowance, Caller
from curbcut.ledger.prices import Price, set_price
from curbcut.serve.api import door
from curbcut.serve.gateway.till import Till
from curbcut.serve.opening import Way
from curbcut.serve.server import serving
from slow_steps import slow_steps

ASK = {"model": "tiny", "prompt": "abcdef", "max_tokens": 20, "temperature": 0}
PRICE = Price(model="tiny", prompt_nanousd=10**12, cached_nanousd=10**11,
              output_nanousd=2 * 10**12)
"""A prompt token 1,000,000 nanodollars, an answer token twice that."""


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come to be"
        time.sleep(0.01)


class Place:
    """A ledger, a server on it, and its keys."""

    def __init__(self, ledger, session, till):
        self.ledger, self.session, self.till = ledger, session, till
        self.secrets = {}

    def key(self, name, **given):
        self.secrets[name] = access.issue_key(self.ledger, name, actor="test", **given)
        return self.secrets[name]

    def post(self, key, path="/v1/completions", **given):
        return httpx.post(f"{self.session.url}{path}", json=ASK | given, timeout=60,
                          headers={"Authorization": f"Bearer {self.secrets[key]}"})

    def get(self, key, path):
        return httpx.get(f"{self.session.url}{path}",
                         headers={"Authorization": f"Bearer {self.secrets[key]}"})

    def headers(self, key):
        return {"Authorization": f"Bearer {self.secrets[key]}"}

    @contextmanager
    def stream(self, key, **given):
        with httpx.stream("POST", f"{self.session.url}/v1/completions", timeout=60,
                          json=ASK | {"stream": True, "temperature": 2, "ignore_eos": True} | given,
                          headers=self.headers(key)) as answer:
            yield answer.iter_lines()

    def settled(self, key):
        """The last use of a key, once nothing is held any more."""
        until(lambda: holds.live(self.ledger) == 0)
        return self.uses(key)[-1]

    def uses(self, key):
        with self.ledger.reading() as connection:
            return connection.execute(sa.select(schema.uses).where(
                schema.uses.c.key == key).order_by(schema.uses.c.id)).all()

    def budget(self, scope):
        [found] = budgets.budgets(self.ledger, [scope])
        return found


@pytest.fixture(scope="module")
def place(folder, tmp_path_factory):
    with open_ledger(tmp_path_factory.mktemp("ledgers") / "ledger.sqlite") as ledger:
        set_price(ledger, PRICE, actor="test")
        till = Till(ledger)
        try:
            with serving(folder, max_batch=4, verify=partial(access.verify, ledger),
                         till=till) as session:
                yield Place(ledger, session, till)
        finally:
            till.close()
        assert holds.live(ledger) == 0  # whatever the tests did, nothing is left behind


@pytest.fixture
def slow(monkeypatch):
    """Steps of at least 10 ms."""
    slow_steps(monkeypatch, 0.01)


def error(answer, status, code):
    assert answer.status_code == status, answer.text
    body = answer.json()["error"]
    assert body["code"] == code, body
    return body


def chunks(answer):
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")
            if line.startswith("data: {")]


def test_an_answer_is_charged_by_the_price_list_before_it_is_sent(place):
    place.key("ann")
    usage = place.post("ann").json()["usage"]
    [use] = place.uses("ann")
    assert (use.prompt_tokens, use.output_tokens) == (
        usage["prompt_tokens"], usage["completion_tokens"])
    fresh = use.prompt_tokens - use.cached_tokens
    assert use.charged_nanousd == (fresh * 10**6 + use.cached_tokens * 10**5
                                   + use.output_tokens * 2 * 10**6)
    assert (use.project, use.organisation) == ("default", "default")


def test_a_stream_is_charged_once_at_its_end(place):
    place.key("bob")
    answer = place.post("bob", stream=True, stream_options={"include_usage": True})
    [use] = place.uses("bob")
    assert use.output_tokens == chunks(answer)[-1]["usage"]["completion_tokens"]


def test_a_budget_without_room_is_a_429_that_names_it(place):
    access.create_project(place.ledger, "small", actor="test")
    budgets.set_budget(place.ledger, "project:small", "nanousd", 10**9, period="month",
                       actor="test")
    place.key("cleo", project="small")
    body = error(refused := place.post("cleo", n=40, best_of=40), 429, "insufficient_quota")
    assert body["type"] == "insufficient_quota" and "project:small" in body["message"]
    assert "1 USD" in body["message"] and "a month" in body["message"]
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-should-retry"] == "false"
    assert place.budget("project:small").held == place.budget("project:small").spent == 0
    assert place.uses("cleo") == []


def test_64_at_once_against_the_last_of_a_budget_overshoot_by_nothing(place):
    place.key("dora")
    scope = access.scope_of_key(place.ledger, "dora")
    budgets.set_budget(place.ledger, scope, "nanousd", 10 * (5 * 10**6 + 20 * 2 * 10**6),
                       actor="test")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: place.post("dora"), range(64)))
    assert {a.status_code for a in answers} <= {200, 429}
    budget = place.budget(scope)
    assert budget.held == 0 and 0 < budget.spent <= budget.amount
    assert budget.spent == sum(use.charged_nanousd for use in place.uses("dora"))
    assert len(place.uses("dora")) == sum(a.status_code == 200 for a in answers) >= 10


def test_a_model_without_a_price_under_a_budget_of_money_is_refused(place, monkeypatch):
    place.key("erin")
    budgets.set_budget(place.ledger, access.scope_of_key(place.ledger, "erin"), "nanousd", 10**12,
                       actor="test")
    monkeypatch.setattr(place.till, "_prices", {})
    monkeypatch.setattr(place.till, "_look", lambda: None)
    monkeypatch.setattr(place.till, "_budgeted", budgets.budgeted(place.ledger))
    assert "price" in error(place.post("erin"), 403, "model_not_priced")["message"]
    place.key("finn")  # nobody counts what finn takes in money
    assert place.post("finn").status_code == 200
    assert place.uses("finn")[0].charged_nanousd == 0


def test_limits_a_minute_and_their_headers(place):
    place.key("gus")
    access.set_allowance(place.ledger, access.scope_of_key(place.ledger, "gus"), Allowance(
        requests_a_minute=2, tokens_a_minute=1000), actor="test")
    first = place.post("gus")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) == 1000 - 25
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert place.post("gus").status_code == 200
    refused = place.post("gus")
    assert error(refused, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(place.uses("gus")) == 2


def test_one_request_at_a_time(place, slow):
    place.key("hal")
    access.set_allowance(place.ledger, access.scope_of_key(place.ledger, "hal"),
                         Allowance(concurrency=1), actor="test")
    with place.stream("hal", max_tokens=40) as lines:
        next(lines)
        refused = place.post("hal")
        error(refused, 429, "rate_limit_exceeded")
        for _ in lines:
            pass
    assert place.post("hal").status_code == 200


def test_models_that_a_key_may_not_ask_are_not_there_for_it(place):
    place.key("ida")
    access.set_allowance(place.ledger, access.scope_of_key(place.ledger, "ida"),
                         Allowance(models=("other",)), actor="test")
    assert place.get("ida", "/v1/models").json()["data"] == []
    assert place.get("ida", "/v1/models/tiny").status_code == 404
    for path, body in (("/v1/completions", {}), ("/v1/embeddings", {"input": "a"}),
                       ("/tokenize", {"prompt": "a"})):
        answer = httpx.post(f"{place.session.url}{path}", headers=place.headers("ida"),
                            json={"model": "tiny"} | (body or ASK))
        assert "none for this key" in error(answer, 404, "model_not_found")["message"]


@pytest.mark.parametrize("role", ["admin", "operator", "auditor"])
def test_who_manages_or_watches_does_not_ask(place, role):
    place.key(f"u-{role}")
    assert place.post(f"u-{role}").status_code == 200  # so that there is something to watch
    place.key(f"a-{role}", role=role)
    assert role in error(place.post(f"a-{role}"), 403, "role_not_allowed")["message"]
    error(place.post(f"a-{role}", path="/v1/embeddings"), 403, "role_not_allowed")
    told = place.get(f"a-{role}", "/metrics")
    assert told.status_code == 200 and "curbcut_charged_usd_total" in told.text
    assert place.get(f"a-{role}", "/v1/models").status_code == 200


def test_who_asks_does_not_watch(place):
    place.key("jon")
    for path in ("/metrics", "/v1/metrics"):
        assert place.get("jon", path).status_code in (403, 404)
    error(place.get("jon", "/metrics"), 403, "role_not_allowed")


def test_a_key_that_ends_mid_stream_ends_it_and_what_went_is_charged(place, slow, monkeypatch):
    monkeypatch.setattr(door, "KNOWN_SECONDS", 0.01)

    def expires():
        with place.ledger.writing() as connection:
            connection.execute(sa.update(schema.keys).where(schema.keys.c.name == "lou").values(
                expires=time.time()))

    for name, end in (("kim", lambda: access.revoke_key(place.ledger, "kim", actor="test")),
                      ("lou", expires)):
        place.key(name)
        with place.stream(name, max_tokens=120, n=4) as lines:
            next(lines)
            end()
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"
        assert 0 < place.settled(name).output_tokens < 4 * 120
        assert place.post(name).status_code == 401


def test_a_key_is_known_no_longer_than_it_lasts(place, monkeypatch):
    monkeypatch.setattr(door, "KNOWN_SECONDS", 1000.0)
    place.key("moe", expires=time.time() + 0.7)
    place.get("moe", "/v1/models")
    until(lambda: place.get("moe", "/v1/models").status_code == 401)


def test_whoever_leaves_is_charged_what_was_made_and_holds_nothing(place, slow):
    place.key("mia")
    with place.stream("mia", max_tokens=120, n=8) as lines:
        next(lines)
    use = place.settled("mia")
    assert use.finish == "cancelled" and 0 < use.output_tokens < 8 * 120


def test_whoever_leaves_the_queue_is_charged_nothing(place, slow):
    place.key("ned")
    ask = json.dumps(ASK | {"max_tokens": 100, "n": 8}).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(ask)}\r\nAuthorization: Bearer {place.secrets['ned']}\r\n\r\n")
    before = holds.live(place.ledger)
    host, port = place.session.url.removeprefix("http://").split(":")
    with place.stream("ned", max_tokens=120, n=8) as lines:
        next(lines)
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(head.encode() + ask)
            until(lambda: holds.live(place.ledger) == before + 2)
        until(lambda: holds.live(place.ledger) <= before + 1)
    place.settled("ned")
    assert len(place.uses("ned")) == 1


def test_embeddings_are_charged_too(place):
    place.key("ora")
    answer = httpx.post(f"{place.session.url}/v1/embeddings", headers=place.headers("ora"),
                        json={"model": "tiny", "input": ["abcd", "efgh"]})
    [use] = place.uses("ora")
    assert use.prompt_tokens == answer.json()["usage"]["prompt_tokens"]
    assert use.charged_nanousd == use.prompt_tokens * 10**6
    refused = httpx.post(f"{place.session.url}/v1/embeddings", headers=place.headers("ora"),
                         json={"model": "tiny", "input": "abcd", "dimensions": 7})
    assert refused.status_code == 400 and len(place.uses("ora")) == 1


def test_an_answer_that_fails_is_not_charged(place, monkeypatch):
    from curbcut.serve.engine.runner import TorchRunner

    def broken(self, *pieces):
        raise RuntimeError("no")

    place.key("pia")
    with monkeypatch.context() as patched:
        patched.setattr(TorchRunner, "run", broken)
        assert place.post("pia").status_code == 500
        assert "server_error" in place.post("pia", stream=True).text
    until(lambda: holds.live(place.ledger) == 0)
    assert place.uses("pia") == []


def test_a_ledger_that_cannot_be_written_lets_nothing_out(place, monkeypatch):
    def full(*given, **more):
        raise OSError("disk full")

    place.key("quinn")
    for name, stream in (("hold_all", False), ("settle_all", False), ("cover_all", True)):
        with monkeypatch.context() as patched:
            patched.setattr(holds, name, full)
            answer = place.post("quinn", stream=stream, max_tokens=80)
            assert "ledger_unavailable" in answer.text and "choices" not in answer.text
            if name == "settle_all":
                until(lambda: place.till._late)
    place.till._beat()
    until(lambda: holds.live(place.ledger) == 0)
    assert [use.output_tokens > 0 for use in place.uses("quinn")] in ([], [True])


def test_no_log_at_any_level_has_a_secret_or_a_prompt(place, caplog):
    caplog.set_level(logging.DEBUG)
    secret = place.key("rob")
    words = "a sentence that nobody else should read"
    assert place.post("rob", prompt=words).status_code == 200
    assert place.post("rob", prompt=words, stream=True).status_code == 200
    assert place.post("rob", prompt=words, n=0).status_code == 400
    wrong = httpx.post(f"{place.session.url}/v1/completions", json=ASK | {"prompt": words},
                       headers={"Authorization": f"Bearer {secret}x"})
    assert wrong.status_code == 401
    for said in (secret, secret.rpartition("-")[2], words, "Authorization"):
        assert said not in caplog.text


def test_a_text_that_was_not_accepted_bars_its_model(place, monkeypatch):
    place.key("sue")
    monkeypatch.setattr(Caller, "lacks_licence", lambda caller, model: model == "tiny")
    error(place.post("sue", prompt="abcdef"), 403, "licence_not_accepted")


def test_a_model_elsewhere_stands_behind_the_same_gateway(place):
    upstream = place.key("upstream")
    place.key("tom")
    scope = access.scope_of_key(place.ledger, "tom")
    set_price(place.ledger, replace(PRICE, model="front"), actor="test")
    budgets.set_budget(place.ledger, scope, "nanousd", 10**9, actor="test")
    till = Till(place.ledger)
    try:
        with serving({"front": (None, Way(engine=place.session.url, key=upstream, name="tiny"))},
                     verify=partial(access.verify, place.ledger), till=till) as session:
            front = Place(place.ledger, session, till)
            front.secrets = place.secrets
            usage = front.post("tom", model="front").json()["usage"]
            streamed = chunks(front.post("tom", model="front", stream=True))
            assert streamed[-1]["choices"][0]["finish_reason"]
            error(front.post("tom", model="front", n=100, best_of=100), 429,
                  "insufficient_quota")
            until(lambda: holds.live(place.ledger) == 0)
    finally:
        till.close()
    whole, stream = place.uses("tom")
    assert whole.prompt_tokens == stream.prompt_tokens == usage["prompt_tokens"] == 5
    assert whole.output_tokens == stream.output_tokens == usage["completion_tokens"]
    assert place.budget(scope).spent == whole.charged_nanousd + stream.charged_nanousd
    assert [use.output_tokens for use in place.uses("upstream")] == [whole.output_tokens] * 2
