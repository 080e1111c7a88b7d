import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine.calls import Arguments, CallPiece, Listed, reader_for
from curbcut.serve.engine.chat import call_kind

NAMES = ["add", "sub"]


def read(reader, parts):
    found = [piece for part in parts for piece in reader.add(part)] + list(reader.finish())
    text = "".join(piece for piece in found if isinstance(piece, str))
    return text, [(p.name, p.arguments, p.index) for p in found if isinstance(p, CallPiece)]


CASES = [
    ("hermes", 'Well.<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
     '<tool_call>{"name": "sub", "arguments": {}}</tool_call>', "Well.",
     [("add", {"a": 1}), ("sub", {})]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": "</tool"}}', "",
     [("add", {"a": "</tool"})]),
    ("hermes", "no call < at all", "no call < at all", []),
    ("hermes", "<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
    ("hermes", '<tool_call>{"name": "mul", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "mul", "arguments": {}}</tool_call>', []),
    ("llama", '{"name": "add", "parameters": {"a": 2}}; {"name": "sub", "parameters": {}}', "",
     [("add", {"a": 2}), ("sub", {})]),
    ("llama", '<|python_tag|>{"name": "add", "parameters": {}}', "", [("add", {})]),
    ("llama", '{"a": 1}', '{"a": 1}', []), ("llama", "It is 3.", "It is 3.", []),
    ("mistral", 'Hm[TOOL_CALLS] [{"name": "add", "arguments": {"a": 3}}]', "Hm",
     [("add", {"a": 3})]),
    ("mistral", '[TOOL_CALLS]add{"a": 3}[TOOL_CALLS]sub[ARGS]{}', "",
     [("add", {"a": 3}), ("sub", {})]),
    ("mistral", "[TOOL] nothing", "[TOOL] nothing", []),
]


@pytest.mark.parametrize(("kind", "said", "text", "calls"), CASES)
def test_calls_are_found_wherever_the_text_is_cut(kind, said, text, calls):
    for size in (1, 2, 3, 7, len(said)):
        parts = [said[i:i + size] for i in range(0, len(said), size)]
        shown, found = read(reader_for(kind, NAMES), parts)
        assert shown == text
        assert [(name, json.loads(given), i) for name, given, i in found] == [
            (name, given, i) for i, (name, given) in enumerate(calls)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["hermes", "llama", "mistral"]), st.lists(st.sampled_from(
    ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "{", "}", "a", " ", "\n", '"name"', "<"]),
    max_size=12))
def test_text_without_a_call_is_the_text(kind, parts):
    text, calls = read(reader_for(kind, NAMES), parts)
    assert calls == []
    said = "".join(parts)
    assert text.split() == said.split() or text == said


def test_mistral_s_ids_are_nine_letters():
    [call] = _all(reader_for("mistral", NAMES), "[TOOL_CALLS]add{}")
    assert len(call.id) == 9 and call.id.isalnum()


def _all(reader, text):
    return [*reader.add(text), *reader.finish()]


def test_named_arguments_come_as_they_are_made():
    pieces = _all(Arguments("add"), '{"a"') + _all(Arguments("add"), "")
    assert [(p.name, p.arguments) for p in pieces] == [("add", '{"a"'), ("add", "")]
    reader = Arguments("add")
    assert [p.arguments for part in ('{"a"', ": 1}") for p in reader.add(part)] == ['{"a"', ": 1}"]


def test_a_list_of_calls_is_told_call_by_call():
    said = '[{"name": "add", "arguments": {"a": {"b": 1}}}, {"name": "sub", "arguments": {}}]'
    text, calls = read(Listed(NAMES), list(said))
    assert (text, [name for name, _, _ in calls]) == ("", ["add", "sub"])
    assert read(Listed(NAMES), [said[:60]])[1] == [("add", '{"a": {"b": 1}}', 0)]
    assert read(Listed(NAMES), [said[:30]])[1] == []


def test_the_kind_is_told_by_the_template():
    assert call_kind("... <tool_call> ...") == call_kind("") == "hermes"
    assert call_kind("[TOOL_CALLS]") == "mistral"
    assert call_kind("{{ '<|python_tag|>' }}") == "llama"
