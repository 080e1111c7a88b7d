import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine.interface import Grammar
from curbcut.serve.gateway import chat as chats
from curbcut.serve.gateway import completion as completions
from curbcut.serve.gateway import embeddings, fields, responses, tokens
from curbcut.serve.gateway.body import read_json
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.tools import ToolChoice

LIMITS = Limits(prompt_characters=200, messages=3, answer_tokens=50, prompts=4)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
READ = {"completion": completions.completion, "chat": chats.chat,
        "embeddings": embeddings.embeddings, "responses": responses.respond,
        "tokenise": tokens.tokenise, "detokenise": tokens.detokenise}


def refused(function, *arguments):
    with pytest.raises(Refused) as caught:
        function(*arguments)
    assert caught.value.status == 400
    json.dumps(caught.value.body)
    return caught.value


def completion(**changes):
    return completions.completion({"model": "m", "prompt": "p"} | changes, LIMITS)


def chat(**changes):
    return chats.chat({"model": "m", "messages": HELLO} | changes, LIMITS)


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b'"x"', b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}',
    b'{"b": {"a": 1, "a": 2}}', b'\xef\xbb\xbf{}', b'{"a": "\\ud800"}', b"[" * 100_000,
    b"9" * 10_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a":' * 65 + b"1" + b"}" * 65, b'{"a": "\0"}',
    b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"])
def test_bodies_that_are_no_json_object(body):
    assert refused(read_json, body).code == "invalid_json"


def test_bodies_that_are():
    assert read_json('{"a": "\\ud83d\\ude00", "b": [1.5, "é"]}'.encode()) == {
        "a": "😀", "b": [1.5, "é"]}
    deep = b'{"a":' * 64 + b"1" + b"}" * 64
    assert read_json(deep)


_NAMES = sorted({name for table in (completions.TABLE, chats.TABLE, responses.TABLE)
                 for name in table} | {"x", "input", "tokens", "content"})


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(READ)), st.dictionaries(
    st.sampled_from(_NAMES),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                     ["role", "content", "a", "type", "function", "name", "user", "1"]),
                     inner, max_size=3), max_leaves=5)))
def test_whatever_is_sent_is_read_or_refused_with_400(which, body):
    try:
        READ[which](body, LIMITS)
    except Refused as refusal:
        assert refusal.status == 400 and refusal.body["error"]["message"]
        json.dumps(refusal.body)


def test_true_is_not_one():
    assert refused(lambda: completion(n=True)).param == "n"
    assert refused(lambda: completion(logprobs=True)).param == "logprobs"
    assert refused(lambda: chat(logprobs=1)).param == "logprobs"


def test_null_is_as_good_as_nothing():
    table = dict.fromkeys(chats.TABLE) | {"messages": HELLO, "model": "m"}
    assert chats.chat(table, LIMITS) == chat()
    table = dict.fromkeys(completions.TABLE) | {"prompt": "p", "model": "m"}
    assert completions.completion(table, LIMITS) == completion()


@pytest.mark.parametrize(("changes", "param"), [
    ({"model": 7}, "model"), ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"max_tokens": 51}, "max_tokens"), ({"max_tokens": 1.0}, "max_tokens"),
    ({"temperature": True}, "temperature"), ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 1.01}, "top_p"), ({"seed": "1"}, "seed"), ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"), ({"stop": ["x"] * 10_000}, "stop"), ({"user": 7}, "user"),
    ({"n": 129}, "n"), ({"n": 0}, "n"), ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(300_000)}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"), ({"logit_bias": [1]}, "logit_bias"),
    ({"presence_penalty": 3}, "presence_penalty"), ({"min_p": 2}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"), ({"store": True}, "store"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"), ({"use_beam_search": True},
                                                         "use_beam_search"),
    ({"metadata": {"a": 1}}, "metadata"), ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"response_format": {"type": "sound"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
    ({"guided_choice": []}, "guided_choice"), ({"guided_regex": 1}, "guided_regex"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ({"guided_regex": "a" * 70_000}, "guided_regex"),
    ({"structured_outputs": {"xml": 1}}, "structured_outputs.xml"),
])
def test_values_out_of_range_name_their_field(changes, param):
    assert refused(lambda: completion(**changes)).param == param
    assert refused(lambda: chat(**changes)).param == param


