"""An address elsewhere as an engine, against a server that speaks like the known ones."""

from __future__ import annotations

import itertools
import queue
import re
import socket
import threading

import pytest
import torch

from curbcut.errors import InputError, UnknownName
from curbcut.model import weights
from curbcut.serve.engine import text
from curbcut.serve.engine.interface import Asked, Busy, Closed, Grammar, Sampling, Unfit
from curbcut.serve.engine.remote import RemoteEngine
from fake_openai import Fake, answer, stream


class Letters:
    """As much of a vocabulary as a remote engine asks of one: words are tokens."""

    size = 97

    def encode(self, text):
        return [int(word) for word in text.split()]


@pytest.fixture
def serve():
    """Makes servers and engines on them, and closes both."""
    made = []

    def make(engine=None, **how):
        fake = Fake(**how)
        made.append(fake)
        made.append(RemoteEngine(fake.url, **(engine or {})))
        return fake, made[-1]

    yield make
    for one in reversed(made):
        one.close()


def sampling(tokens=5, **more):
    return Sampling(max_tokens=tokens, temperature=0, **more)


def ask(engine, prompt=(1, 2, 3), how=None, **more):
    heard = queue.Queue()
    engine.submit(Asked(prompt=prompt, sampling=how or sampling(), **more), heard.put)
    deltas = []
    while not deltas or deltas[-1].finish is None:
        deltas.append(heard.get(timeout=60))
    assert heard.empty()
    return deltas


def test_tokens_go_out_and_text_tokens_and_counts_come_back(serve):
    fake, engine = serve()
    deltas = ask(engine)
    tokens = answer({"prompt": [1, 2, 3], "max_tokens": 5})
    assert "".join(one.text for one in deltas) == "".join(f"{token} " for token in tokens)
    assert [token for one in deltas for token in one.ids] == tokens
    last = deltas[-1]
    assert (last.finish, last.tokens, last.prompt_tokens, last.cached_tokens) == ("length", 5, 3, 1)
    assert "estimated" not in last.extra
    path, body = fake.seen[-1]
    assert (path, body["prompt"], body["model"]) == ("/v1/completions", [1, 2, 3], "m")
    assert (engine.context_tokens, engine.dialect.name) == (128, "vllm")


@pytest.mark.parametrize(("prompt", "path"), [
    ("a text", "/v1/completions"), (({"role": "user", "content": "hi"},), "/v1/chat/completions")])
def test_text_and_messages_go_as_they_came(serve, prompt, path):
    fake, engine = serve(owner="other")
    tools = [{"type": "function", "function": {"name": "f"}}]
    deltas = ask(engine, prompt, extra={"tools": tools, "model": "another", "stream": False})
    assert deltas[-1].tokens == 5 and "".join(one.text for one in deltas)
    told, body = fake.seen[-1]
    assert told == path and body["tools"] == tools and body["model"] == "m" and body["stream"]
    assert (body.get("prompt") or tuple(body["messages"])) == prompt


@pytest.mark.parametrize(("how", "name"), [
    ({"owner": "vllm"}, "vllm"), ({"owner": "sglang"}, "sglang"), ({"owner": "x"}, "openai"),
    ({"owner": "llamacpp"}, "llama.cpp"), ({"owner": "curbcut"}, "curbcut"),
    ({"owner": "x", "extra": {"/version": {"version": "1"}}}, "vllm"),
    ({"owner": "x", "extra": {"/props": {"default_generation_settings": {}}}}, "llama.cpp")])
def test_servers_are_told_apart(serve, how, name):
    assert serve(**how)[1].dialect.name == name


FULL = {"top_p": 0.5, "presence_penalty": 0.1, "frequency_penalty": 0.2, "seed": 3, "stop": ("x",),
        "logit_bias": {4: -1.0}}
MORE = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 2, "stop_tokens": (9,),
        "ignore_end": True, "special_text": True, "include_stop": True}


def test_sampling_is_said_in_the_server_s_words(serve):
    fake, engine = serve()
    ask(engine, how=sampling(**FULL, **MORE, logprobs=2), salt="s")
    body = fake.seen[-1][1]
    assert body["logit_bias"] == {"4": -1.0} and body["stop"] == ["x"] and body["seed"] == 3
    assert body["stop_token_ids"] == [9] and body["ignore_eos"] is True and body["top_k"] == 5
    assert body["skip_special_tokens"] is False and body["include_stop_str_in_output"] is True
    assert body["cache_salt"] == "s" and body["logprobs"] == 2 and body["return_token_ids"] is True


