"""A model at another server: what is asked of ours comes out as if it were asked there."""

import argparse
import functools
import json
import subprocess
import sys
import time

import httpx
import openai
import pytest

from curbcut.cli.served import add_engine_options, engine_words, way_of
from curbcut.serve.opening import Way
from curbcut.serve.server import serving
from fake_openai import Fake

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {
    "type": "object", "properties": {"x": {"enum": [5]}}, "required": ["x"],
    "additionalProperties": False}}}]


@functools.cache
def client_of(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)


def client(session):
    return client_of(session.url)


@pytest.fixture(scope="module")
def front(talk):
    """A server whose model is at `talk`; it has no vocabulary of its own."""
    with serving({"front": (None, Way(engine=talk.url))}) as session:
        yield session


def both(front, talk, ask):
    """What `ask(client, model)` gives here, which is what it gives there."""
    there, here = ask(client(talk), "talker"), ask(client(front), "front")
    assert here == there
    return here


@pytest.mark.parametrize("more", [
    {}, {"logprobs": 2}, {"echo": True}, {"echo": True, "logprobs": 2}, {"n": 2, "seed": 3},
    {"echo": True, "logprobs": 0, "max_tokens": 0}, {"prompt": [97, 98]}, {"stop": "\x10"}])
def test_completions_are_those_of_the_other_server(front, talk, more):
    asked = {"prompt": "abc", "max_tokens": 4, "temperature": 0, **more}

    def whole(client, model):
        answer = client.completions.create(model=model, **asked)
        return [choice.to_dict() for choice in answer.choices], answer.usage.total_tokens

    def streamed(client, model):
        chunks = client.completions.create(model=model, stream=True, **asked)
        return sorted((choice.index, choice.text) for chunk in chunks for choice in chunk.choices
                      if choice.text)

    both(front, talk, whole)
    both(front, talk, streamed)


@pytest.mark.parametrize("more", [
    {}, {"logprobs": True, "top_logprobs": 2}, {"n": 2, "seed": 3},
    {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}},
     "max_tokens": 200},
    {"tools": TOOLS}, {"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"const": 42}}}},
    {"messages": [*HELLO, {"role": "assistant", "content": "a"}],
     "extra_body": {"continue_final_message": True, "add_generation_prompt": False}}])
def test_chats_are_those_of_the_other_server(front, talk, more):
    asked = {"messages": HELLO, "max_tokens": 6, "temperature": 0, **more}

    def whole(client, model):
        answer = client.chat.completions.create(model=model, **asked)
        for choice in answer.choices:
            for call in choice.message.tool_calls or ():
                call.id = ""
        return [choice.to_dict() for choice in answer.choices], answer.usage.total_tokens

    def streamed(client, model):
        said, counts = {}, None
        for chunk in client.chat.completions.create(
                model=model, stream=True, stream_options={"include_usage": True}, **asked):
            for choice in chunk.choices:
                calls = choice.delta.tool_calls or ()
                text = (choice.delta.content or "") + "".join(
                    f"{call.function.name or ''}{call.function.arguments}" for call in calls)
                odds = choice.logprobs.to_dict()["content"] if choice.logprobs else []
                before = said.get(choice.index, ("", [], None))
                said[choice.index] = (before[0] + text, before[1] + odds, choice.finish_reason)
            counts = chunk.usage
        return said, counts.total_tokens

    choices, _ = both(front, talk, whole)
    both(front, talk, streamed)
    if more.get("tool_choice"):
        assert json.loads(choices[0]["message"]["tool_calls"][0]["function"]["arguments"])


def test_responses_and_their_calls(front, talk):
    def items(client, model):
        answer = client.responses.create(
            model=model, input="hello", max_output_tokens=200, temperature=0,
            tools=[{"type": "function", "strict": True, **TOOLS[0]["function"]}],
            tool_choice="required", parallel_tool_calls=False)
        return [(item.type, item.name, item.arguments) for item in answer.output]

    assert [kind for kind, *_ in both(front, talk, items)] == ["function_call"]


