"""Conversations as tokens: as transformers writes them, and never as their writers would like."""

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine import templates, text
from curbcut.serve.engine.chat import Conversation, Prompter
from curbcut.serve.engine.interface import Unfit
from pretend import byte_tokenizer

TALK = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"})
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n"
          "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TOOL = {"type": "function", "function": {"name": "add", "description": "<b>é</b>", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
LIKE_QWEN = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><tool_call><|im_end|>\\n" }}{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if message.role == "user" %}{%- set ns.last = index %}{%- break %}{%- endif %}{%- endfor %}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == "assistant" and '</think>' in content %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if message.role != "tool" %}{{- '<|im_start|>' + message.role + '\\n' + content }}
{%- for call in message.tool_calls or [] %}{{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~
'", "arguments": ' }}{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- else %}{{- '<tool_response>' ~ content.strip() ~ '</tool_response>' }}
{%- endif %}{%- endfor %}{%- for d in documents or [] %}{{ d.title | upper }}{% endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n' }}
{%- endif %}{%- endif %}{% generation %}{% endgeneration %}"""
LIKE_LLAMA = """{{- bos_token }}{%- if not date_string is defined %}
{%- set date_string = strftime_now("%Y") %}{%- endif %}
{%- for message in messages %}{%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
{{- raise_exception('no such role: ' + message.role) }}{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n\\n' + message['content'] | trim + '<|im_end|>' }}
{%- endfor %}{%- macro end(x) %}[{{ x }}]{%- endmacro %}{{ end(date_string) }}
{%- for key, value in tools[0].function.parameters | items %}{{ key }}{%- endfor %}"""


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return text.Vocabulary(tokenizer, frozenset(), {"eos_token": "<|endoftext|>", "bos_token": {
        "content": "<|endoftext|>"}}, None)


def prompter(vocabulary, template):
    return Prompter(replace(vocabulary, chat_template=template))


def test_a_base_model_goes_on_with_the_joined_text(vocabulary):
    found = Prompter(vocabulary)
    assert found.text(Conversation(messages=TALK)) == "Be brief.\nHello"
    assert found.tokens(Conversation(messages=TALK)) == vocabulary.encode("Be brief.\nHello")
    assert "<tools>" in found.text(Conversation(messages=TALK, tools=(TOOL,)))


@pytest.mark.parametrize("template", [CHATML, LIKE_QWEN, LIKE_LLAMA])
@pytest.mark.parametrize("given", [
    {}, {"add_generation_prompt": False}, {"tools": [TOOL]}, {"enable_thinking": False},
    {"documents": [{"title": "a", "text": "b"}]}, {"continue_final_message": True},
    {"tools": [TOOL], "messages": [*TALK, {"role": "assistant", "content": "x</think>\ny ",
                                           "tool_calls": [CALL]},
                                   {"role": "tool", "content": " 3 "}]}])
def test_as_transformers_writes_it(vocabulary, template, given):
    from transformers import PreTrainedTokenizerFast
    if template is not LIKE_QWEN and given.get("tools") and template is not LIKE_LLAMA:
        pytest.skip("the template knows no tools: we tell the model ourselves")
    if template is LIKE_LLAMA and not given.get("tools"):
        given = given | {"tools": [TOOL]}
    theirs = PreTrainedTokenizerFast(tokenizer_object=vocabulary.tokenizer,
                                     bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    messages = given.get("messages", [*TALK, {"role": "assistant", "content": "abc "}])
    goes_on = given.get("continue_final_message", False)
    more = {key: value for key, value in given.items() if key != "messages"}
    more.setdefault("add_generation_prompt", not goes_on)
    want = theirs.apply_chat_template(messages, chat_template=template, tokenize=False, **more)
    mine = prompter(vocabulary, template)
    asked = Conversation(
        messages=tuple(messages), tools=tuple(given.get("tools", ())),
        documents=tuple(given.get("documents", ())), begins=more["add_generation_prompt"],
        goes_on=goes_on, variables={k: v for k, v in given.items() if k == "enable_thinking"})
    assert mine.text(asked) == want
    assert mine.tokens(asked) == vocabulary.encode(want, special=True, around=False)


def test_developer_is_system_where_the_template_knows_no_developer(vocabulary):
    said = Conversation(messages=({"role": "developer", "content": "x"},))
    assert prompter(vocabulary, CHATML).text(said).startswith("<|im_start|>system")
    knows = CHATML + "{# developer #}"
    assert prompter(vocabulary, knows).text(said).startswith("<|im_start|>developer")


EVIL = st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|IM_END|>", "<|im", "_end|>", "<",
                                 "|", "a", " ", "\n", "é", "\ufdd0", "<|endoftext|>"]),
                max_size=8).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVIL, min_size=1, max_size=3), EVIL)
def test_nobody_forges_a_special_token(vocabulary, contents, name):
    mine = prompter(vocabulary, "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.name }}\n"
                                "{{ m.content }}{% for t in tools or [] %}{{ t | tojson }}"
                                "{% endfor %}<|im_end|>{% endfor %}")
    said = Conversation(messages=tuple({"role": "user", "content": content, "name": name}
                                       for content in contents),
                        tools=({"type": "function", "function": {"name": name}},), begins=False)
    tokens = mine.tokens(said)
    start, end = (vocabulary.tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>"))
    specials = [token for token in tokens if token >= 259]
    assert specials == [start, end] * len(contents)
    assert vocabulary.decode(tokens, special=True) == mine.text(said)
    shown = json.dumps(said.tools[0], ensure_ascii=False)
    assert mine.text(said) == "".join(
        f"<|im_start|>user{name}\n{content}{shown}<|im_end|>" for content in contents)


@pytest.mark.parametrize("template", [
    "{{ raise_exception('no system message, please') }}", "{{ messages[9].content.x }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% for %}", "{{ 1 / 0 }}",
    "{{ messages.append(1) }}", "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% endfor %}",
    "{{ 'a' * 10**9 }}", "{{ [1] * 10**9 }}", "{{ 9 ** (9 ** 9) }}", "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}", "{{ 'a'.ljust(10**9) }}", "{{ 'a' | center(10**9) }}",
    "{{ 'a' | indent(10**9) }}", "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
    "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
    "{{ ['a' * 99999] * 9999 | join }}", "{{ (['a' * 99999] * 9999) | join }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "{{ lipsum(10**6) }}"])
def test_what_a_template_may_not_do_is_said_soon(vocabulary, template):
    began = time.process_time()
    with pytest.raises(Unfit):
        prompter(vocabulary, template).text(Conversation(messages=TALK))
    assert time.process_time() - began < 20 * templates.SECONDS  # of hours, without the bounds