@pytest.mark.parametrize(("messages", "param"), [
    ([], "messages"), (HELLO * 4, "messages"), (HELLO * 100_000, "messages"), ("x", "messages"),
    (["x"], "messages[0]"), ([{}], "messages[0].role"),
    ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
    ([{"role": "clown", "content": "x"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"), ([{"role": "assistant"}], "messages[0].content"),
    ([{"role": "user", "content": 1}], "messages[0].content"),
    ([*HELLO, {"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "http://169.254.169.254/"}}]}], "messages[1].content"),
    ([{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}],
     "messages[0].content"),
    ([{"role": "user", "content": "x", "nam": "bob"}], "messages[0].nam"),
    ([{"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {
        "name": "f", "arguments": "{}"}}]}], "messages[0].tool_calls"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
     "messages[0].tool_calls[0].function.arguments"),
    ([{"role": "user", "content": "x" * 201}], "messages"),
])
def test_bad_messages_are_named(messages, param):
    assert refused(lambda: chat(messages=messages)).param == param


@pytest.mark.parametrize(("changes", "param"), [
    ({"tools": [{"type": "custom"}]}, "tools[0].type"), ({"tools": TOOL}, "tools"),
    ({"tools": [TOOL, TOOL]}, "tools"), ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}},
     "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"), ({"top_logprobs": 3}, "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ({"functions": [1]}, "functions"), ({"modalities": ["audio"]}, "modalities"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
])
def test_what_a_chat_may_not_ask_is_named(changes, param):
    assert refused(lambda: chat(**changes)).param == param


def test_the_nearest_name_is_offered():
    assert "max_tokens?" in refused(lambda: completion(max_token=1)).message
    assert "repetition_penalty?" in refused(lambda: chat(repeat_penalty=1.1)).message


def test_what_is_read_of_a_chat():
    ask = chat(max_completion_tokens=9, temperature=0, stop="x", seed=3, stream=True, top_k=-1,
               stream_options={"include_usage": True}, logprobs=True, top_logprobs=4,
               logit_bias={"7": -100}, ignore_eos=True, skip_special_tokens=False,
               messages=[{"role": "user", "content": [{"type": "text", "text": "a"},
                                                      {"type": "text", "text": "b"}]}])
    how = ask.sampling
    assert (ask.max_tokens, how.temperature, how.stop, how.seed) == (9, 0.0, ("x",), 3)
    assert (how.top_k, how.logprobs, how.logit_bias) == (0, 4, {7: -100.0})
    assert how.ignore_end and how.special_text
    assert ask.stream and ask.include_usage
    assert ask.conversation.messages == ({"role": "user", "content": "ab"},)
    assert chat().max_tokens is None and chat().sampling.logprobs is None


def test_what_is_read_of_a_completion():
    assert completion().max_tokens == 16
    assert completion(prompt=[[1, 2]]).prompts == ((1, 2),)
    assert completion(prompt=[1, 2]).prompts == ((1, 2),)
    assert completion(prompt=["x", [1]]).prompts == ("x", (1,))
    assert completion(top_p=0).sampling.top_p > 0
    assert completion(max_tokens=0).max_tokens == 0
    assert refused(lambda: completion(prompt=[1, True])).param == "prompt"
    assert refused(lambda: completion(prompt="x" * 201)).param == "prompt"
    assert refused(lambda: completion(prompt=["x"] * 5)).param == "prompt"
    assert refused(lambda: completion(prompt=["x"] * 4, n=40)).param == "n"
    assert refused(lambda: completion(stream=True, best_of=2)).param == "best_of"


@pytest.mark.parametrize(("changes", "grammar"), [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Grammar("json")),
    ({"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "strict": True, "schema": {"type": "object"}}}},
     Grammar("json_schema", '{"type": "object"}')),
    ({"guided_json": '{"const": 1}'}, Grammar("json_schema", '{"const": 1}')),
    ({"guided_regex": "a+"}, Grammar("regex", "a+")),
    ({"structured_outputs": {"choice": ["a", "b"]}}, Grammar("choice", '["a", "b"]')),
    ({"structured_outputs": {"json_object": True}}, Grammar("json")),
])
def test_every_name_of_a_form(changes, grammar):
    assert completion(**changes).sampling.grammar == grammar
    assert chat(**changes).sampling.grammar == grammar


def test_a_forced_call_is_a_form():
    named = chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "add"}})
    assert named.choice == ToolChoice("named", "add")
    assert json.loads(named.sampling.grammar.source) == TOOL["function"]["parameters"]
    forced = json.loads(chat(tools=[TOOL], tool_choice="required",
                             parallel_tool_calls=False).sampling.grammar.source)
    assert forced["maxItems"] == 1 and forced["items"]["properties"]["name"] == {"const": "add"}
    points = {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object"}}}
    two = json.loads(chat(tools=[TOOL, {"type": "function", "function": {
        "name": "f", "parameters": points}}], tool_choice="required").sampling.grammar.source)
    moved = two["items"]["anyOf"][1]["properties"]["arguments"]
    assert moved["$ref"] == "#/items/anyOf/1/properties/arguments/$defs/N"
    quiet = chat(tools=[TOOL], tool_choice="none")
    assert quiet.sampling.grammar is None and quiet.conversation.tools == ()
    assert chat(tools=[TOOL]).conversation.tools[0]["function"]["name"] == "add"


def test_a_whole_conversation_with_calls():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    found = chat(messages=[
        {"role": "developer", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None,
         "annotations": [], "audio": None, "function_call": None},
        {"role": "tool", "tool_call_id": "c1", "content": "1"}]).conversation.messages
    assert found[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert found[2]["tool_call_id"] == "c1"


def test_items_of_a_response_become_messages():
    ask = responses.respond({"instructions": "be", "max_output_tokens": 5, "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"}],
        "tools": [{"type": "function", "name": "add", "parameters": {"type": "object"}}]}, LIMITS)
    assert [m["role"] for m in ask.chat.conversation.messages] == [
        "system", "user", "assistant", "tool"]
    assert ask.chat.max_tokens == 5 and ask.repeated["store"] is False
    for name in ("previous_response_id", "conversation", "prompt"):
        message = refused(responses.respond, {"input": "x", name: "r"}, LIMITS).message
        assert "kept" in message
    assert refused(responses.respond, {"input": "x", "store": True}, LIMITS).param == "store"


def test_every_field_is_published():
    from curbcut.serve.api.published import BODIES, document
    paths = document(["m"])["paths"]
    for path, table in BODIES.items():
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"].keys() == table.keys()
    assert set(fields.COMMON) <= set(completions.TABLE) & set(chats.TABLE)
