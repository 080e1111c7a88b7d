import json
import random
import re
import sys

import pytest
import torch

from curbcut.serve.engine import grammar as grammars
from curbcut.serve.engine.chooser import begin
from curbcut.serve.engine.grammar import matcher_for
from curbcut.serve.engine.interface import Asked, Grammar, Sampling, Unfit
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.sampler import take
from curbcut.serve.engine.text import Vocabulary
from curbcut.serve.gateway.tools import ToolChoice, forced
from serve.conftest import byte_tokenizer

pytest.importorskip("llguidance")
END, VOCAB = 259, 264
VOCABULARY = Vocabulary(byte_tokenizer(), frozenset({END}), {}, None)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"where": {"$ref": "#/$defs/city"}}, "required": ["where"],
    "additionalProperties": False, "$defs": {"city": {"enum": ["Ulm", "Bonn"]}}}}},
    {"type": "function", "function": {"name": "cl\"ock"}}]


def asked(grammar, prompt=(1, 2), **how):
    sampling = Sampling(**({"max_tokens": 99, "seed": 1} | how), grammar=grammar)
    made = Request(ticket=0, asked=Asked(prompt=prompt, sampling=sampling),
                   deliver=lambda delta: None, tokens=list(prompt), prompt_tokens=len(prompt),
                   text=None, sampling=sampling)
    begin(made, VOCABULARY, VOCAB)
    return made


def write(made, scores=None, most=80):
    """The text of an answer to chance, and whether it ended by itself."""
    source = torch.Generator().manual_seed(made.sampling.seed)
    for _ in range(most):
        logits = torch.randn(1, VOCAB, generator=source) * 3
        if scores is not None:
            logits += scores
        end = len(made.tokens)
        [taken] = take(logits, [Piece(made, end - 1, 1, 1)])
        if not taken:
            break
        made.tokens.append(taken[0].token)
        if taken[0].token == END:
            return VOCABULARY.tokenizer.decode(made.answer), True
    return VOCABULARY.tokenizer.decode(made.answer), False


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_answers_keep_to_expressions_choices_and_lark(seed, temperature):
    how = {"seed": seed, "temperature": temperature}
    text, ended = write(asked(Grammar("regex", "[a-f]{2,4}-[0-9]+x"), **how))
    assert re.fullmatch("[a-f]{2,4}-[0-9]+x" if ended else "[a-f]{2,4}-[0-9]*", text)
    choices = ["yes", 'n"o\n', "\u00e9\U0001f600"]
    text, ended = write(asked(Grammar("choice", json.dumps(choices)), **how))
    assert ended and text in choices
    text, ended = write(asked(Grammar("lark", 'start: "(" start ")" | "a"'), **how))
    assert text.startswith(("(", "a")) and (not ended or text.count("(") == text.count(")"))


@pytest.mark.parametrize("seed", range(4))
def test_answers_keep_to_a_schema(seed):
    schema = {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99,
                                                            "minimum": 0}},
        "required": ["name", "age"], "additionalProperties": False}
    text, ended = write(asked(Grammar("json_schema", json.dumps(schema)), seed=seed), most=300)
    assert ended, text
    found = json.loads(text)
    assert set(found) == {"name", "age"} and 0 <= found["age"] <= 99 and len(found["name"]) <= 5


def test_any_object_is_one_and_spaces_come_to_an_end():
    spaces = torch.zeros(VOCAB)
    spaces[VOCABULARY.tokenizer.encode(" ").ids[0]] = 50.0
    text, ended = write(asked(Grammar("json"), logit_bias={END: 30.0}), spaces)
    assert ended and isinstance(json.loads(text), dict) and "  " not in text


@pytest.mark.parametrize("seed", range(3))
def test_calls_of_tools(seed):
    close = VOCABULARY.tokenizer.encode("}").ids[0]
    how = {"temperature": 0.5, "seed": seed, "logit_bias": {close: 30.0}}
    text, ended = write(asked(forced(TOOLS, ToolChoice("required"), parallel=False), **how))
    [call] = json.loads(text)
    assert ended and set(call) == {"name", "arguments"}
    if call["name"] == "weather":
        assert call["arguments"]["where"] in ("Ulm", "Bonn")
    else:
        assert call == {"name": "cl\"ock", "arguments": {}}
    text, ended = write(asked(forced(TOOLS, ToolChoice("named", "weather"), parallel=True), **how))
    assert ended and json.loads(text)["where"] in ("Ulm", "Bonn")


@pytest.mark.parametrize(("kind", "source", "why"), [
    ("json_schema", "{", "cannot be read"), ("json_schema", "[]", "not an object"),
    ("json_schema", '{"type": "foo"}', "Invalid type"), ("json_schema", '{"$ref": "#"}',
                                                        "no answer"),
    ("json_schema", '{"$ref": "http://localhost/x"}', "cannot be used"),
    ("json_schema", '{"a":' * 3000 + "1" + "}" * 3000, "cannot be"),
    ("regex", "[a-z", "regex parse error"), ("regex", "(?=a)b", "regex parse error"),
    ("regex", "(" * 2000 + "a" + ")*" * 2000, "regex"), ("regex", "a" * 70_000, "characters"),
    ("choice", "[]", "choices"), ("choice", '["", 3]', "choices"),
    ("lark", "start: nothing", "unknown name"), ("lark", "", "cannot be used"),
])
def test_what_is_no_grammar_is_unfit(kind, source, why):
    with pytest.raises(Unfit, match=why):
        asked(Grammar(kind, source))