@pytest.mark.parametrize(("owner", "said"), [("curbcut", 3), ("vllm", None), ("x", None)])
def test_a_priority_is_said_where_it_is_heeded(serve, owner, said):
    fake, engine = serve(owner=owner)
    ask(engine, priority=3)
    assert fake.seen[-1][1].get("priority") == said


def test_our_own_server_is_an_engine_elsewhere(session, folder):
    """Greedy answers, log-probabilities and ends are those of the network itself."""
    vocabulary = text.load(folder)
    model, _ = weights.load(folder)
    engine = RemoteEngine(session.url, vocabulary=vocabulary)
    try:
        assert (engine.dialect.name, engine.context_tokens) == ("curbcut", 128)
        prompt = (5, 6, 7)
        deltas = ask(engine, prompt, sampling(12, ignore_end=True, logprobs=2), salt="s")
        ids = [token for one in deltas for token in one.ids]
        odds = [each for one in deltas for each in one.odds]
        with torch.no_grad():
            scores = model.logits(model(torch.tensor([[*prompt, *ids]])))[0].log_softmax(-1)
        assert ids == scores[2:-1].argmax(-1).tolist()
        assert "".join(one.text for one in deltas) == vocabulary.decode(ids)
        assert deltas[-1].tokens == 12 and deltas[-1].prompt_tokens == 3
        assert [one.token for one in odds] == ids and all(len(one.top) == 2 for one in odds)
        for place, one in enumerate(odds):
            assert one.logprob == pytest.approx(float(scores[2 + place, one.token]), abs=1e-4)
        with pytest.raises(UnknownName):
            RemoteEngine(session.url, "nobody")
        assert len(engine.embed([prompt])[0]) == 32
    finally:
        engine.close()


def test_defaults_are_left_to_nobody_and_openai_hears_only_its_own_fields(serve):
    fake, engine = serve(owner="x")
    ask(engine, how=sampling(**FULL), salt="s")
    assert set(fake.seen[-1][1]) == {
        "model", "max_tokens", "temperature", "stream", "stream_options", "prompt", *FULL}


@pytest.mark.parametrize("field", sorted(MORE))
def test_what_a_server_does_not_know_is_refused_and_not_left_out(serve, field):
    fake, engine = serve(owner="x")
    with pytest.raises(Unfit, match=field):
        ask(engine, how=sampling(**{field: MORE[field]}))
    assert not fake.seen


@pytest.mark.parametrize(("owner", "grammar", "said"), [
    ("vllm", Grammar("regex", "a+"), {"structured_outputs": {"regex": "a+"}}),
    ("vllm", Grammar("choice", '["a"]'), {"structured_outputs": {"choice": ["a"]}}),
    ("sglang", Grammar("regex", "a+"), {"regex": "a+"}),
    ("llamacpp", Grammar("json_schema", "{}"), {"json_schema": {}}),
    ("x", Grammar("json"), {"response_format": {"type": "json_object"}})])
def test_grammars_are_said_in_the_server_s_words(serve, owner, grammar, said):
    fake, engine = serve(owner=owner)
    ask(engine, how=sampling(grammar=grammar))
    assert fake.seen[-1][1].items() >= said.items()


def test_a_grammar_that_a_server_cannot_keep_is_refused(serve):
    with pytest.raises(Unfit, match="lark"):
        ask(serve(owner="x")[1], how=sampling(grammar=Grammar("lark", "start: 'a'")))


@pytest.mark.parametrize(("vocabulary", "tokens"), [(Letters(), 5), (None, 5)])
def test_counts_that_are_not_told_are_estimated_and_said_so(serve, vocabulary, tokens):
    _, engine = serve({"vocabulary": vocabulary}, owner="x",
                      say=lambda path, body: stream(body, usage=False))
    last = ask(engine)[-1]
    assert last.tokens == tokens and last.prompt_tokens == 3 and last.extra["estimated"] is True
    assert engine.stats().answer_tokens == tokens


def odds_chunk(content, **more):
    return [{"choices": [{"text": "7", "finish_reason": "stop", "logprobs": content, **more}]}]