def test_an_answer_without_a_limit_goes_as_far_as_there_is_room(front, talk):
    long = [{"role": "user", "content": "a " * 1000}]

    def count(client, model):
        return client.chat.completions.create(
            model=model, messages=long, temperature=0,
            extra_body={"ignore_eos": True}).usage.total_tokens

    assert both(front, talk, count) == 2048


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_keep_their_status_and_code(front, talk, stream):
    def refusal(messages, **more):
        def ask(client, model):
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model=model, messages=messages, max_tokens=3,
                                               stream=stream, **more)
            return caught.value.code
        return ask

    assert both(front, talk, refusal([{"role": "user", "content": "a " * 3000}])) == \
        "context_length_exceeded"
    both(front, talk, refusal(HELLO, response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "hiccup"}}}))


def test_a_client_that_goes_ends_the_answer_there(front, talk):
    before = talk.stats().cancelled
    stream = client(front).completions.create(
        model="front", prompt="a", max_tokens=1900, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    while talk.stats().cancelled == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert talk.stats().cancelled == before + 1 and front.stats().running == 0


def test_what_needs_its_vocabulary_is_refused(front):
    for path, body in (("/tokenize", {"prompt": "a"}), ("/v1/embeddings", {"input": "a"}),
                       ("/v1/chat/completions/input_tokens", {"messages": HELLO})):
        answer = httpx.post(front.url + path, json=body)
        assert answer.json()["error"]["code"] == "unsupported_model"
        assert answer.status_code == 400


@pytest.mark.parametrize(("status", "code"), [(401, "engine_failed"), (500, "engine_failed"),
                                              (422, "engine_refused"), (429, "engine_refused")])
def test_who_is_to_blame_for_an_engines_refusal(status, code):
    fake = Fake(say=lambda path, body: (status, {"error": {"message": "no"}}))
    try:
        with serving({"front": (None, Way(engine=fake.url))}) as session:
            answer = httpx.post(f"{session.url}/v1/completions", json={"prompt": "a"})
    finally:
        fake.close()
    assert answer.json()["error"]["code"] == code
    assert answer.status_code == {401: 500, 422: 400}.get(status, status)


def test_several_addresses_are_one_engine():
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    given = parser.parse_args(["--engine", "http://a", "--engine", "http://b"])
    assert way_of(given).engine == "http://a http://b"
    assert way_of(parser.parse_args(engine_words(given))) == way_of(given)
    assert way_of(parser.parse_args(["--engine", "vllm"])).engine == "vllm"


def test_one_model_at_two_servers_one_of_which_fails(talk, tmp_path):
    """As a command: requests go past the server that fails, and past one that is gone."""
    fake = Fake(owner="curbcut", say=lambda path, body: (500, {"error": {"message": "on fire"}}),
                models=[{"id": "talker", "owned_by": "curbcut", "max_model_len": 2048}])
    command = [sys.executable, "-m", "curbcut.cli.main", "serve", "--engine", fake.url,
               "--engine", talk.url, "--port", "0", "--json", "--runs", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        body = {"prompt": "abc", "max_tokens": 4, "temperature": 0}
        there = httpx.post(f"{talk.url}/v1/completions", json=body, timeout=30).json()
        found = [httpx.post(f"{url}/v1/completions", json=body, timeout=30).json()]
        assert len(fake.seen) == 1  # it came first, and failed
        metrics = httpx.get(f"{url}/metrics", timeout=30).text
        assert 'curbcut_resting_replicas{model="model"} 1\n' in metrics
        fake.close()
        found += [httpx.post(f"{url}/v1/completions", json={**body, "prompt": prompt},
                             timeout=30).json() for prompt in ("abc", "x", "y")]
    finally:
        process.terminate()
        process.wait(30)
    assert found[0]["choices"] == found[1]["choices"] == there["choices"]
    assert all(answer["usage"]["completion_tokens"] == 4 for answer in found)