def test_a_bomb_ends_its_own_answer_and_no_other():
    bomb = Grammar("lark", r"start: A" "\n" r"A: /(a|b)*a(a|b){30}/ & /(a|b)*b(a|b){25}/ "
                   r"& ~/(a|b)*aa(a|b){15}/")
    first, other = asked(bomb, logit_bias={END: -100.0}), asked(None)
    for _ in range(80):
        pieces = [Piece(one, len(one.tokens) - 1, 1, 1) for one in (first, other)]
        found = take(torch.zeros(2, VOCAB), pieces)
        assert len(found[1]) == 1
        other.tokens.append(found[1][0].token)
        if first.sampler.failed:
            break
        first.tokens.append(found[0][0].token)
    assert found[0] == [] and "lexer" in first.sampler.failed and not other.sampler.failed


def test_nothing_but_the_end_may_follow_the_end_of_the_grammar():
    matcher = matcher_for(Grammar("regex", "xy"), VOCABULARY, Sampling(max_tokens=9))
    allowed = []
    for letter in ("x", "y", None):
        scores = torch.zeros(VOCAB + 40)         # logits wider than the vocabulary
        matcher.mask(scores)
        allowed.append({VOCABULARY.tokenizer.id_to_token(at)
                        for at in scores.isfinite().nonzero()[:, 0].tolist()})
        if letter is not None:
            matcher.take(VOCABULARY.tokenizer.encode(letter).ids[0])
    assert allowed == [{"x"}, {"y"}, {"<|endoftext|>"}]


def test_min_tokens_and_bans_give_way_to_a_grammar_that_allows_nothing_else():
    first = asked(Grammar("choice", '["a"]'), min_tokens=5)
    assert write(first) == ("a", True)
    letter = VOCABULARY.tokenizer.encode("a").ids[0]
    assert write(asked(Grammar("choice", '["a"]'), logit_bias={letter: -100.0})) == ("a", True)


def test_drafts_against_the_grammar_are_not_taken():
    made = asked(Grammar("regex", "th(e|is) x"), temperature=0)
    drafts = VOCABULARY.tokenizer.encode("they").ids
    made.drafts = drafts
    logits = torch.zeros(1 + len(drafts), VOCAB)
    for row, token in enumerate(drafts):
        logits[row, token] = 9.0
    logits[len(drafts) - 1, VOCABULARY.tokenizer.encode(" ").ids[0]] = 5.0
    [taken] = take(logits, [Piece(made, 1, 1 + len(drafts), 1 + len(drafts))])
    assert VOCABULARY.tokenizer.decode([one.token for one in taken]) == "the "


def test_answers_that_could_not_end_are_unfit():
    with pytest.raises(Unfit, match="end token"):
        asked(Grammar("json"), ignore_end=True)


def test_end_tokens_that_the_tokenizer_lacks_are_none():
    strange = Vocabulary(byte_tokenizer(), frozenset({END, 99_999}), {}, None)
    matcher = matcher_for(Grammar("choice", '["a"]'), strange, Sampling(max_tokens=9))
    matcher.take(VOCABULARY.tokenizer.encode("a").ids[0])
    scores = torch.zeros(VOCAB)
    matcher.mask(scores)
    assert scores.isfinite().nonzero().tolist() == [[END]]
    none = Vocabulary(byte_tokenizer(), frozenset({99_999}), {}, None)
    with pytest.raises(Unfit, match="end token"):
        matcher_for(Grammar("json"), none, Sampling(max_tokens=9))


def test_a_grammar_is_read_once_and_answers_do_not_disturb_each_other(monkeypatch):
    grammar = Grammar("regex", "[a-f]{3}once")
    first = write(asked(grammar, seed=1))
    monkeypatch.setattr(grammars, "_compiled", lambda grammar: pytest.fail("read again"))
    again = asked(grammar, seed=2)
    assert write(asked(grammar, seed=1)) == first and first[1]
    assert write(again)[1]
    grammars.prepare(grammar, VOCABULARY)
    assert len(grammars._starts) <= 16


def test_without_the_library_the_extra_is_named(monkeypatch):
    grammars._starts.clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Unfit, match=r"curbcut\[serve\]"):
        asked(Grammar("json"))


def test_bridges_are_kept_for_the_newest_vocabularies():
    grammars._bridges.clear()
    made = [Vocabulary(byte_tokenizer(), frozenset({END}), {}, None) for _ in range(6)]
    random.Random(1).shuffle(made)
    for vocabulary in made:
        first = grammars._bridge(vocabulary)
        assert grammars._bridge(vocabulary) is first
    assert [kept for kept, _ in grammars._bridges.values()] == made[-4:]