@pytest.mark.parametrize("content", [
    {"tokens": ["token_id:7"], "token_logprobs": [-0.5],
     "top_logprobs": [{"token_id:7": -0.5, "token_id:8": -1.0}]},
    {"content": [{"id": 7, "token": "?", "logprob": -0.5, "top_logprobs": [
        {"id": 7, "token": "?", "logprob": -0.5}, {"id": 8, "token": "!", "logprob": -1.0}]}]},
    {"tokens": ["7"], "token_logprobs": [-0.5], "top_logprobs": [{"7": -0.5, "8": -1.0}]}])
def test_log_probabilities_in_all_shapes(serve, content):
    _, engine = serve({"vocabulary": Letters()}, say=lambda path, body: odds_chunk(content))
    (odds,) = ask(engine, how=sampling(logprobs=2))[0].odds
    assert (odds.token, odds.logprob, odds.top) == (7, -0.5, ((7, -0.5), (8, -1.0)))


def test_log_probabilities_of_tokens_without_numbers_come_as_they_are_spelt(serve):
    content = {"tokens": ["?"], "token_logprobs": [-0.5], "top_logprobs": [None]}
    _, engine = serve(say=lambda path, body: odds_chunk(content))
    first = ask(engine, how=sampling(logprobs=1))[0]
    assert first.odds == () and first.extra == {"logprobs": [
        {"token": "?", "logprob": -0.5, "bytes": [63], "top_logprobs": []}]}


