"""Answers that keep to a grammar: JSON, a JSON schema, an expression, choices, or Lark's notation.

llguidance (extra `serve`) says after each token which tokens may follow. Its work is limited, both
when a grammar is read and at each token, so that no grammar holds the engine up: a bomb is Unfit
when it is read, or ends its own answer later.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curbcut.serve.engine.interface import Grammar, Sampling, Unfit
from curbcut.serve.engine.text import Vocabulary

MOST_CHARACTERS = 64 * 1024
"""Longest grammar."""
_MOST_GBNF = 8192
"""The same as GBNF, which takes time by the square of its rules to read."""
_LIMITS: Mapping[str, Any] = {
    "max_items_in_row": 2000, "initial_lexer_fuel": 200_000, "step_lexer_fuel": 100_000,
    "step_max_items": 20_000, "max_lexer_states": 20_000, "max_grammar_size": 50_000,
    "precompute_large_lexemes": False, "verbose_errors": False}
"""By the library's own figures: some 5 ms of work to read a grammar, 8 ms for a token, 40 MB."""
_SPACE = r"(\n[ \t]{0,32}|[ ])?"
"""Between parts of JSON: at most one space, or a line break with its indentation, as a model that
is unsure of itself would go on with spaces for ever."""
_KEPT, _KEPT_STARTS = 4, 16
"""Vocabularies whose bridge is kept, and grammars that are kept as they were read."""
_bridges: OrderedDict[int, tuple[Vocabulary, Any]] = OrderedDict()
_starts: OrderedDict[tuple[int, Grammar], tuple[Vocabulary, Any]] = OrderedDict()
_lock = threading.Lock()


class Matcher:
    """Where an answer is in its grammar. `failed` says why it cannot go on, else ""."""

    def __init__(self, matcher: Any, ends: list[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self.failed = ""

    def mask(self, scores: Tensor) -> None:
        """Sets scores [vocab] of tokens that may not come next to -inf. The end tokens may come
        once the grammar is satisfied, and only they once it allows nothing more.
        """
        allowed = np.zeros(len(scores), np.bool_)
        if self._matcher.is_stopped():
            allowed[self._ends] = True
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            known = np.unpackbits(bits, bitorder="little")[: len(scores)]
            allowed[: len(known)] = known
        self._look()
        if not self.failed:
            scores.masked_fill_(~torch.from_numpy(allowed).to(scores.device), -torch.inf)

    def take(self, token: int) -> None:
        """Goes on by one token."""
        if not self.failed and not (self._matcher.is_stopped() and token in self._ends):
            self._matcher.consume_token(token)
            self._look()

    def _look(self) -> None:
        if self._matcher.is_error():
            self.failed = _first_line(self._matcher.get_error())


def matcher_for(grammar: Grammar, vocabulary: Vocabulary, sampling: Sampling) -> Matcher:
    """The start of `grammar`. Raises Unfit as `prepare` does, and for one beside `ignore_end` or
    without end tokens, as it could not end.
    """
    if sampling.ignore_end or not _ends(vocabulary):
        raise Unfit("a grammar ends an answer by an end token, which is ignored or missing here")
    return Matcher(prepare(grammar, vocabulary), _ends(vocabulary))


def prepare(grammar: Grammar, vocabulary: Vocabulary) -> Any:
    """Reads a grammar, so that the next `matcher_for` finds it read; a copy of its start.

    It may take some milliseconds, and the first one of a large vocabulary a second: whoever must
    not wait calls this on another thread first. Raises Unfit for a grammar that is wrong, too
    large or matches nothing, and where llguidance is missing.
    """
    if len(grammar.source) > MOST_CHARACTERS:
        raise Unfit(f"the grammar has {len(grammar.source)} characters, more than "
                    f"{MOST_CHARACTERS}")
    key = (id(vocabulary), grammar)
    with _lock:
        kept = _starts.get(key)
        if kept is not None:
            _starts.move_to_end(key)
            return kept[1].deep_copy()
    try:
        from llguidance import LLMatcher, LLParserLimits
    except ImportError:
        raise Unfit("grammars need llguidance: pip install 'curbcut[serve]'") from None
    matcher = LLMatcher(_bridge(vocabulary), _compiled(grammar), log_level=0,
                        limits=LLParserLimits(**_LIMITS))
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        why = _first_line(matcher.get_error())
        raise Unfit("the grammar cannot be used: "
                    f"{'it allows no answer' if why.startswith('NoExtension') else why}")
    with _lock:
        _starts[key] = vocabulary, matcher
        if len(_starts) > _KEPT_STARTS:
            _starts.popitem(last=False)
        return matcher.deep_copy()


def _compiled(grammar: Grammar) -> str:
    """The grammar in the library's own notation."""
    from llguidance import LLMatcher

    try:
        if grammar.kind == "json":
            return str(LLMatcher.grammar_from_json_schema(_spaced({"type": "object"})))
        if grammar.kind == "json_schema":
            schema = json.loads(grammar.source)
            if not isinstance(schema, dict):
                raise Unfit("the schema is not an object")
            return str(LLMatcher.grammar_from_json_schema(_spaced(schema)))
        if grammar.kind == "regex":
            return str(LLMatcher.grammar_from_regex(grammar.source))
        lark = _of_choices(grammar.source) if grammar.kind == "choice" else _lark(grammar.source)
        return str(LLMatcher.grammar_from_lark(lark))
    except (ValueError, RecursionError) as error:
        raise Unfit(f"the grammar cannot be read: {_first_line(str(error))}") from None


def _lark(source: str) -> str:
    """A grammar in Lark's notation, also where it is given as GBNF (`root ::= ...`)."""
    from llguidance.gbnf_to_lark import gbnf_to_lark, is_lark_syntax

    if "::=" not in source or is_lark_syntax(source):
        return source
    if len(source) > _MOST_GBNF:
        raise Unfit(f"a grammar of more than {_MOST_GBNF} characters has to be in Lark's notation")
    try:
        return str(gbnf_to_lark(source))
    except Exception as error:  # of its own, and whatever its reader stumbles over
        raise Unfit(f"the grammar cannot be read: {_first_line(str(error))}") from None


def _of_choices(source: str) -> str:
    choices = json.loads(source)
    if not isinstance(choices, list) or not choices or not all(
            isinstance(one, str) and one for one in choices):
        raise Unfit("choices are a list of texts that are not empty")
    return "start: " + " | ".join(json.dumps(one) for one in choices)


def _spaced(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with how much space may stand in its JSON."""
    return dict(schema) | {"x-guidance": {"whitespace_pattern": _SPACE, "lenient": False}}


def _bridge(vocabulary: Vocabulary) -> Any:
    """The library's own reading of a tokenizer (a second's work for 150,000 tokens), kept."""
    from llguidance import LLTokenizer

    with _lock:
        kept = _bridges.get(id(vocabulary))
        if kept is None:
            try:
                made = LLTokenizer(vocabulary.tokenizer.to_str(),
                                   eos_token=_ends(vocabulary))
            except Exception as error:  # the library raises whatever its reader found
                raise Unfit(f"grammars cannot read this tokenizer: "
                            f"{_first_line(str(error))}") from None
            kept = _bridges[id(vocabulary)] = (vocabulary, made)
            if len(_bridges) > _KEPT:
                _bridges.popitem(last=False)
        _bridges.move_to_end(id(vocabulary))
        return kept[1]


def _ends(vocabulary: Vocabulary) -> list[int]:
    """End tokens that the tokenizer has; settings may name others."""
    known = vocabulary.tokenizer.id_to_token
    return sorted(token for token in vocabulary.end_tokens if known(token) is not None)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
