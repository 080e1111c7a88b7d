"""A conversation as the tokens that ask for its next message, by the model's own chat template.

What people wrote must not be able to end their message and begin another one. So where their text
spells a special token ("<|im_end|>"), a mark that no text holds is put inside it before the
template sees it; what the template itself writes is without marks and becomes special tokens, and
what is marked is tokenised as the plain text that it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from curbcut.serve.engine.interface import Message, Unfit
from curbcut.serve.engine.text import Vocabulary

CallKind = Literal["hermes", "llama", "mistral"]
"""How a model writes calls of tools."""
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that are no characters: Unicode keeps them for uses like this."""
_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""How tools are told to a model whose template does not know them (the words of Hermes)."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a chat template is given."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    documents: tuple[Mapping[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else a template knows (`enable_thinking`)."""
    begins: bool = True
    """Whether the assistant's next message is begun."""
    goes_on: bool = False
    """Whether the last message is gone on with, instead."""


class Prompter:
    """Writes conversations as tokens, for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        added = vocabulary.tokenizer.get_added_tokens_decoder().values()
        self.specials = sorted((token.content for token in added if token.special and
                                token.content), key=len, reverse=True)
        """Texts of special tokens, longest first."""
        spelt = "|".join(map(re.escape, self.specials)) or r"(?!)"
        self._special, self._spelt = re.compile(spelt), re.compile(spelt, re.IGNORECASE)
        self._starts = tuple({text[:2].casefold() for text in self.specials})
        self._source = vocabulary.chat_template
        self.call_kind: CallKind = call_kind(self._source or "")

    def tokens(self, conversation: Conversation, *, around: bool = False) -> list[int]:
        """The prompt; `around` adds what the tokenizer puts around texts. Raises Unfit.

        A base model has no chat template: it goes on with a text. Its prompt is the contents of
        the messages, whoever said them, joined by line breaks.
        """
        if self._source is None:
            return self._vocabulary.encode(self.text(conversation))
        mark, text = self._rendered(conversation)
        if mark not in text:
            return self._vocabulary.encode(text, special=True, around=around)
        ids = self._vocabulary.encode("") if around else []
        for piece, special in self._pieces(text, mark):
            ids += self._vocabulary.encode(piece, special=special, around=False)
        return ids

    def text(self, conversation: Conversation) -> str:
        """The prompt as text, in which what people wrote can no longer be told from the rest."""
        if self._source is None:
            return "\n".join(str(message["content"]) for message in _with_tools(conversation))
        mark, text = self._rendered(conversation)
        return text.replace(mark, "")

    def _rendered(self, given: Conversation) -> tuple[str, str]:
        """A mark that nobody wrote, and the template's text with it in what spells a token."""
        assert self._source is not None
        from curbcut.serve.engine import templates

        source = self._source
        messages = list(given.messages) if not given.tools or "tools" in source \
            else _with_tools(given)
        if "developer" not in source:
            messages = [{**message, "role": "system"} if message["role"] == "developer"
                        else message for message in messages]
        said = [messages, list(given.tools), list(given.documents), dict(given.variables)]
        written = json.dumps(said, ensure_ascii=False)
        free = [mark for mark in _MARKS if mark not in written]
        if len(free) < 2:
            raise Unfit("the messages hold code points that are no characters")
        mark, end = free[0], f"{free[1]} "  # the space shows whether the template strips
        messages, tools, documents, variables = self._marked(said, mark)
        if given.goes_on:
            messages[-1] = {**messages[-1], "content": messages[-1].get("content", "") + end}
        settings = self._vocabulary.settings
        text = templates.render(source, {
            **{name: _token(settings.get(name)) for name in ("bos_token", "eos_token",
                                                             "pad_token", "unk_token")},
            **variables, "messages": messages, "tools": tools or None,
            "documents": documents or None, "add_generation_prompt": given.begins})
        text = text.replace(json.dumps(mark)[1:-1], mark)
        if given.goes_on:
            text = _cut(text, end)
        return mark, text

    def _marked(self, value: Any, mark: str) -> Any:
        """Everything that was said, with a mark inside whatever spells a special token."""
        if isinstance(value, str):
            return self._marked_text(value, mark)
        if isinstance(value, dict):
            return {self._marked(key, mark): self._marked(item, mark)
                    for key, item in value.items()}
        return [self._marked(item, mark) for item in value] \
            if isinstance(value, list | tuple) else value

    def _marked_text(self, text: str, mark: str) -> str:
        folded = text.casefold()
        if any(start in folded for start in self._starts):
            text = self._spelt.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        for special in self.specials:  # one that begins here might end in what comes next
            for length in range(min(len(special) - 1, len(text)), 0, -1):
                if text.endswith(special[:length]):
                    return text[:len(text) - length + 1] + mark + text[len(text) - length + 1:]
        return text

    def _pieces(self, text: str, mark: str) -> Iterator[tuple[str, bool]]:
        """Pieces of a marked text, and whether special tokens in them are special."""
        start = clean = 0
        for found in [*self._special.finditer(text), None]:
            end = found.start() if found else len(text)
            if mark in text[start:end]:
                if start > clean:
                    yield text[clean:start], True
                yield text[start:end].replace(mark, ""), False
                clean = end
            start = found.end() if found else end
        if len(text) > clean:
            yield text[clean:], True


def call_kind(source: str) -> CallKind:
    """How the model of a chat template writes calls; Hermes' way where nothing tells."""
    if "[TOOL_CALLS]" in source:
        return "mistral"
    if "<tool_call>" not in source and ("python_tag" in source or '"parameters": ' in source):
        return "llama"
    return "hermes"


def _with_tools(given: Conversation) -> list[Message]:
    """The messages, with the tools told in a system message."""
    if not given.tools:
        return list(given.messages)
    told = _TOOLS.format(tools="".join(f"\n{json.dumps(tool)}" for tool in given.tools))
    first, *rest = given.messages
    if first["role"] in ("system", "developer"):
        return [{**first, "content": f"{first['content']}\n\n{told}"}, *rest]
    return [{"role": "system", "content": told}, first, *rest]


def _cut(text: str, end: str) -> str:
    """The text up to where the last message ends; stripped where the template strips."""
    place = text.rfind(end.strip())
    if place < 0:
        raise Unfit("the model's chat template does not show the last message as it is")
    return text[:place] if text[place:].startswith(end) else text[:place].rstrip()


def _token(given: Any) -> str:
    """A special token, written as text or as {"content": text}."""
    text = given.get("content") if isinstance(given, Mapping) else given
    return text if isinstance(text, str) else ""