def test_log_probabilities_of_a_prompt_come_in_one_piece(serve):
    told = [None, {"2": {"logprob": -1.5}, "9": {"logprob": -0.5}}]
    fake, engine = serve(say=lambda path, body: {
        "choices": [{"text": "a", "finish_reason": "stop", "prompt_logprobs": told,
                     "token_ids": [5], "prompt_token_ids": [1, 2]}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    first, last = ask(engine, (1, 2), sampling(prompt_logprobs=1))
    assert first.prompt_odds[0] is None and last.finish == "stop"
    assert (first.prompt_odds[1].token, first.prompt_odds[1].logprob) == (2, -1.5)
    assert first.prompt_odds[1].top[0] == (9, -0.5) and fake.seen[-1][1]["stream"] is False


def test_calls_of_tools_and_other_ends(serve):
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    _, engine = serve(say=lambda path, body: [
        {"choices": [{"delta": {"role": "assistant", "tool_calls": [call]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}])
    first, last = ask(engine, ({"role": "user", "content": "hi"},))
    assert first.extra == {"tool_calls": [call]}
    assert last.finish == "stop" and last.extra["finish_reason"] == "tool_calls"


def test_halves_of_surrogate_pairs_are_replaced(serve):
    _, engine = serve(say=lambda path, body: [
        {"choices": [{"text": "a\ud800", "finish_reason": "stop"}]}])
    assert ask(engine)[0].text == "a?"


def test_what_stopped_an_answer_is_told(serve):
    _, engine = serve(say=lambda path, body: [
        {"choices": [{"text": "a", "finish_reason": "stop", "stop_reason": "x"}]}])
    assert ask(engine)[-1].stopped_by == "x"


@pytest.mark.parametrize(("said", "why"), [
    ((500, {"error": {"message": "on fire"}}), "on fire"), ((400, {"message": "bad"}), "bad"),
    ((302, {}), "302"), ([{"error": {"message": "lost"}}], "lost"), (["{"], "no JSON"),
    (["[1]"], "no JSON object"), ([{"choices": [{"text": "a"}]}], "in the middle"),
    ([{"choices": "?"}], "in the middle"),
    ([{"choices": [{"logprobs": {"content": [5]}}]}], "int")])
def test_failures_end_the_answer_with_a_reason_that_is_logged(serve, caplog, said, why):
    _, engine = serve(say=lambda path, body: said)
    last = ask(engine)[-1]
    assert last.finish == "failed" and re.search(why, last.extra["reason"])
    assert last.extra["reason"] in caplog.text
    assert engine.stats().failed == 1 and engine.stats().running == 0


def test_a_server_that_is_gone_fails_the_answer(serve):
    fake, engine = serve()
    fake.close()
    assert "refused" in ask(engine)[-1].extra["reason"]


def test_a_busy_server_is_not_asked_again_at_once(serve):
    fake, engine = serve(say=lambda path, body: (429, {}, {"Retry-After": "30"}))
    assert ask(engine)[-1].extra["status"] == 429
    with pytest.raises(Busy):
        ask(engine)
    assert len(fake.seen) == 1 and engine.stats().refused == 1


def endless(path, body):
    return ({"choices": [{"text": "a ", "token_ids": [i % 97]}]} for i in itertools.count())


def test_cancellation_closes_the_connection(serve):
    fake, engine = serve(say=endless)
    heard = queue.Queue()
    ticket = engine.submit(Asked(prompt=(1,), sampling=sampling()), heard.put)
    heard.get(timeout=60)
    engine.cancel(ticket)
    engine.cancel(999)
    assert _finish(heard) == "cancelled"
    assert fake.gone.wait(60)
    assert engine.stats().cancelled == 1 and engine.stats().running == 0


def _finish(heard):
    while True:
        if (finish := heard.get(timeout=60).finish) is not None:
            return finish


def test_a_silent_server_fails_the_answer_in_time(serve):
    hold = threading.Event()
    _, engine = serve({"idle_seconds": 0.05}, say=lambda path, body: iter(
        lambda: hold.wait(60) and None, None))
    assert "timed out" in ask(engine)[-1].extra["reason"]
    hold.set()


def test_no_more_than_so_many_at_once_and_closing_ends_all(serve):
    _, engine = serve({"most": 2}, say=endless)
    heard = [queue.Queue() for _ in range(3)]
    for one in heard[:2]:
        engine.submit(Asked(prompt=(1,), sampling=sampling()), one.put)
        one.get(timeout=60)
    with pytest.raises(Busy):
        engine.submit(Asked(prompt=(1,), sampling=sampling()), heard[2].put)
    engine.close()
    engine.close()
    assert [_finish(one) for one in heard[:2]] == ["cancelled"] * 2
    with pytest.raises(Closed):
        engine.submit(Asked(prompt=(1,), sampling=sampling()), heard[2].put)


def test_embeddings_are_scaled_to_length_one(serve):
    rows = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]
    fake, engine = serve(say=lambda path, body: {"data": rows})
    assert engine.embed([(1, 2), (3,)]) == [[0.6, 0.8], [0.0, 1.0]]
    assert fake.seen[-1] == ("/v1/embeddings", {"model": "m", "input": [[1, 2], [3]]})
    fake.say = lambda path, body: (404, {})
    with pytest.raises(Unfit):
        engine.embed([(1,)])
    fake.say = lambda path, body: {"data": [{}]}
    with pytest.raises(Unfit):
        engine.embed([(1,)])


def test_adapters_are_models_with_a_parent(serve):
    models = [{"id": "m", "owned_by": "vllm"}, {"id": "a", "parent": "m", "root": "/lora"}]
    fake, engine = serve(models=models)
    assert engine.adapters == {"a": "/lora"}
    ask(engine, adapter="a")
    assert fake.seen[-1][1]["model"] == "a"
    with pytest.raises(Unfit, match="adapter"):
        ask(engine, adapter="b")


def test_a_key_is_sent_and_a_wrong_one_named():
    fake = Fake(key="sesame")
    try:
        engine = RemoteEngine(f"{fake.url}/v1/", key="sesame")
        assert ask(engine)[-1].finish == "length"
        with pytest.raises(InputError, match="key"):
            RemoteEngine(fake.url, key="other")
        with pytest.raises(UnknownName, match="did you mean"):
            RemoteEngine(fake.url, "m2", key="sesame")
    finally:
        fake.close()


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://", "http://a:b/", "file:///etc",
                                 "http://u@h/", "http://h/?q"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InputError, match="no address"):
        RemoteEngine(url)


def test_nobody_there_is_said_so():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="cannot be reached"):
            RemoteEngine(f"http://127.0.0.1:{probe.getsockname()[1]}")


def test_counts_add_up(serve):
    _, engine = serve()
    for _ in range(3):
        ask(engine)
    stats = engine.stats()
    assert (stats.requests, stats.finished) == (3, 3)
    assert (stats.answer_tokens, stats.prompt_tokens) == (15, 9)
    assert (stats.cached_tokens, stats.decode_tokens, stats.first_tokens) == (3, 12, 3)
    assert stats.first_token_seconds > 0
