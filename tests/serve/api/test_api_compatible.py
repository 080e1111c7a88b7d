"""Small things that the clients of other servers expect, and keys that are revoked."""

import httpx
import openai
import pytest

from callers import caller
from curbcut.serve.api import door
from curbcut.serve.server import serving

HELLO = [{"role": "user", "content": "hello"}]
GBNF = 'root ::= "a"{3} more\nmore ::= "b" | "c"'


def post(session, path, **body):
    return httpx.post(session.url + path, json=body, timeout=30)


def test_every_chunk_has_the_counts_where_they_are_asked_for(talk):
    with openai.OpenAI(base_url=f"{talk.url}/v1", api_key="x") as client:
        chunks = list(client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=4, stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True}))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == 4 and chunks[-1].choices == []


def test_prompts_are_counted_as_they_will_be_read(talk):
    read = post(talk, "/v1/chat/completions", messages=HELLO, max_tokens=1).json()["usage"]
    told = post(talk, "/v1/chat/completions/input_tokens", messages=HELLO).json()
    assert told == {"object": "response.input_tokens", "input_tokens": read["prompt_tokens"]}
    with openai.OpenAI(base_url=f"{talk.url}/v1", api_key="x") as client:
        counted = client.responses.input_tokens.count(model="talker", input="hello")
    assert counted.input_tokens == read["prompt_tokens"]


@pytest.mark.parametrize(("side", "kept"), [("left", [4, 5, 6]), ("right", [0, 1, 2])])
def test_a_prompt_is_cut_on_either_side(talk, side, kept):
    answer = post(talk, "/v1/completions", prompt=list(range(7)), max_tokens=1,
                  truncate_prompt_tokens=3, truncation_side=side, return_token_ids=True).json()
    assert answer["choices"][0]["prompt_token_ids"] == kept


@pytest.mark.parametrize("name", ["grammar", "ebnf", "guided_grammar"])
def test_grammars_are_read_as_gbnf_too(talk, name):
    answer = post(talk, "/v1/chat/completions", messages=HELLO, max_tokens=9, **{name: GBNF})
    assert answer.json()["choices"][0]["message"]["content"] in ("aaab", "aaac")


@pytest.mark.parametrize("source", ["root ::= nothing", "root ::= (", "a ::= b\n" * 2000,
                                    'root ::= "a"' + "(" * 3000, "::="])
def test_a_grammar_that_is_wrong_or_too_large_is_refused(talk, source):
    answer = post(talk, "/v1/completions", prompt="a", grammar=source)
    assert answer.status_code == 400 and "grammar" in answer.json()["error"]["message"]
    assert len(source) < 8192 or "more than 8192" in answer.json()["error"]["message"]


def test_a_choice_of_tools_needs_tools(talk):
    for choice, status in (("auto", 400), ("none", 200), (None, 200)):
        assert post(talk, "/v1/chat/completions", messages=HELLO, max_tokens=1,
                    tool_choice=choice).status_code == status


def test_cards_and_tokens_have_what_is_not_known_too(talk):
    card = httpx.get(f"{talk.url}/v1/models/talker").json()
    assert (card["root"], card["parent"]) == ("talker", None)
    assert post(talk, "/tokenize", prompt="a").json()["token_strs"] is None
    assert post(talk, "/tokenize", prompt="a", return_token_strs=True).json()["token_strs"] == ["a"]


def test_a_revoked_key_ends_its_stream_at_the_next_tokens(talker, monkeypatch):
    monkeypatch.setattr(door, "KNOWN_SECONDS", 0.02)
    known, uses = {"good": caller("ann"), "other": caller("bob")}, []
    body = {"prompt": "a", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with serving(talker, name="talker", max_batch=2, verify=known.get,
                 on_use=uses.append) as session:
        url, key = f"{session.url}/v1/completions", {"Authorization": "Bearer good"}
        with httpx.stream("POST", url, json=body, headers=key, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            del known["good"]
            rest = [line for line in lines if line]
        assert "invalid_api_key" in rest[-1] and "[DONE]" not in rest[-1] and len(rest) < 1800
        again = httpx.post(url, json=body, headers=key, timeout=30)
        assert again.status_code == 401
        assert httpx.post(url, json=body | {"stream": False, "max_tokens": 2, "ignore_eos": False},
                          headers={"Authorization": "Bearer other"}, timeout=30).status_code == 200
    assert [(use.key, use.finish) for use in uses] == [("ann", "cancelled"), ("bob", "length")]
